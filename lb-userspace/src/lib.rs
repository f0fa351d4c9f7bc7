//! The bowline command: load balancer daemon, backend agent and control CLI.
//!
//! `config file / CLI -> model -> engine (epochs) -> dataplane`, and back: `counters -> engine -> api -> cli`.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod engine;
pub mod epochs;
pub mod model;
pub mod netlink;
pub mod state;
