//! Leaves the lab up for a person to play with. Called by `cargo xtask lab`.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lb_tests::interactive;
use lb_tests::report::is_closed_pipe;

/// Client, router, two load balancers and four backends in network namespaces, with Bowline running
#[derive(Parser)]
#[command(name = "cargo xtask lab", disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Remove the lab
    #[arg(long)]
    down: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Clone, Copy, Subcommand)]
enum Verb {
    /// Build the lab and leave it up (the default)
    Up,
    /// Remove the lab
    Down,
    /// Hold the lab, in the background
    #[command(name = interactive::KEEP, hide = true)]
    Keep,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // When standard error is closed nobody is left to be told.
            drop(writeln!(anstream::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let verb = if arguments.down { Verb::Down } else { arguments.verb.unwrap_or(Verb::Up) };
    let text = match verb {
        Verb::Up => interactive::up()?,
        Verb::Down => interactive::down()?,
        Verb::Keep => return interactive::keep(),
    };
    Ok(anstream::stdout().lock().write_all(text.as_bytes())?)
}
