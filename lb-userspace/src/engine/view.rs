//! What the engine tells about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_common::flow::CONTRACT_VERSION;

use super::boundary::{Attachment, MapMemory};
use super::paths::{PathState, Paths};
use crate::epochs::{Change, Epochs, Leaving, PoolTable};
use crate::model::{AdminState, Model, Pool};
use crate::state::KeptOut;

/// The running model and what is known about the way to its backends.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub model: Model,
    pub paths: Paths,
    pub leaving: Leaving,
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
    /// What keeps a change of membership from being committed, as text with its causes.
    pub commit_error: Option<String>,
    /// Interfaces that the configuration asks for.
    pub interfaces: Vec<String>,
}

/// A published table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableView {
    pub pool: String,
    pub rows: u32,
    /// Counts the pool's memberships; the newest that is committed.
    pub epoch: u64,
    /// The epoch that is prepared; `None`: the phase is stable.
    pub preparing: Option<Preparing>,
    /// Every backend of the pool, also one that owns no row, and those that left and are in chains still.
    pub owners: BTreeMap<IpAddr, OwnerShare>,
    /// Rows with one, two, three and four members in their chain.
    pub chain_lengths: [u32; 4],
    /// Digest of the owners of the newest committed epoch: equal for equal configurations.
    pub owners_digest: u64,
    /// Digest of the published chains: load balancers with equal ones are interchangeable.
    pub chains_digest: u64,
    /// Version of the key layout, the hash and the row function.
    pub contract: u32,
    /// Time to compute it, at its last change.
    pub build: Duration,
    /// Time to bring it into the datapath, at its last change.
    pub publish: Duration,
}

/// A change of membership on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preparing {
    pub change: Change,
    pub commit_at: Instant,
    /// More changes wait for the commit.
    pub queued: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OwnerShare {
    /// 0: it left the pool.
    pub weight: u16,
    /// Rows that this backend owns: where it is first in the chain.
    pub rows: u32,
    /// Rows in which it is the standby.
    pub standby_rows: u32,
    /// Rows that have it in their chain.
    pub chain_rows: u32,
    /// Rows that its weight asks for: `rows * weight / total weight`.
    pub ideal_rows: f64,
    /// No member of the pool any more; in chains for the sake of its flows.
    pub leaving: bool,
}

impl TableView {
    pub(super) fn of(pool: &Pool, epochs: &Epochs, publish: Duration) -> Option<Self> {
        let table = epochs.table(&pool.name)?;
        let preparing = table.prepared.clone().zip(epochs.commit_due(&pool.name));
        Some(Self {
            pool: pool.name.clone(),
            rows: table.row_count(),
            epoch: table.epoch,
            preparing: preparing.map(|(change, commit_at)| Preparing {
                change,
                commit_at,
                queued: epochs.is_queued(pool),
            }),
            owners: owners(pool, table),
            chain_lengths: table.lengths,
            owners_digest: table.owners_digest,
            chains_digest: table.chains_digest,
            contract: CONTRACT_VERSION,
            build: table.build,
            publish,
        })
    }
}

fn owners(pool: &Pool, table: &PoolTable) -> BTreeMap<IpAddr, OwnerShare> {
    let total: f64 = table.members.values().map(|shares| f64::from(shares.weight)).sum();
    let rows = f64::from(table.row_count());
    let members = table.members.iter().map(|(address, shares)| {
        let share = OwnerShare {
            weight: shares.weight,
            rows: shares.rows,
            standby_rows: shares.standby_rows,
            chain_rows: shares.chain_rows,
            ideal_rows: rows * f64::from(shares.weight) / total,
            leaving: !pool.backends.contains_key(address),
        };
        (*address, share)
    });
    members.collect()
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
        let waiting = self.commit_error.iter().map(|error| format!("a change of membership waits: {error}"));
        detached.chain(waiting).chain(wayless).chain(unready).chain(kept_out).chain(stale).collect()
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
