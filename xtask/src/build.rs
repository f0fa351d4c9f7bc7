//! `cargo xtask build`

use std::ffi::OsString;

use anyhow::Result;

use crate::machine::Need;
use crate::{cargo, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Further arguments for `cargo build`, for example --release
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pass: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Need::Build)?;
    cargo::run(cargo::cargo(["build"]).args(&arguments.pass))
}
