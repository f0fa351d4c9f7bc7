//! What the engine can be asked.

use std::fmt;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use super::boundary::{Counters, DataplaneError, Published};
use super::paths::Paths;
use super::view::{Snapshot, Status, TableView};
use crate::epochs::{EpochError, Plan};
use crate::model::{Change, Refusal};
use crate::state::StoreError;

pub type Reply<T> = oneshot::Sender<T>;

/// A message to the engine's thread. A dropped reply receiver is fine: the work is done all the same.
#[derive(Debug)]
pub enum Command {
    /// Change the model, the datapath and the stored overlay, in this order, or none of them.
    Apply {
        change: Change,
        who: Who,
        reply: Reply<Result<Applied, ApplyError>>,
    },
    /// What a change would do to the flows, without doing it.
    Plan {
        change: Change,
        reply: Reply<Result<Plan, ApplyError>>,
    },
    /// Health of every subsystem.
    Status(Reply<Status>),
    /// The running model.
    Snapshot(Reply<Snapshot>),
    Stats(Reply<Result<Counters, DataplaneError>>),
    /// The table of the pool with this name; `None` where there is none.
    Table(String, Reply<Option<TableView>>),
    /// Netlink learned something: the complete map.
    NextHopsChanged(Paths),
    /// Finish: the loop ends and drops the dataplane.
    Shutdown,
}

/// Who asked for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    pub uid: u32,
    /// Process id of the client, where the kernel tells it.
    pub pid: Option<i32>,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub change: Change,
    /// The old value in words, where there was one.
    pub before: Option<String>,
    /// False where the model already said so: nothing was published or stored.
    pub changed: bool,
    pub published: Published,
    /// For a change of membership that is not in force yet: the time until the next commit, and whether it has to
    /// wait for that commit before it is prepared itself.
    pub commit: Option<CommitDue>,
}

/// When a change of membership takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitDue {
    pub after: Duration,
    /// Another change is prepared; this one follows it.
    pub queued: bool,
}

/// Why a change was not made. The running state is the one before the change.
#[derive(Debug, Error)]
pub enum ApplyError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the change was not made")]
    Rows(#[source] EpochError),
    #[error("the datapath did not take the change; the old state still runs")]
    Publish(#[source] DataplaneError),
    #[error("the change could not be stored; the old state runs again")]
    Persist(#[source] StoreError),
    #[error(
        "the change could not be stored, and the datapath did not take the old state back: it runs until the next \
         change or restart"
    )]
    Rollback {
        store: Box<StoreError>,
        #[source]
        publish: DataplaneError,
    },
}

/// Why the engine did not start.
#[derive(Debug, Error)]
pub enum StartError {
    #[error(transparent)]
    Rows(#[from] EpochError),
    #[error(transparent)]
    Publish(#[from] DataplaneError),
    #[error("the histories of the pools cannot be stored")]
    Store(#[from] StoreError),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "uid {} (pid {pid})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}
