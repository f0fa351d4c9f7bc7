//! The fallback for drivers without native XDP.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::forecast::Forecast;
use lb_tests::plan::Family;
use lb_tests::traffic::{Plan, Transport, run_connections};

use crate::counters::Reasons;
use crate::fleet::{Fleet, Wish};

#[test]
fn generic_mode_carries_the_same_traffic_and_status_names_it() -> Result<()> {
    let fleet = Fleet::start(Wish { xdp_mode: "generic", ..Wish::default() })?;
    // Native XDP keeps its peer from sending super-packets; generic mode does not, and they exceed every MTU.
    fleet.topology.router.check(Command::new("ethtool").args(["-K", "l1", "tso", "off", "gso", "off"]))?;
    let status = fleet.lb().json(&["status"])?;
    ensure!(status["interfaces"][0]["mode"] == "generic", "{status}");
    let host = fleet.lb().host();
    let link = host.netns.check(Command::new("ip").args(["link", "show", "dev", "eth0"]))?;
    ensure!(link.contains("xdpgeneric"), "the kernel says otherwise: {link}");

    let before = Reasons::of_load_balancer(fleet.lb())?;
    let forecast = Forecast::new(fleet.pool(), &[])?;
    for family in Family::BOTH {
        for transport in Transport::BOTH {
            let flows =
                run_connections(fleet.client(), family.service(), &Plan { transport, ..Plan::tcp(24) })?;
            fleet.ensure_foretold(&forecast, transport, &flows)?;
        }
        let bulk = Plan { bytes: 1 << 20, messages: 1, timeout: Duration::from_secs(20), ..Plan::tcp(2) };
        let flows = run_connections(fleet.client(), family.service(), &bulk)?;
        fleet.ensure_foretold(&forecast, Transport::Tcp, &flows)?;
    }
    let counted = Reasons::of_load_balancer(fleet.lb())?.since(&before);
    ensure!(counted.packets("forwarded")? > 1000, "{counted:?}");
    counted.ensure_nothing_dropped()
}
