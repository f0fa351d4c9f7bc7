//! What the engine writes to the log when something happened.

use tracing::{info, warn};

use super::boundary::Published;
use super::paths::{PathState, Paths};
use crate::epochs::{Change, Event, Step};

/// What happened to the pools.
pub(super) fn events(step: &Step) {
    for (pool, event) in &step.events {
        match event {
            Event::Begun => info!(pool, "the pool begins: it has no history"),
            Event::Rebuilt => warn!(
                pool,
                "rows, seed or slack are not those of the history, which is forgotten: flows of earlier epochs break"
            ),
            Event::Prepared(change) => change_of(pool, change, "prepared"),
            Event::Committed(change) => change_of(pool, change, "committed"),
        }
    }
}

fn change_of(pool: &str, change: &Change, phase: &str) {
    let Change { epoch, moved_rows, full_rows } = *change;
    if full_rows > 0 {
        warn!(
            pool,
            epoch, moved_rows, full_rows, phase, "change of membership; flows break on rows without room"
        );
    } else {
        info!(pool, epoch, moved_rows, phase, "change of membership");
    }
}

pub(super) fn tables(published: &Published) {
    for table in &published.tables {
        info!(
            pool = table.pool,
            moved_rows = table.moved_rows,
            build_us = table.build.as_micros(),
            publish_us = table.publish.as_micros(),
            "table published"
        );
    }
}

/// Each next hop that came, went or moved, once.
pub(super) fn path_changes(old: &Paths, new: &Paths) {
    for (address, state) in new {
        let before = old.get(address);
        if before == Some(state) {
            continue;
        }
        match state {
            PathState::Up(path) => info!(
                backend = %address,
                interface = path.interface,
                next_hop = %path.next_hop,
                mtu = path.mtu,
                was = before.map_or("unknown", PathState::word),
                "next hop is up"
            ),
            PathState::Down { reason } => {
                warn!(backend = %address, reason, was = before.map_or("unknown", PathState::word), "next hop is down");
            }
        }
    }
}
