//! What survives a restart.

mod history;
mod lock;
mod overlay;
mod store;

pub use history::{HistoryError, HistoryFiles};
pub use lock::{DirectoryLock, LockError};
pub use overlay::{KeptOut, Overlay, Replay};
pub use store::{OverlayError, OverlayFile};

/// Something could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    #[error(transparent)]
    History(#[from] HistoryError),
}
