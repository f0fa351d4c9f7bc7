//! What the project exists for: a router that sends the packets of one flow to different places.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::bowline::{Daemon, Pool};
use lb_tests::capture::Capture;
use lb_tests::forecast::Forecast;
use lb_tests::plan::{Family, PORT};
use lb_tests::router::RouterHash;
use lb_tests::topology::{Size, Topology};
use lb_tests::traffic::{Plan, Transport, run_connections};

use crate::counters::Reasons;
use crate::fleet::{Fleet, Wish, serve};

const CONNECTIONS: usize = 100;

#[test]
fn behind_an_ecn_sensitive_router_two_load_balancers_keep_every_connection() -> Result<()> {
    keeps_every_flow(RouterHash::EcnSensitive, &[Transport::Tcp])
}

#[test]
fn behind_a_per_packet_router_two_load_balancers_keep_every_connection_and_udp_flow() -> Result<()> {
    keeps_every_flow(RouterHash::PerPacket, &Transport::BOTH)
}

fn keeps_every_flow(hash: RouterHash, transports: &[Transport]) -> Result<()> {
    let fleet = Fleet::start(Wish { load_balancers: 2, ..Wish::default() })?;
    let [one, other] = fleet.topology.load_balancers.as_slice() else { unreachable!("two were wished for") };
    fleet.topology.route_vips(hash, one, other)?;
    let digests = fleet.load_balancers.iter().map(digest).collect::<Result<BTreeSet<_>>>()?;
    ensure!(digests.len() == 1, "the load balancers' tables differ: {digests:?}");

    let before = fleet.load_balancers.iter().map(Reasons::of_load_balancer).collect::<Result<Vec<_>>>()?;
    let forecast = Forecast::new(fleet.pool(), &[])?;
    let links = [one.router_interface(), other.router_interface()];
    for &transport in transports {
        for family in Family::BOTH {
            let capture = Capture::start(&fleet.topology.router, &links)?;
            let plan = Plan { transport, ..Plan::tcp(CONNECTIONS) };
            let flows = run_connections(fleet.client(), family.service(), &plan)?;
            let crossing = capture.stop()?.crossing(links[0], links[1]).len();
            // About half of the flows cross behind the first router, all behind the second.
            ensure!(crossing > CONNECTIONS / 5, "only {crossing} flows had packets on both load balancers");
            fleet.ensure_foretold(&forecast, transport, &flows)?;
        }
    }
    for (daemon, before) in fleet.load_balancers.iter().zip(&before) {
        let counted = Reasons::of_load_balancer(daemon)?.since(before);
        counted.ensure_nothing_dropped()?;
        ensure!(counted.packets("forwarded")? > 0, "{} forwarded nothing", daemon.host().name());
    }
    Ok(())
}

/// The same router, the same client, no Bowline: the failure is real, and it is the ECN bits.
#[test]
fn behind_the_same_router_two_anycast_servers_reset_about_half_of_the_connections() -> Result<()> {
    let topology = Topology::with_size(Size { load_balancers: 0, backends: 2 })?;
    let [near, far] = topology.backends.as_slice() else { unreachable!("two were asked for") };
    near.hold_vips()?;
    far.hold_vips()?;
    let _servers = [serve(near, PORT)?, serve(far, PORT)?];
    topology.route_vips(RouterHash::EcnSensitive, near, far)?;
    for family in Family::BOTH {
        let plan = Plan { pause: Duration::from_millis(5), ..Plan::tcp(CONNECTIONS) };
        let flows = run_connections(&topology.client.netns, family.service(), &plan)?;
        let percent = flows.reset() * 100 / flows.len();
        ensure!((30..=70).contains(&percent), "{family:?}: {percent} % were reset");
    }
    topology.hash_vips(RouterHash::FiveTuple)?;
    for family in Family::BOTH {
        let flows = run_connections(&topology.client.netns, family.service(), &Plan::tcp(CONNECTIONS))?;
        ensure!(flows.lived() == CONNECTIONS, "a correct router: {:?}", flows.broken().next());
    }
    Ok(())
}

fn digest(daemon: &Daemon) -> Result<String> {
    let table = daemon.json(&["table", "show", Pool::NAME])?;
    let digest = table["owners_digest"].as_str().context("`table show -o json` has an owners_digest")?;
    ensure!(digest.len() == 16 && digest != "0000000000000000", "no digest: {digest}");
    Ok(digest.to_owned())
}
