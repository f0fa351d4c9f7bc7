//! Packets that reach a backend which does not know their connection find the one that does.

use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::plan::Family;
use lb_tests::router::RouterHash;
use lb_tests::traffic::{Flows, Plan};

use crate::counters::Reasons;
use crate::fleet::{Fleet, Mix, Wish};

const CONNECTIONS: usize = 60;
const BULK: usize = 200_000;

#[test]
fn over_ipv4_old_connections_of_a_draining_backend_live_on_and_new_ones_go_elsewhere() -> Result<()> {
    drains_without_a_break(Mix::GUE4)
}

#[test]
fn over_ipv6_old_connections_of_a_draining_backend_live_on_and_new_ones_go_elsewhere() -> Result<()> {
    drains_without_a_break(Mix::GUE6)
}

/// Through two load balancers that get alternate packets of every flow.
fn drains_without_a_break(mix: Mix) -> Result<()> {
    let fleet = Fleet::start(Wish { mix, load_balancers: 2, ..Wish::default() })?;
    let [lb1, lb2] = &fleet.topology.load_balancers[..] else { unreachable!("two were asked for") };
    fleet.topology.route_vips(RouterHash::PerPacket, lb1, lb2)?;
    let (b1, name) = (fleet.address(0), fleet.topology.backends[0].name());

    let mut old = open(&fleet)?;
    ensure!(
        old.iter().all(|flows| flows.by_server().get(name).is_some_and(|&held| held > 5)),
        "b1 holds some"
    );
    everywhere(&fleet, "drain", b1)?;
    ensure_all_live("drain", &mut old)?;
    let mut during = open(&fleet)?;
    ensure!(during.iter().all(|flows| !flows.by_server().contains_key(name)), "new connections at {name}");
    ensure_all_live("draining", &mut old)?;
    ensure_all_live("opened while draining", &mut during)?;

    // Back again: what opened meanwhile is held by standbys, and b1 is the owner that does not know it.
    everywhere(&fleet, "ready", b1)?;
    ensure_all_live("ready again, old", &mut old)?;
    ensure_all_live("ready again, opened while draining", &mut during)?;

    let chances =
        fleet.agents.iter().map(|agent| Reasons::of_agent(agent)?.packets("second_chance_no_socket"));
    let chances = chances.collect::<Result<Vec<_>>>()?;
    ensure!(chances.iter().sum::<u64>() > 0, "no packet took a second chance: {chances:?}");
    for agent in &fleet.agents {
        Reasons::of_agent(agent)?.ensure_nothing_dropped()?;
    }
    Ok(())
}

fn open(fleet: &Fleet) -> Result<Vec<Flows>> {
    let plan = Plan { timeout: Duration::from_secs(5), ..Plan::tcp(CONNECTIONS) };
    Family::BOTH.iter().map(|family| Flows::open(fleet.client(), family.service(), &plan)).collect()
}

fn everywhere(fleet: &Fleet, verb: &str, backend: std::net::IpAddr) -> Result<()> {
    for daemon in &fleet.load_balancers {
        daemon.ask(&["backend", verb, &backend.to_string()])?;
    }
    Ok(())
}

/// A small message and one of many segments on every connection.
fn ensure_all_live(when: &str, sets: &mut [Flows]) -> Result<()> {
    for flows in sets {
        let broke = flows.exchange(32) + flows.exchange(BULK);
        ensure!(broke == 0, "{when}: {broke} of {} broke: {:?}", flows.len(), flows.broken().next());
    }
    Ok(())
}
