//! Bowline's verbs for the people who work on it: `cargo xtask <verb>`, one verb per file.
//!
//! `machine` knows what the project needs, `setup` installs what is missing, every other verb calls
//! `setup` first and then runs cargo. Nothing here imports another crate of the workspace.

mod build;
mod cargo;
mod demo;
mod doctor;
mod lab;
mod lint;
mod machine;
mod output;
mod setup;
mod step;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing on this machine
    Setup(setup::Arguments),
    /// Show what this machine has, what it lacks, and the command that fixes it
    Doctor(doctor::Arguments),
    /// Build everything, eBPF programs included
    Build(build::Arguments),
    /// Run the tests: unit, kernel, netns
    Test(test::Arguments),
    /// Show the failure and the cure in network namespaces (about a minute, needs root)
    Demo(demo::Arguments),
    /// Leave the demo's topology up to play with (needs root)
    Lab(lab::Arguments),
    /// Check format, lints, licences and the house rules
    Lint,
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Build(arguments) => build::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Lab(arguments) => lab::run(&arguments),
        Verb::Lint => lint::run(),
    }
}
