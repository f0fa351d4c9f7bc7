//! Malformed packets on the real wire: each is counted under its own name, none is forwarded, and traffic goes on.

mod craft;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::forecast::Forecast;
use lb_tests::plan::Family;
use lb_tests::traffic::{Plan, Transport, run_connections};

use self::craft::{Frame, frames};
use self::wire::Wire;
use crate::counters::Reasons;
use crate::fleet::{Fleet, Wish};
use crate::wait;

/// How often the whole set is sent.
const ROUNDS: u64 = 10;

/// What else is on the link: ARP, neighbour discovery, multicast reports.
const BACKGROUND: [&str; 2] = ["not_ip", "not_vip"];

#[test]
fn every_malformed_packet_is_counted_under_its_reason_and_none_is_lost_or_forwarded() -> Result<()> {
    malformed("auto")
}

/// In this mode the kernel hands the program packets that it made itself, some not in one piece.
#[test]
fn in_generic_mode_malformed_packets_are_counted_alike() -> Result<()> {
    malformed("generic")
}

fn malformed(xdp_mode: &'static str) -> Result<()> {
    let fleet = Fleet::start(Wish { xdp_mode, ..Wish::default() })?;
    // Answers to senders that do not exist end here, and cause no ICMP errors towards the VIP.
    fleet.topology.router.ip(&[
        format!("route add blackhole {}", craft::NOWHERE4),
        format!("route add blackhole {}", craft::NOWHERE6),
    ])?;
    let wire = Wire::open(&fleet.topology.router, "l1", &fleet.lb().host().netns)?;
    let frames = frames(wire.addresses());
    let expected = expected(&frames);
    ensure!(expected.len() > 12, "the set has {} reasons only", expected.len());
    let sent: u64 = expected.values().sum();
    ensure!((2000..20_000).contains(&sent), "{sent} packets");

    let before = Reasons::of_load_balancer(fleet.lb())?;
    let agents = fleet.agents.iter().map(Reasons::of_agent).collect::<Result<Vec<_>>>()?;
    for _ in 0..ROUNDS {
        frames.iter().try_for_each(|frame| wire.send(&frame.bytes))?;
    }
    let counted = || Ok::<_, anyhow::Error>(Reasons::of_load_balancer(fleet.lb())?.since(&before));
    let looked = wait::until("all packets are counted under their reasons", Duration::from_secs(5), || {
        let counted = counted()?;
        let mut counts = expected.keys().map(|reason| counted.packets(reason));
        counts.try_fold(0, |sum, count| Ok::<_, anyhow::Error>(sum + count?)).map(|sum| sum >= sent)
    });
    let counted = counted()?;
    for (reason, expected) in &expected {
        let seen = counted.packets(reason)?;
        ensure!(seen == *expected, "{reason}: {seen} counted, {expected} sent; all: {counted:?}");
    }
    looked?;
    for (reason, packets) in
        ["pass", "forward", "drop"].iter().flat_map(|verdict| counted.with_verdict(verdict))
    {
        let known = expected.contains_key(reason) || BACKGROUND.contains(&reason);
        ensure!(known, "{packets} packets under {reason}, which nobody sent");
    }
    // What was forwarded was sound: the agents took all of it.
    let mut accepted = 0;
    for (agent, before) in fleet.agents.iter().zip(&agents) {
        let counted = Reasons::of_agent(agent)?.since(before);
        counted.ensure_nothing_dropped()?;
        accepted += counted.accepted();
    }
    ensure!(accepted == counted.packets("forwarded")?, "{accepted} accepted of {counted:?}");

    for family in Family::BOTH {
        let flows = run_connections(fleet.client(), family.service(), &Plan::tcp(20))?;
        fleet.ensure_foretold(&Forecast::new(fleet.pool(), &[])?, Transport::Tcp, &flows)?;
    }
    Ok(())
}

/// Packets that each reason must count.
fn expected(frames: &[Frame]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for frame in frames {
        *counts.entry(frame.reason.name()).or_default() += ROUNDS;
    }
    counts
}
