//! The configuration file: text to settings and model, or every error in it at once.
//!
//! [`check`] is pure; [`load`] is the only function here that touches a file.

mod check;
mod load;
mod problem;
mod reader;
mod render;
mod schema;
mod settings;

#[cfg(test)]
mod tests;

pub use check::{Config, check};
pub use load::{LoadError, load};
pub use problem::{Problem, Problems};
pub use render::render;
pub use settings::{
    AGENT_SOCKET, AgentSettings, COMMIT_DELAY, COMMIT_DELAY_MAX, CONFIG_FILE, SOCKET, STATE_DIR, Settings,
    XdpModeWanted,
};
