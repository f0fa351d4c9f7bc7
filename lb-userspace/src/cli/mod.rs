//! The command line's behaviour: parse, do, print, exit status.

mod args;
mod backend;
mod config;
mod output;
mod plan;
mod stats;
mod status;
mod table;
mod vip;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anstream::ColorChoice;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use self::args::{Cli, Command, Global};
use self::output::Output;
use crate::api::client::{Client, ClientError};
use crate::api::types::{ChangeReply, MovedRows};
use crate::config::{LoadError, load};
use crate::engine::boundary::DataplaneError;
use crate::engine::chain;
use crate::{agent, daemon};

/// How a command ended that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    /// Exit status 1: what was asked for is not well.
    Unhealthy,
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error(transparent)]
    Config(#[from] LoadError),
    #[error("there are several pools: {0}; say which with --pool")]
    WhichPool(String),
    #[error("cannot start the async runtime")]
    Runtime(#[source] io::Error),
    #[error("{}", chain(&**.0))]
    Daemon(anyhow::Error),
}

type Outcome = Result<End, Failure>;

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;

/// The whole command. Wrong usage ends inside, with clap's status 2.
pub fn main() -> ExitCode {
    let Cli { global, command } = Cli::parse();
    let output = Output::new(global.format(), global.color(), global.quiet);
    match dispatch(command, &global, output) {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Unhealthy) => ExitCode::from(REFUSED),
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            // Where standard error is closed too, the exit status is all that is left.
            drop(complain(output, &failure));
            ExitCode::from(failure.exit_status())
        }
    }
}

fn dispatch(command: Command, global: &Global, output: Output) -> Outcome {
    match command {
        Command::Run(file) => {
            start_log(global);
            block_on(Runtime::Threads, daemon::run(&file.config))?.map_err(Failure::Daemon)?;
            Ok(End::Done)
        }
        Command::Agent(file) => {
            start_log(global);
            run_agent(&file.config)
        }
        Command::Config { verb: args::ConfigVerb::Check { file } } => config::check(&file, output),
        control => {
            let client = Client::new(&global.socket);
            block_on(Runtime::Single, ask(control, &client, output))?
        }
    }
}

/// The commands that ask the daemon.
async fn ask(command: Command, client: &Client, output: Output) -> Outcome {
    match command {
        Command::Status => status::show(client, output).await,
        Command::Vip { verb } => vip::act(verb, client, output).await,
        Command::Backend { verb } => backend::act(verb, client, output).await,
        Command::Plan { noun: args::PlanNoun::Backend { verb } } => plan::act(verb, client, output).await,
        Command::Stats { reasons } => stats::show(reasons, client, output).await,
        Command::Table { verb } => table::act(verb, client, output).await,
        Command::Config { .. } => config::show(client, output).await,
        // `dispatch` keeps them.
        Command::Run(_) | Command::Agent(_) => Ok(End::Done),
    }
}

fn run_agent(file: &Path) -> Outcome {
    let Some(settings) = load(file)?.agent else {
        return Err(Failure::Daemon(anyhow::anyhow!(
            "{} has no [agent] section; `bowline agent` needs one",
            file.display()
        )));
    };
    block_on(Runtime::Threads, agent::run(&settings))?.map_err(Failure::Daemon)?;
    Ok(End::Done)
}

#[derive(Debug, Clone, Copy)]
enum Runtime {
    /// For a daemon.
    Threads,
    /// For a command that asks a few questions.
    Single,
}

fn block_on<T>(kind: Runtime, work: impl Future<Output = T>) -> Result<T, Failure> {
    let mut builder = match kind {
        Runtime::Threads => tokio::runtime::Builder::new_multi_thread(),
        Runtime::Single => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().map_err(Failure::Runtime)?;
    Ok(runtime.block_on(work))
}

/// The daemons' log, on standard error. `BOWLINE_LOG` overrides `-v` and `-q`.
fn start_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "lb_userspace=debug,info",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("BOWLINE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let ansi = match global.color() {
        ColorChoice::Never => false,
        ColorChoice::Always | ColorChoice::AlwaysAnsi => true,
        ColorChoice::Auto => anstream::AutoStream::choice(&io::stderr()) != ColorChoice::Never,
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(io::stderr).init();
}

fn complain(output: Output, failure: &Failure) -> io::Result<()> {
    match failure.problems() {
        // It names file, line and count itself.
        Some(problems) => output.talk(&problems.to_string()),
        None => output.complain(&failure.text(), failure.hint().as_deref()),
    }
}

impl Failure {
    fn exit_status(&self) -> u8 {
        match self {
            Self::Client(error) if error.is_unreachable() => UNREACHABLE,
            Self::WhichPool(_) => USAGE,
            _ => REFUSED,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Daemon(_) => self.to_string(),
            other => chain(other),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) => error.hint(),
            Self::Daemon(error) => {
                error.downcast_ref::<DataplaneError>().and_then(|error| error.hint.clone())
            }
            _ => None,
        }
    }

    fn problems(&self) -> Option<&crate::config::Problems> {
        let load_error = match self {
            Self::Config(error) => Some(error),
            Self::Daemon(error) => error.downcast_ref::<LoadError>(),
            _ => None,
        };
        match load_error {
            Some(LoadError::Wrong(problems)) => Some(problems),
            _ => None,
        }
    }
}

/// What a change did, in lines: what is so now, what was before, and how many rows moved.
fn change_text(reply: &ChangeReply) -> String {
    if !reply.changed {
        return format!("{} (it was so already)\n", reply.summary);
    }
    let before = reply.before.as_ref().map_or_else(String::new, |before| format!(" (was {before})"));
    let moved = reply.tables.iter().map(|table| {
        let percent = 100.0 * f64::from(table.moved_rows) / f64::from(table.rows.max(1));
        let (verb, when) = match &reply.commit {
            None => ("moved", String::new()),
            Some(commit) => ("move", format!(" in {}", due(commit.in_milliseconds))),
        };
        let MovedRows { pool, moved_rows, rows } = table;
        format!("pool {pool}: {moved_rows} of {rows} rows {verb} ({percent:.1} %){when}\n")
    });
    let queued = reply.commit.filter(|commit| commit.queued).map_or_else(String::new, |commit| {
        let first = due(commit.in_milliseconds);
        format!("it waits for the change before it, which is committed in {first}\n")
    });
    format!("{}{before}\n{}{queued}", reply.summary, moved.collect::<String>())
}

/// A time to come, in whole seconds.
fn due(milliseconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(milliseconds.div_ceil(1000))).to_string()
}
