//! The one place where the running state changes.
//!
//! The engine owns the model, the overlay and the datapath. It runs on its own thread, because publishing a table
//! blocks; everybody else sends it a [`Command`] and awaits the reply.

pub mod boundary;
mod command;
pub mod memory;
pub mod paths;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use self::boundary::{Dataplane, DataplaneError, Published};
pub use self::command::{Applied, ApplyError, Command, Reply, Who};
use self::paths::{PathState, Paths};
pub use self::view::{Snapshot, Status};
use crate::model::{Change, Model};
use crate::state::{KeptOut, Overlay, OverlayFile};

/// The reconcile loop and what it owns.
pub struct Engine {
    /// The configuration file's model; the overlay is relative to it.
    base: Model,
    model: Model,
    overlay: Overlay,
    overlay_file: OverlayFile,
    kept_out: Vec<KeptOut>,
    interfaces: Vec<String>,
    dataplane: Box<dyn Dataplane>,
    paths: Paths,
    path_error: Option<String>,
    addresses: watch::Sender<BTreeSet<IpAddr>>,
}

/// What the engine starts from.
#[derive(Debug)]
pub struct Start {
    pub base: Model,
    pub overlay: Overlay,
    pub overlay_file: OverlayFile,
    /// Interfaces that ought to be attached, for the status.
    pub interfaces: Vec<String>,
}

impl Engine {
    /// Publishes the configuration with the stored changes. Blocks while tables are built.
    pub fn new(start: Start, mut dataplane: Box<dyn Dataplane>) -> Result<Self, DataplaneError> {
        let replay = start.overlay.replay(&start.base);
        for out in &replay.kept_out {
            warn!(change = %out.change, reason = %out.refusal, "a stored change no longer applies and is kept out");
        }
        let published = dataplane.publish(&replay.model)?;
        log_tables(&published);
        let (addresses, _) = watch::channel(replay.model.backend_addresses());
        Ok(Self {
            base: start.base,
            model: replay.model,
            overlay: replay.overlay,
            overlay_file: start.overlay_file,
            kept_out: replay.kept_out,
            interfaces: start.interfaces,
            dataplane,
            paths: Paths::new(),
            path_error: None,
            addresses,
        })
    }

    /// The backend addresses whose next hops matter, now and after each change.
    pub fn addresses(&self) -> watch::Receiver<BTreeSet<IpAddr>> {
        self.addresses.subscribe()
    }

    /// Runs the loop on a thread until `Shutdown` or until all senders are gone.
    pub fn spawn(mut self, mut commands: mpsc::Receiver<Command>) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            while let Some(command) = commands.blocking_recv() {
                if matches!(command, Command::Shutdown) {
                    break;
                }
                self.handle(command);
            }
        })
    }

    fn handle(&mut self, command: Command) {
        match command {
            Command::Apply { change, who, reply } => answer(reply, self.apply(&change, who)),
            Command::Status(reply) => answer(reply, self.status()),
            Command::Snapshot(reply) => answer(reply, self.snapshot()),
            Command::Stats(reply) => answer(reply, self.dataplane.counters()),
            Command::Table(pool, reply) => answer(reply, self.dataplane.table(&pool)),
            Command::NextHopsChanged(paths) => self.set_paths(paths),
            // The loop in `spawn` ends on it.
            Command::Shutdown => {}
        }
    }

    fn apply(&mut self, change: &Change, who: Who) -> Result<Applied, ApplyError> {
        let result = self.try_apply(change);
        match &result {
            Ok(done) if done.changed => {
                let old = done.before.as_deref().unwrap_or("-");
                info!(%change, old, cause = "api", %who, "changed");
                log_tables(&done.published);
            }
            Ok(_) => debug!(%change, %who, "is so already"),
            Err(ApplyError::Refused(refusal)) => info!(%change, %who, reason = %refusal, "refused"),
            Err(failure) => error!(%change, %who, error = %chain(failure), "not changed"),
        }
        result
    }

    fn try_apply(&mut self, change: &Change) -> Result<Applied, ApplyError> {
        let next = self.model.apply(change)?;
        let mut applied = Applied {
            change: change.clone(),
            before: change.before(&self.model),
            changed: next != self.model,
            published: Published::default(),
        };
        if !applied.changed {
            return Ok(applied);
        }
        applied.published = self.dataplane.publish(&next).map_err(ApplyError::Publish)?;
        let overlay = self.overlay.with(&self.base, change);
        if let Err(store) = self.overlay_file.save(&overlay) {
            return Err(match self.dataplane.publish(&self.model) {
                Ok(_) => ApplyError::Persist(store),
                Err(publish) => ApplyError::Rollback { store, publish },
            });
        }
        self.model = next;
        self.overlay = overlay;
        self.addresses.send_replace(self.model.backend_addresses());
        Ok(applied)
    }

    fn set_paths(&mut self, paths: Paths) {
        log_path_changes(&self.paths, &paths);
        self.path_error = self.dataplane.set_paths(&paths).err().map(|failure| chain(&failure));
        if let Some(error) = &self.path_error {
            error!(%error, "the datapath did not take the next hops");
        }
        self.paths = paths;
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot { model: self.model.clone(), paths: self.paths.clone() }
    }

    fn status(&self) -> Status {
        Status {
            snapshot: self.snapshot(),
            attachments: self.dataplane.attachments(),
            memory: self.dataplane.memory(),
            overlay_changes: self.overlay.changes().len(),
            kept_out: self.kept_out.clone(),
            path_error: self.path_error.clone(),
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

fn log_tables(published: &Published) {
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
fn log_path_changes(old: &Paths, new: &Paths) {
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
