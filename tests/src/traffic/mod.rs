//! Traffic of the lab's own making: echo servers and clients, as threads inside namespaces.
//!
//! A client sends a line, the server answers `<its name> <the same line>`. So every answer says which server
//! gave it, and a line of a megabyte is bulk traffic in both directions. To an HTTP GET the server answers its name.

mod client;
mod server;
mod socket;

pub use client::{Break, Broken, Flow, Flows, KeptBusy, Phase, Plan, Transport, run_connections};
pub use server::EchoServer;
