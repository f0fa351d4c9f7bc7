//! The loaded programs, run by the kernel on single packets (BPF_PROG_TEST_RUN).
//!
//! Nothing is attached anywhere and no packet reaches an interface. Needs root.

mod agent;
mod craft;
mod differential;
mod loaded;
mod program;
