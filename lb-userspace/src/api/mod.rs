//! The control interface: HTTP with JSON bodies over a unix socket, paths under `/v1`.
//!
//! Reads are GET; changes never are. `curl --unix-socket /run/bowline/bowline.sock http://localhost/v1/status`
//! works as well as the CLI, which is only a client of this.

mod auth;
pub mod client;
mod error;
pub mod routes;
pub mod server;
#[cfg(test)]
mod tests;
pub mod types;
