//! What the engine tells about itself.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::boundary::{Attachment, MapMemory};
use super::paths::{PathState, Paths};
use crate::model::{AdminState, Model};
use crate::state::KeptOut;

/// The running model and what is known about the way to its backends.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub model: Model,
    pub paths: Paths,
}

/// Every subsystem at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    pub snapshot: Snapshot,
    pub attachments: Vec<Attachment>,
    pub memory: Vec<MapMemory>,
    /// How many run-time changes lie on top of the configuration file.
    pub overlay_changes: usize,
    /// Stored changes that the configuration file does not take any more.
    pub kept_out: Vec<KeptOut>,
    /// What the datapath did not take when it was last told, as text with its causes.
    pub path_error: Option<String>,
    /// Interfaces that the configuration asks for.
    pub interfaces: Vec<String>,
}

impl Status {
    /// What keeps this load balancer from its full service, one sentence each. Empty: healthy.
    pub fn problems(&self) -> Vec<String> {
        let attached: BTreeSet<&str> = self.attachments.iter().map(|one| one.interface.as_str()).collect();
        let detached = self
            .interfaces
            .iter()
            .filter(|name| !attached.contains(name.as_str()))
            .map(|name| format!("interface {name}: the XDP program is not attached"));
        let wayless =
            self.without_way().into_iter().map(|(address, why)| format!("backend {address}: {why}"));
        let unready = self
            .snapshot
            .model
            .pools()
            .values()
            .filter(|pool| !pool.backends.values().any(|backend| backend.admin == AdminState::Ready))
            .map(|pool| format!("pool {}: no backend is ready, new flows are dropped", pool.name));
        let kept_out = self
            .kept_out
            .iter()
            .map(|out| format!("stored change is not in effect ({}): {}", out.change, out.refusal));
        let stale = self.path_error.iter().map(|error| format!("next hops: {error}"));
        detached.chain(wayless).chain(unready).chain(kept_out).chain(stale).collect()
    }

    /// Backends that no packet can be sent to, and why. Those in `maint` get no packets anyway.
    fn without_way(&self) -> Vec<(IpAddr, String)> {
        let mut wanted = BTreeSet::new();
        for backend in self.snapshot.model.pools().values().flat_map(|pool| pool.backends.values()) {
            if backend.admin != AdminState::Maint {
                wanted.insert(backend.address);
            }
        }
        wanted
            .into_iter()
            .filter_map(|address| match self.snapshot.paths.get(&address) {
                Some(PathState::Up(_)) => None,
                Some(PathState::Down { reason }) => Some((address, format!("no next hop: {reason}"))),
                None => Some((address, "no next hop yet".to_owned())),
            })
            .collect()
    }
}
