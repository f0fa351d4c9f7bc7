//! From a model and its tables to kernel maps.
//!
//! `model, tables -> image (what the maps should hold) -> difference -> maps`. Everything up to the
//! difference is pure; [`kernel`] alone talks to the kernel.

mod image;
pub mod kernel;
pub mod object;
mod registry;
