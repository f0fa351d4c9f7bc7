//! The gateway's Ethernet address changes: another router has taken over.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_tests::plan::Family;
use lb_tests::traffic::{Flows, Plan, run_connections};

use crate::counters::Reasons;
use crate::fleet::{Fleet, Mix, Wish};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn traffic_over_ipv4_recovers_when_the_gateway_announces_another_mac_address() -> Result<()> {
    gateway_changes(Mix::GUE4, true)
}

#[test]
fn traffic_over_ipv6_recovers_when_the_gateway_announces_another_mac_address() -> Result<()> {
    gateway_changes(Mix::GUE6, true)
}

#[test]
fn traffic_over_ipv4_recovers_when_the_gateway_changes_its_mac_address_silently() -> Result<()> {
    gateway_changes(Mix::GUE4, false)
}

#[test]
fn traffic_over_ipv6_recovers_when_the_gateway_changes_its_mac_address_silently() -> Result<()> {
    gateway_changes(Mix::GUE6, false)
}

fn gateway_changes(mix: Mix, announced: bool) -> Result<()> {
    let fleet = Fleet::start(Wish { mix, backends: 1, in_pool: 1, ..Wish::default() })?;
    if announced {
        // A gratuitous ARP and an unsolicited neighbour advertisement, as VRRP sends them.
        fleet
            .topology
            .router
            .sysctl(&[("net/ipv4/conf/l1/arp_notify", "1"), ("net/ipv6/conf/l1/ndisc_notify", "1")])?;
    }
    let plan = Plan { timeout: 2 * PATIENCE, ..Plan::tcp(20) };
    let busy =
        Flows::open(fleet.client(), Family::V4.service(), &plan)?.keep_busy(32, Duration::from_millis(10));
    let before = Reasons::of_load_balancer(fleet.lb())?;
    fleet.topology.router.ip(&["link set l1 address 02:00:00:00:be:ef".to_owned()])?;
    let changed = Instant::now();
    let quick = Plan { timeout: Duration::from_millis(250), ..Plan::tcp(5) };
    let mut lived = 0;
    while lived < 5 && changed.elapsed() < PATIENCE {
        lived = run_connections(fleet.client(), Family::V4.service(), &quick)?.lived();
    }
    let took = changed.elapsed();
    ensure!(lived == 5, "{mix:?}: no traffic {took:?} after the change");
    let flows = busy.stop()?;
    ensure!(flows.lived() == 20, "{mix:?}: {:?}", flows.broken().next());
    let shown = fleet.lb().json(&["backend", "show", &fleet.address(0).to_string()])?;
    ensure!(shown["next_hop"]["mac"] == "02:00:00:00:be:ef", "{shown}");
    Reasons::of_load_balancer(fleet.lb())?.since(&before).ensure_nothing_dropped()
}
