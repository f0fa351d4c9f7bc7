//! The lab: namespaces, topology, traffic and capture, shared by the demo, `cargo xtask lab` and the tests
//! that need root. `README.md` has the drawing and the tables.

pub mod bowline;
pub mod capture;
pub mod demo;
pub mod forecast;
pub mod interactive;
pub mod lab;
pub mod netns;
pub mod plan;
pub mod report;
pub mod router;
pub mod topology;
pub mod traffic;
