//! The command line: nouns, verbs and what they take.

use std::net::IpAddr;
use std::path::PathBuf;

use anstream::ColorChoice;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{CONFIG_FILE, SOCKET};
use crate::model::Endpoint;

/// Layer-4 load balancer on XDP: daemon, backend agent and control.
#[derive(Debug, Parser)]
#[command(name = "bowline", version, infer_subcommands = true, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str =
    "Exit status: 0 done, 1 refused or unhealthy, 2 wrong usage, 3 the daemon cannot be reached.";

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// Form of the output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    /// The same as --output json
    #[arg(short, long, global = true, conflicts_with = "output")]
    json: bool,
    /// Socket of the daemon
    #[arg(long, global = true, value_name = "PATH", default_value = SOCKET)]
    #[arg(env = "BOWLINE_SOCKET", hide_env_values = true)]
    pub(super) socket: PathBuf,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: Color,
    /// More log lines; twice for all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Only warnings in the log, no confirmation of changes
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// Aligned columns, all of them
    Wide,
    /// One JSON document
    Json,
    /// One JSON document per line
    Jsonl,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Color {
    #[default]
    Auto,
    Always,
    Never,
}

impl Global {
    pub(super) fn format(&self) -> Format {
        if self.json { Format::Json } else { self.output }
    }

    pub(super) fn color(&self) -> ColorChoice {
        match self.color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the load balancer
    Run(ConfigFile),
    /// Run the agent of a backend: decapsulate, hold the VIPs on `lo`
    Agent(ConfigFile),
    /// One line per subsystem; exit status 1 if something is wrong
    Status,
    /// Services: address, protocol and port
    #[command(infer_subcommands = true)]
    Vip {
        #[command(subcommand)]
        verb: Option<VipVerb>,
    },
    /// Members of the pools
    #[command(infer_subcommands = true)]
    Backend {
        #[command(subcommand)]
        verb: Option<BackendVerb>,
    },
    /// What a change would do to the flows; changes nothing
    #[command(infer_subcommands = true)]
    Plan {
        #[command(subcommand)]
        noun: PlanNoun,
    },
    /// Packets and bytes by reason, VIP and backend
    Stats {
        /// Only the reasons
        #[arg(long)]
        reasons: bool,
    },
    /// Row tables of the pools
    #[command(infer_subcommands = true)]
    Table {
        #[command(subcommand)]
        verb: TableVerb,
    },
    /// The configuration
    #[command(infer_subcommands = true)]
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
}

#[derive(Debug, Args)]
pub(super) struct ConfigFile {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = CONFIG_FILE)]
    pub(super) config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(super) enum VipVerb {
    /// All VIPs (the default)
    List,
    /// One VIP
    Show { name: String },
    /// Add a VIP; it survives a restart
    Add {
        name: String,
        /// 203.0.113.10:80/tcp or [2001:db8::1]:80/udp; port 0 is every port
        #[arg(value_name = "ADDRESS:PORT/PROTOCOL")]
        endpoint: Endpoint,
        /// The pool that serves it; needed where there are several
        #[arg(long)]
        pool: Option<String>,
    },
    /// Remove a VIP; its packets then drop as no_service or pass
    Remove { name: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendVerb {
    /// All backends (the default)
    List {
        /// Only those of this pool
        #[arg(long)]
        pool: Option<String>,
    },
    /// One backend
    Show(Member),
    /// Add a backend; it survives a restart
    Add(NewMember),
    /// Remove a backend; its old flows go on where an agent runs
    Remove(Member),
    /// Change the share of new flows
    Weight(NewWeight),
    /// No new flows; old ones stay
    Drain(Member),
    /// Take new flows
    Ready(Member),
    /// No traffic at all: breaks its flows
    Maint(Member),
}

#[derive(Debug, Subcommand)]
pub(super) enum PlanNoun {
    /// A change of a pool's members
    #[command(infer_subcommands = true)]
    Backend {
        #[command(subcommand)]
        verb: PlanVerb,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum PlanVerb {
    /// If a backend were added
    Add(NewMember),
    /// If a backend were removed
    Remove(Member),
    /// If a backend had this weight
    Weight(NewWeight),
}

#[derive(Debug, Args)]
pub(super) struct NewMember {
    pub(super) address: IpAddr,
    /// Needed where there are several pools
    #[arg(long)]
    pub(super) pool: Option<String>,
    /// Share of new flows, relative to the others
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) weight: u16,
}

#[derive(Debug, Args)]
pub(super) struct NewWeight {
    #[command(flatten)]
    pub(super) member: Member,
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) weight: u16,
}

#[derive(Debug, Args)]
pub(super) struct Member {
    pub(super) address: IpAddr,
    /// Needed where the address is in several pools
    #[arg(long)]
    pub(super) pool: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum TableVerb {
    /// Balance and digest
    Show {
        /// All pools where none is named
        pool: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Report every error of a file; needs neither root nor a daemon
    Check {
        #[arg(default_value = CONFIG_FILE)]
        file: PathBuf,
    },
    /// The running configuration: the file and the changes since
    Show,
}
