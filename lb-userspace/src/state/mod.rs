//! What survives a restart.

mod overlay;
mod store;

pub use overlay::{KeptOut, Overlay, Replay};
pub use store::{OverlayError, OverlayFile};
