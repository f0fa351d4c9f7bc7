//! The one place where the running state changes.
//!
//! The engine owns the model, the overlay and the datapath. It runs on its own thread, because publishing a table
//! blocks; everybody else sends it a [`Command`] and awaits the reply.

pub mod boundary;
mod command;
mod log;
pub mod memory;
pub mod paths;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_common::rows::Checkpoint;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout_at;
use tracing::{debug, error, info, warn};

use self::boundary::{Dataplane, DataplaneError, Published};
pub use self::command::{Applied, ApplyError, Command, CommitDue, Reply, StartError, Who};
use self::paths::Paths;
pub use self::view::{OwnerShare, Preparing, Snapshot, Status, TableView};
use crate::epochs::{Epochs, Plan, Step};
use crate::model::{Change, Model};
use crate::state::{HistoryError, HistoryFiles, KeptOut, Overlay, OverlayFile, StoreError};

/// Pause before a commit that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The reconcile loop and what it owns.
pub struct Engine {
    /// The configuration file's model; the overlay is relative to it.
    base: Model,
    model: Model,
    overlay: Overlay,
    overlay_file: OverlayFile,
    epochs: Epochs,
    history_files: HistoryFiles,
    kept_out: Vec<KeptOut>,
    interfaces: Vec<String>,
    dataplane: Box<dyn Dataplane>,
    paths: Paths,
    path_error: Option<String>,
    /// What kept the last commit from being published or stored, as text with its causes.
    commit_error: Option<String>,
    /// When to try a failed commit again.
    retry_at: Option<Instant>,
    /// How long the last publication of each table took.
    publish_times: BTreeMap<String, Duration>,
    addresses: watch::Sender<BTreeSet<IpAddr>>,
}

/// What the engine starts from.
#[derive(Debug)]
pub struct Start {
    pub base: Model,
    pub overlay: Overlay,
    pub overlay_file: OverlayFile,
    /// The stored histories of the pools of `base`.
    pub histories: BTreeMap<String, Checkpoint>,
    pub history_files: HistoryFiles,
    /// From the preparation of a membership change to its commit.
    pub commit_delay: Duration,
    /// Interfaces that ought to be attached, for the status.
    pub interfaces: Vec<String>,
}

impl Engine {
    /// Publishes the configuration with the stored changes. Blocks while tables are built.
    pub fn new(start: Start, dataplane: Box<dyn Dataplane>) -> Result<Self, StartError> {
        let replay = start.overlay.replay(&start.base);
        for out in &replay.kept_out {
            warn!(change = %out.change, reason = %out.refusal, "a stored change no longer applies and is kept out");
        }
        let (addresses, _) = watch::channel(BTreeSet::new());
        let mut engine = Self {
            base: start.base,
            model: replay.model,
            overlay: replay.overlay,
            overlay_file: start.overlay_file,
            epochs: Epochs::default(),
            history_files: start.history_files,
            kept_out: replay.kept_out,
            interfaces: start.interfaces,
            dataplane,
            paths: Paths::new(),
            path_error: None,
            commit_error: None,
            retry_at: None,
            publish_times: BTreeMap::new(),
            addresses,
        };
        let step = Epochs::start(start.commit_delay, start.histories, &engine.model, Instant::now())?;
        let leaving = step.epochs.leaving(&engine.model);
        let published = engine.dataplane.publish(&engine.model, &step.epochs.tables(), &leaving)?;
        engine.save_histories(&step.epochs).map_err(StoreError::from)?;
        engine.take(step, &published);
        Ok(engine)
    }

    /// The backend addresses whose next hops matter, now and after each change.
    pub fn addresses(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.addresses.subscribe()
    }

    /// Runs the loop on a thread until `Shutdown` or until all senders are gone.
    pub fn spawn(mut self, mut commands: mpsc::Receiver<Command>) -> std::io::Result<JoinHandle<()>> {
        // For its timer only: commands are handled outside of it, so they may block.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            loop {
                let received = match self.wake_at() {
                    None => Ok(commands.blocking_recv()),
                    Some(at) => runtime.block_on(async { timeout_at(at.into(), commands.recv()).await }),
                };
                match received {
                    Ok(None | Some(Command::Shutdown)) => break,
                    Ok(Some(command)) => self.handle(command),
                    Err(_elapsed) => self.commit_due(Instant::now()),
                }
            }
        })
    }

    /// When something is to be done without a command.
    fn wake_at(&self) -> Option<Instant> {
        self.retry_at.or_else(|| self.epochs.deadline())
    }

    fn handle(&mut self, command: Command) {
        // Under a load of commands the timer may never fire.
        let now = Instant::now();
        if self.wake_at().is_some_and(|at| at <= now) {
            self.commit_due(now);
        }
        match command {
            Command::Apply { change, who, reply } => answer(reply, self.apply(&change, who)),
            Command::Plan { change, reply } => answer(reply, self.plan(&change)),
            Command::Status(reply) => answer(reply, self.status()),
            Command::Snapshot(reply) => answer(reply, self.snapshot()),
            Command::Stats(reply) => answer(reply, self.dataplane.counters()),
            Command::Table(pool, reply) => answer(reply, self.table(&pool)),
            Command::NextHopsChanged(paths) => self.set_paths(paths),
            // The loop in `spawn` ends on it.
            Command::Shutdown => {}
        }
    }

    /// Commits what is due. A failure is tried again; until then the prepared chains go on, in which nobody is
    /// missing.
    fn commit_due(&mut self, now: Instant) {
        let outcome = self.try_commit(now);
        self.commit_error = outcome.err().map(|failure| chain(&*failure));
        self.retry_at = self.commit_error.as_ref().map(|_| now + RETRY);
        if let Some(error) = &self.commit_error {
            error!(%error, "a change of membership waits: it is tried again");
        }
    }

    fn try_commit(&mut self, now: Instant) -> Result<(), Box<dyn std::error::Error>> {
        let step = self.epochs.advance(&self.model, now)?;
        let leaving = step.epochs.leaving(&self.model);
        let published = self.dataplane.publish(&self.model, &step.epochs.tables(), &leaving)?;
        if let Err(store) = self.save_histories(&step.epochs) {
            self.publish_again()?;
            return Err(store.into());
        }
        self.take(step, &published);
        Ok(())
    }

    fn apply(&mut self, change: &Change, who: Who) -> Result<Applied, ApplyError> {
        let result = self.try_apply(change, Instant::now());
        match &result {
            Ok(done) if done.changed => {
                let old = done.before.as_deref().unwrap_or("-");
                info!(%change, old, cause = "api", %who, "changed");
            }
            Ok(_) => debug!(%change, %who, "is so already"),
            Err(ApplyError::Refused(refusal)) => info!(%change, %who, reason = %refusal, "refused"),
            Err(failure) => error!(%change, %who, error = %chain(failure), "not changed"),
        }
        result
    }

    fn try_apply(&mut self, change: &Change, now: Instant) -> Result<Applied, ApplyError> {
        let next = self.model.apply(change)?;
        let mut applied = Applied {
            change: change.clone(),
            before: change.before(&self.model),
            changed: next != self.model,
            published: Published::default(),
            commit: None,
        };
        if !applied.changed {
            return Ok(applied);
        }
        let step = self.epochs.advance(&next, now).map_err(ApplyError::Rows)?;
        let (tables, leaving) = (step.epochs.tables(), step.epochs.leaving(&next));
        applied.published = self.dataplane.publish(&next, &tables, &leaving).map_err(ApplyError::Publish)?;
        let overlay = self.overlay.with(&self.base, change);
        if let Err(store) = self.store(&overlay, &step.epochs) {
            return Err(match self.publish_again() {
                Ok(_) => ApplyError::Persist(store),
                Err(publish) => ApplyError::Rollback { store: Box::new(store), publish },
            });
        }
        self.model = next;
        self.overlay = overlay;
        self.take(step, &applied.published);
        applied.commit = change.membership_of().and_then(|pool| self.commit_of(pool, now));
        Ok(applied)
    }

    /// All or nothing. The overlay goes first: a history that is behind the changes is followed by an ordinary change
    /// at the next start, and one ahead of them would be a change that nobody confirmed.
    fn store(&self, overlay: &Overlay, epochs: &Epochs) -> Result<(), StoreError> {
        self.overlay_file.save(overlay)?;
        if let Err(failure) = self.save_histories(epochs) {
            self.overlay_file.save(&self.overlay)?;
            return Err(failure.into());
        }
        Ok(())
    }

    /// Takes the datapath back to what runs.
    fn publish_again(&mut self) -> Result<Published, DataplaneError> {
        self.dataplane.publish(&self.model, &self.epochs.tables(), &self.epochs.leaving(&self.model))
    }

    fn save_histories(&self, epochs: &Epochs) -> Result<(), HistoryError> {
        for pool in epochs.changed_since(&self.epochs) {
            if let Some(checkpoint) = epochs.checkpoint(pool) {
                self.history_files.save(pool, &checkpoint)?;
            }
        }
        Ok(())
    }

    /// What was published and stored is what runs.
    fn take(&mut self, step: Step, published: &Published) {
        log::events(&step);
        log::tables(published);
        for table in &published.tables {
            self.publish_times.insert(table.pool.clone(), table.publish);
        }
        self.epochs = step.epochs;
        let mut addresses = self.model.backend_addresses();
        addresses.extend(self.epochs.leaving(&self.model).into_values().flat_map(BTreeMap::into_keys));
        self.addresses.send_if_modified(|watched| {
            let changed = *watched != addresses;
            *watched = addresses;
            changed
        });
    }

    fn commit_of(&self, pool: &str, now: Instant) -> Option<CommitDue> {
        let at = self.epochs.commit_due(pool)?;
        let queued = self.model.pools().get(pool).is_some_and(|pool| self.epochs.is_queued(pool));
        Some(CommitDue { after: at.saturating_duration_since(now), queued })
    }

    /// Refuses what [`Self::apply`] would refuse. A change of no membership moves nothing.
    fn plan(&self, change: &Change) -> Result<Plan, ApplyError> {
        let next = self.model.apply(change)?;
        let pool = change.membership_of().and_then(|pool| next.pools().get(pool));
        let plan = pool.map(|pool| self.epochs.plan(pool)).transpose().map_err(ApplyError::Rows)?;
        Ok(plan.flatten().unwrap_or_default())
    }

    fn set_paths(&mut self, paths: Paths) {
        log::path_changes(&self.paths, &paths);
        self.path_error = self.dataplane.set_paths(&paths).err().map(|failure| chain(&failure));
        if let Some(error) = &self.path_error {
            error!(%error, "the datapath did not take the next hops");
        }
        self.paths = paths;
    }

    fn snapshot(&self) -> Snapshot {
        let leaving = self.epochs.leaving(&self.model);
        Snapshot { model: self.model.clone(), paths: self.paths.clone(), leaving }
    }

    fn table(&self, pool: &str) -> Option<TableView> {
        let pool = self.model.pools().get(pool)?;
        let publish = self.publish_times.get(&pool.name).copied().unwrap_or_default();
        TableView::of(pool, &self.epochs, publish)
    }

    fn status(&self) -> Status {
        Status {
            snapshot: self.snapshot(),
            attachments: self.dataplane.attachments(),
            memory: self.dataplane.memory(),
            overlay_changes: self.overlay.changes().len(),
            kept_out: self.kept_out.clone(),
            path_error: self.path_error.clone(),
            commit_error: self.commit_error.clone(),
            interfaces: self.interfaces.clone(),
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("model", &self.model)
            .field("overlay", &self.overlay)
            .finish_non_exhaustive()
    }
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// Answers a caller, who may have gone away meanwhile: the work is done all the same.
fn answer<T>(reply: Reply<T>, value: T) {
    drop(reply.send(value));
}
