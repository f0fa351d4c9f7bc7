//! TCP and UDP, both families, through every tunnel: 4 tunnels x 2 inner families x 2 transports.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::capture::{Capture, Ecn, Format};
use lb_tests::forecast::Forecast;
use lb_tests::plan::Family;
use lb_tests::traffic::{Plan, Transport, run_connections};

use crate::counters::Reasons;
use crate::fleet::{Fleet, Mix, Wish};
use crate::wait;

/// Bytes that each way of a bulk connection carries.
const BULK: usize = 3 << 20;

#[test]
fn gue_over_ipv4_carries_tcp_and_udp_of_both_families_to_the_foretold_backends() -> Result<()> {
    connections(Mix::GUE4)
}

#[test]
fn gue_over_ipv6_carries_tcp_and_udp_of_both_families_to_the_foretold_backends() -> Result<()> {
    connections(Mix::GUE6)
}

#[test]
fn ipip_over_ipv4_carries_tcp_and_udp_of_both_families_to_the_foretold_backends() -> Result<()> {
    connections(Mix::IPIP4)
}

#[test]
fn ipip_over_ipv6_carries_tcp_and_udp_of_both_families_to_the_foretold_backends() -> Result<()> {
    connections(Mix::IPIP6)
}

#[test]
fn gue_over_ipv4_carries_megabytes_both_ways_with_ecn() -> Result<()> {
    bulk(Mix::GUE4)
}

#[test]
fn gue_over_ipv6_carries_megabytes_both_ways_with_ecn() -> Result<()> {
    bulk(Mix::GUE6)
}

#[test]
fn ipip_over_ipv4_carries_megabytes_both_ways_with_ecn() -> Result<()> {
    bulk(Mix::IPIP4)
}

#[test]
fn ipip_over_ipv6_carries_megabytes_both_ways_with_ecn() -> Result<()> {
    bulk(Mix::IPIP6)
}

fn connections(mix: Mix) -> Result<()> {
    let fleet = Fleet::start(Wish { mix, ..Wish::default() })?;
    let forecast = Forecast::new(fleet.pool(), &[])?;
    let lb_before = Reasons::of_load_balancer(fleet.lb())?;
    let before = fleet.agents.iter().map(Reasons::of_agent).collect::<Result<Vec<_>>>()?;
    let capture = Capture::start(&fleet.topology.router, &["l1"])?;
    for family in Family::BOTH {
        for transport in Transport::BOTH {
            let plan = Plan { transport, ..Plan::tcp(24) };
            let flows = run_connections(fleet.client(), family.service(), &plan)?;
            fleet.ensure_foretold(&forecast, transport, &flows)?;
            ensure!(flows.by_server().len() == 3, "all three backends serve: {:?}", flows.by_server());
        }
    }
    // The last FINs are still on their way when the clients are done.
    wait::until("the agents accepted what was forwarded", Duration::from_secs(5), || {
        let forwarded = Reasons::of_load_balancer(fleet.lb())?.since(&lb_before).packets("forwarded")?;
        let mut accepted = 0;
        for (agent, before) in fleet.agents.iter().zip(&before) {
            let here = Reasons::of_agent(agent)?.since(before).accepted();
            ensure!(here > 0, "{} accepted nothing", agent.host().name());
            accepted += here;
        }
        Ok(forwarded > 0 && forwarded == accepted)
    })?;
    Reasons::of_load_balancer(fleet.lb())?.since(&lb_before).ensure_nothing_dropped()?;
    for (agent, before) in fleet.agents.iter().zip(&before) {
        Reasons::of_agent(agent)?.since(before).ensure_nothing_dropped()?;
    }
    // What the load balancer sent had the format and the outer family that the pool asks for.
    let wanted = if mix.encapsulation == "gue" { Format::Gue } else { Format::Ipip };
    let packets = capture.stop()?;
    let tunnels: Vec<_> =
        packets.0.iter().filter(|seen| !seen.outgoing).filter_map(|seen| seen.tunnel).collect();
    ensure!(!tunnels.is_empty(), "no tunnel packet on the load balancer's link");
    for tunnel in tunnels {
        let is_v4 = tunnel.dst.is_ipv4();
        ensure!(tunnel.format == wanted && is_v4 == (mix.underlay == Family::V4), "{tunnel}");
    }
    Ok(())
}

fn bulk(mix: Mix) -> Result<()> {
    let fleet = Fleet::start(Wish { mix, ..Wish::default() })?;
    let before = Reasons::of_load_balancer(fleet.lb())?;
    let plan =
        Plan { bytes: BULK, messages: 1, parallel: 2, timeout: Duration::from_secs(20), ..Plan::tcp(2) };
    for family in Family::BOTH {
        let capture = Capture::start(&fleet.topology.router, &["c0"])?;
        let flows = run_connections(fleet.client(), family.service(), &plan)?;
        let packets = capture.stop()?;
        ensure!(flows.lived() == plan.connections, "{:?}", flows.broken().collect::<Vec<_>>());
        // The client's data and the servers' answers, as large as the client's link allows, asked for marks.
        let vip = family.vip();
        for (way, from_vip) in [("to", false), ("from", true)] {
            let marked = packets.0.iter().filter(|seen| {
                let end = if from_vip { seen.src } else { seen.dst };
                end == vip && seen.ecn == Ecn::Ect0 && seen.payload_len > 1300
            });
            ensure!(marked.count() > 100, "no ECT(0) bulk {way} {vip}");
        }
    }
    Reasons::of_load_balancer(fleet.lb())?.since(&before).ensure_nothing_dropped()
}
