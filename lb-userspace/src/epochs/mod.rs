//! When a change of membership takes effect.
//!
//! Per pool a [`History`] and a phase. What the pool should become is the model and nothing else, so a change that
//! comes while another is prepared needs no queue: when that one is committed, the model is compared again, and all
//! that came meanwhile is one epoch.
//!
//! ```text
//!   stable --- the members differ: prepare ---> prepared --- commit_delay later: commit ---> stable
//!      ^------------ commit_delay = 0: commit at once ------------v
//! ```
//!
//! Pure: time is an argument (the clock is read only to say how long a build took). A step gives a new value and
//! leaves the old one, which goes on if the datapath or the disk refuse the new one.

mod plan;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_common::rows::{Checkpoint, Fold, History, Member, PoolSpec, SpecError};
use thiserror::Error;

pub use self::plan::Plan;
pub use self::table::{PoolTable, Shares};
use crate::model::{AdminState, Model, Pool};

/// The histories and phases of all pools.
#[derive(Debug, Clone, Default)]
pub struct Epochs {
    commit_delay: Duration,
    pools: BTreeMap<String, PoolEpochs>,
}

/// What is to be published, by pool.
pub type Tables = BTreeMap<String, Arc<PoolTable>>;

/// Members that left their pool and are in its chains still, by pool, with the state that they are treated as having.
pub type Leaving = BTreeMap<String, BTreeMap<IpAddr, AdminState>>;

/// What a step makes of [`Epochs`].
#[derive(Debug, Clone)]
pub struct Step {
    pub epochs: Epochs,
    /// What happened, by pool and in order.
    pub events: Vec<(String, Event)>,
}

/// Something that an operator finds in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The pool's first table.
    Begun,
    /// Rows, seed or slack differ from those of the history: it is forgotten, and flows of earlier epochs break.
    Rebuilt,
    /// New flows go where they went; what moves can be reached already.
    Prepared(Change),
    /// New flows go to the new owners.
    Committed(Change),
}

/// What an epoch changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The number of the epoch that the change leads to.
    pub epoch: u64,
    /// Rows that change their owner.
    pub moved_rows: u32,
    /// Rows without room in their chain: flows break there.
    pub full_rows: u32,
}

/// A pool whose rows cannot be built. The model's rules allow none.
#[derive(Debug, Error)]
#[error("cannot build the table of pool {pool}")]
pub struct EpochError {
    pub pool: String,
    pub source: SpecError,
}

#[derive(Debug, Clone)]
struct PoolEpochs {
    history: Arc<History>,
    prepared: Option<Prepared>,
    table: Arc<PoolTable>,
    /// The last admin state of everybody in the pool or its chains, as far as this daemon saw it.
    admin: BTreeMap<IpAddr, AdminState>,
}

#[derive(Debug, Clone)]
struct Prepared {
    next: Arc<Fold>,
    since: Instant,
    /// Time that the fold took.
    build: Duration,
}

impl Epochs {
    /// Goes on from stored histories; pools without one begin. What was prepared is prepared again, for the whole
    /// `commit_delay`: how long this load balancer was away is not known, and the others are in one of both phases.
    pub fn start(
        commit_delay: Duration,
        stored: BTreeMap<String, Checkpoint>,
        model: &Model,
        now: Instant,
    ) -> Result<Step, EpochError> {
        let mut epochs = Self { commit_delay, pools: BTreeMap::new() };
        for (pool, Checkpoint { history, prepared }) in stored {
            let resumed = PoolEpochs::resume(history, prepared, now);
            let resumed = resumed.map_err(|source| EpochError { pool: pool.clone(), source })?;
            epochs.pools.insert(pool, resumed);
        }
        epochs.advance(model, now)
    }

    /// Commits what is due and follows `model`: pools that came, went, or have other members.
    pub fn advance(&self, model: &Model, now: Instant) -> Result<Step, EpochError> {
        let mut epochs = Self { commit_delay: self.commit_delay, pools: BTreeMap::new() };
        let mut events = Vec::new();
        for (name, pool) in model.pools() {
            let before = self.pools.get(name);
            let step = self.advance_pool(before, &spec_of(pool), now);
            let (mut after, happened) = step.map_err(|source| EpochError { pool: name.clone(), source })?;
            after.remember_admin(pool);
            epochs.pools.insert(name.clone(), after);
            events.extend(happened.into_iter().map(|event| (name.clone(), event)));
        }
        Ok(Step { epochs, events })
    }

    /// When the next commit is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.pools.values().filter_map(|pool| self.commit_at(pool)).min()
    }

    /// When the prepared change of a pool is committed; `None` where none is prepared.
    pub fn commit_due(&self, pool: &str) -> Option<Instant> {
        self.commit_at(self.pools.get(pool)?)
    }

    /// Whether `pool` has changed again since its prepared change.
    pub fn is_queued(&self, pool: &Pool) -> bool {
        let prepared = self.pools.get(&pool.name).and_then(|epochs| epochs.prepared.as_ref());
        prepared.is_some_and(|prepared| *prepared.next.history.spec() != spec_of(pool))
    }

    /// What is to be published. A pool that did not change keeps its table, and not only an equal one.
    pub fn tables(&self) -> Tables {
        self.pools.iter().map(|(name, pool)| (name.clone(), Arc::clone(&pool.table))).collect()
    }

    pub fn table(&self, pool: &str) -> Option<&PoolTable> {
        self.pools.get(pool).map(|pool| &*pool.table)
    }

    /// What must be stored to go on from here.
    pub fn checkpoint(&self, pool: &str) -> Option<Checkpoint> {
        let pool = self.pools.get(pool)?;
        Some(Checkpoint {
            history: (*pool.history).clone(),
            prepared: pool.prepared.as_ref().map(|one| one.next.history.spec().members().to_vec()),
        })
    }

    /// The pools that are not as they were in `before`.
    pub fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = &'a str> {
        let same = |name: &String, pool: &PoolEpochs| {
            before.pools.get(name).is_some_and(|before| Arc::ptr_eq(&before.table, &pool.table))
        };
        self.pools.iter().filter(move |(name, pool)| !same(name, pool)).map(|(name, _)| name.as_str())
    }

    /// Who left the pools of `model` and is in their chains still. Old flows may be there.
    pub fn leaving(&self, model: &Model) -> Leaving {
        let of_pool = |(name, epochs): (&String, &PoolEpochs)| {
            let backends = model.pools().get(name).map(|pool| &pool.backends);
            let gone =
                epochs.table.addresses().filter(|at| !backends.is_some_and(|one| one.contains_key(at)));
            (name.clone(), gone.map(|address| (address, epochs.state_of_leaving(address))).collect())
        };
        self.pools.iter().map(of_pool).collect()
    }

    fn commit_at(&self, pool: &PoolEpochs) -> Option<Instant> {
        pool.prepared.as_ref().map(|prepared| prepared.since + self.commit_delay)
    }

    fn advance_pool(
        &self,
        before: Option<&PoolEpochs>,
        target: &PoolSpec,
        now: Instant,
    ) -> Result<(PoolEpochs, Vec<Event>), SpecError> {
        let Some(before) = before else {
            return Ok((PoolEpochs::begin(target)?, vec![Event::Begun]));
        };
        if !before.history.spec().continues(target) {
            return Ok((PoolEpochs::begin(target)?, vec![Event::Rebuilt]));
        }
        let (mut pool, mut events) = (before.clone(), Vec::new());
        if self.commit_at(&pool).is_some_and(|at| at <= now) {
            events.extend(pool.commit());
        }
        if pool.prepared.is_none() && pool.history.spec() != target {
            let prepared = pool.prepare(target.members().to_vec(), now)?;
            if self.commit_delay.is_zero() {
                events.extend(pool.commit());
            } else {
                events.push(prepared);
            }
        }
        Ok((pool, events))
    }
}

impl PoolEpochs {
    fn begin(spec: &PoolSpec) -> Result<Self, SpecError> {
        let started = Instant::now();
        let history = Arc::new(History::begin(spec.clone())?);
        let table = Arc::new(PoolTable::first(&history, started.elapsed()));
        Ok(Self { history, prepared: None, table, admin: BTreeMap::new() })
    }

    /// From a checkpoint.
    fn resume(history: History, prepared: Option<Vec<Member>>, now: Instant) -> Result<Self, SpecError> {
        let table = Arc::new(PoolTable::first(&history, Duration::ZERO));
        let history = Arc::new(history);
        let mut pool = Self { history, prepared: None, table, admin: BTreeMap::new() };
        if let Some(members) = prepared {
            pool.prepare(members, now)?;
        }
        Ok(pool)
    }

    fn prepare(&mut self, members: Vec<Member>, now: Instant) -> Result<Event, SpecError> {
        let started = Instant::now();
        let next = Arc::new(self.history.then(members)?);
        let build = started.elapsed();
        self.table = Arc::new(PoolTable::preparing(&self.history, &next, build));
        let event = Event::Prepared(Change::of(&next));
        self.prepared = Some(Prepared { next, since: now, build });
        Ok(event)
    }

    fn remember_admin(&mut self, pool: &Pool) {
        let table = &self.table;
        self.admin.retain(|address, _| table.members.contains_key(address));
        self.admin.extend(pool.backends.values().map(|backend| (backend.address, backend.admin)));
    }

    /// Until its removal is committed, a member is treated as before: other load balancers may not have heard of it.
    /// Then it takes no new flows, and none at all if it was in `maint` when it went.
    fn state_of_leaving(&self, address: IpAddr) -> AdminState {
        let prepared = self.prepared.as_ref().map(|prepared| &prepared.next.history);
        let in_force =
            prepared.into_iter().chain([&*self.history]).any(|history| history.spec().has(address.into()));
        match self.admin.get(&address) {
            Some(AdminState::Ready) if in_force => AdminState::Ready,
            Some(AdminState::Maint) => AdminState::Maint,
            _ => AdminState::Drain,
        }
    }

    /// Makes the prepared epoch the newest one, if there is one.
    fn commit(&mut self) -> Option<Event> {
        let Prepared { next, build, .. } = self.prepared.take()?;
        self.history = Arc::new(next.history.clone());
        self.table = Arc::new(PoolTable::committed(&next, build));
        Some(Event::Committed(Change::of(&next)))
    }
}

impl Change {
    fn of(fold: &Fold) -> Self {
        Self { epoch: fold.history.epoch(), moved_rows: fold.moved_rows, full_rows: fold.full_rows }
    }
}

/// The membership of a pool. Admin state is no part of it.
fn spec_of(pool: &Pool) -> PoolSpec {
    let member =
        |backend: &crate::model::Backend| Member { address: backend.address.into(), weight: backend.weight };
    let members = pool.backends.values().map(member).collect();
    PoolSpec::new(pool.seed, pool.rows_log2, pool.slack_permille, members)
}
