//! Real traffic through real namespaces: client, router, load balancers, backends.
//!
//! Every test builds a lab of its own, so they run side by side. Needs root, and a built `bowline`
//! (`cargo build -p lb-userspace`).

mod changes;
mod counters;
mod dissector;
mod ecmp;
mod ecn;
mod epochs;
mod faults;
mod fleet;
mod generic;
mod hostile;
mod mixes;
mod neighbour;
mod refusals;
mod second_chance;
mod software;
mod sprayed;
mod status;
mod untouched;
mod wait;
