//! Packets that reach a backend which does not know their connection find the one that does.

use anyhow::{Result, ensure};

use crate::fleet::{Fleet, Mix, Wish};
use crate::sprayed::sprayed;

const CONNECTIONS: usize = 60;

#[test]
fn over_ipv4_old_connections_of_a_draining_backend_live_on_and_new_ones_go_elsewhere() -> Result<()> {
    drains_without_a_break(Mix::GUE4)
}

#[test]
fn over_ipv6_old_connections_of_a_draining_backend_live_on_and_new_ones_go_elsewhere() -> Result<()> {
    drains_without_a_break(Mix::GUE6)
}

fn drains_without_a_break(mix: Mix) -> Result<()> {
    let fleet = sprayed(Wish { mix, ..Wish::default() })?;
    let name = fleet.topology.backends[0].name();

    let mut old = fleet.open(CONNECTIONS)?;
    ensure!(old.held_by(name) > 10, "b1 holds some");
    drain(&fleet, "drain")?;
    old.ensure_all_live("drain")?;
    let mut during = fleet.open(CONNECTIONS)?;
    ensure!(during.held_by(name) == 0, "new connections at {name}");
    old.ensure_all_live("draining")?;
    during.ensure_all_live("opened while draining")?;

    // Back again: what opened meanwhile is held by standbys, and b1 is the owner that does not know it.
    drain(&fleet, "ready")?;
    old.ensure_all_live("ready again, old")?;
    during.ensure_all_live("ready again, opened while draining")?;

    ensure!(fleet.second_chances()? > 0, "no packet took a second chance");
    fleet.ensure_nothing_dropped()
}

/// `verb` for b1 on all load balancers.
fn drain(fleet: &Fleet, verb: &str) -> Result<()> {
    fleet.everywhere(&["backend", verb, &fleet.address(0).to_string()])
}
