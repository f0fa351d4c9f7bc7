//! From a model to kernel maps.
//!
//! `model -> pool tables (rows) -> image (what the maps should hold) -> difference -> maps`. Everything up to the
//! difference is pure; [`kernel`] alone talks to the kernel.

mod image;
pub mod kernel;
pub mod object;
mod pool_table;
mod registry;
