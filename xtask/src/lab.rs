//! `cargo xtask lab`

use std::ffi::OsString;

use anyhow::Result;

use crate::demo;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Arguments for the lab itself, for example --down
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pass: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    demo::run_binary("lab", &arguments.pass)
}
