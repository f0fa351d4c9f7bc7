//! `cargo xtask demo`

use std::ffi::OsString;

use anyhow::Result;

use crate::machine::{self, Need};
use crate::{cargo, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Arguments for the demo itself
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pass: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    run_binary("demo", &arguments.pass)
}

/// Sets up, builds the daemon beside the lab's programs (they start it from there) and runs one of them.
pub(crate) fn run_binary(name: &str, pass: &[OsString]) -> Result<()> {
    machine::require_root(&format!("cargo xtask {name}"))?;
    setup::ensure(Need::Demo)?;
    cargo::run(&mut cargo::cargo(["build", "-p", "lb-userspace", "-p", "lb-tests", "--bins"]))?;
    cargo::run(cargo::cargo(["run", "--quiet", "-p", "lb-tests", "--bin", name, "--"]).args(pass))
}
