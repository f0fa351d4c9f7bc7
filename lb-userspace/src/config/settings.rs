//! What the configuration says beside pools and VIPs.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

pub const CONFIG_FILE: &str = "/etc/bowline/bowline.toml";
pub const SOCKET: &str = "/run/bowline/bowline.sock";
pub const AGENT_SOCKET: &str = "/run/bowline/agent.sock";
pub const STATE_DIR: &str = "/var/lib/bowline";
pub const COMMIT_DELAY: Duration = Duration::from_secs(30);
/// A change that waits longer than this for its commit was forgotten rather than planned.
pub const COMMIT_DELAY_MAX: Duration = Duration::from_secs(3600);

/// The `[lb]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// XDP is attached to each. Not empty, no name twice.
    pub interfaces: Vec<String>,
    pub xdp_mode: XdpModeWanted,
    /// Prefixes of all load balancers and backends of the fleet: the loop guard. Not empty.
    pub tunnel_sources: Vec<IpNet>,
    /// Outer source address, at most one per family; a family without one uses what the route prefers.
    pub source: Vec<IpAddr>,
    pub socket: PathBuf,
    pub state_dir: PathBuf,
    /// Time from the preparation of a membership change to its commit: within it, the other load balancers must have
    /// heard of the change. Zero for a load balancer that is alone.
    pub commit_delay: Duration,
    /// Whether the datapath tells the log of drops that an operator must do something about. Rare by construction.
    pub log_drops: bool,
}

/// The `[agent]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSettings {
    /// The uplinks on which tunnel packets arrive. Not empty, no name twice.
    pub interfaces: Vec<String>,
    /// Outer sources that are believed. Not empty.
    pub tunnel_sources: Vec<IpNet>,
    /// Addresses that this host serves. Not empty, none twice.
    pub vips: Vec<IpAddr>,
    /// UDP port of GUE packets, host byte order.
    pub gue_port: u16,
    pub socket: PathBuf,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum XdpModeWanted {
    /// Native; generic where the driver has no native XDP.
    #[default]
    Auto,
    Native,
    Generic,
}

impl XdpModeWanted {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Native, Self::Generic];

    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for XdpModeWanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for XdpModeWanted {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|mode| mode.name() == text).ok_or(())
    }
}
