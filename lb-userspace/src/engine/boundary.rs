//! The engine's door to the datapath: what it asks of it and what comes back.
//!
//! Two implementations: the kernel (`dataplane::kernel`) and `engine::memory`, which keeps everything in memory
//! and answers the same questions without root.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;

use super::paths::Paths;
use crate::epochs::{Leaving, Tables};
use crate::model::Model;

/// A datapath that can be made to agree with a model.
pub trait Dataplane: Send {
    /// Makes the datapath agree with `model`, the `tables` of its pools and the members of chains that are `leaving`.
    /// A table that is the same one as before is not written again. On error the previously published state still
    /// forwards.
    fn publish(
        &mut self,
        model: &Model,
        tables: &Tables,
        leaving: &Leaving,
    ) -> Result<Published, DataplaneError>;

    /// Takes what netlink learned about the way to each backend address. `paths` is complete: an address that
    /// it lacks has no known way.
    fn set_paths(&mut self, paths: &Paths) -> Result<(), DataplaneError>;

    /// Reads all counters. Reading changes nothing.
    fn counters(&self) -> Result<Counters, DataplaneError>;

    /// Where the datapath runs. Empty for a datapath that is attached nowhere.
    fn attachments(&self) -> Vec<Attachment>;

    /// The memory of each map.
    fn memory(&self) -> Vec<MapMemory>;
}

/// What a publication did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// One entry for each pool whose table changed, none for the others.
    pub tables: Vec<TablePublished>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablePublished {
    pub pool: String,
    /// Time to compute the table.
    pub build: Duration,
    /// Time to bring it into the datapath.
    pub publish: Duration,
    /// Rows whose owner changes with the epoch that is prepared or committed; all rows for a new pool.
    pub moved_rows: u32,
}

/// A datapath operation that failed. The message names operation and object; the cause is the source.
#[derive(Debug, Error)]
#[error("cannot {operation} {object}")]
pub struct DataplaneError {
    /// A verb phrase: "attach the XDP program to".
    pub operation: &'static str,
    pub object: String,
    /// What a person can do about it, if it is known.
    pub hint: Option<String>,
    pub source: Box<dyn StdError + Send + Sync>,
}

impl DataplaneError {
    pub fn new(
        operation: &'static str,
        object: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { operation, object: object.into(), hint: None, source: source.into() }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Totals since the datapath was loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Every reason there is, in the datapath's own order, also those that never happened.
    pub reasons: Vec<ReasonCount>,
    /// By VIP name.
    pub vips: BTreeMap<String, Count>,
    /// By pool name and backend address.
    pub backends: BTreeMap<(String, IpAddr), Count>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonCount {
    /// The word that the manual, the metrics and the CLI share.
    pub reason: String,
    pub verdict: Verdict,
    pub count: Count,
}

/// What happened to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Left to the kernel untouched.
    Pass,
    /// Encapsulated and sent to a backend.
    Forward,
    Drop,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

/// The XDP program on one interface.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attachment {
    pub interface: String,
    pub ifindex: u32,
    pub mode: XdpMode,
    /// Why the mode is not the native one, when `auto` fell back.
    pub fallback: Option<String>,
    pub program_id: u32,
    /// The kernel's tag of the program, as bpftool prints it.
    pub program_tag: String,
    /// Instructions that the verifier walked; 0 where the kernel does not say.
    pub verified_instructions: u32,
    pub jited_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    Native,
    Generic,
}

/// The memory of one map.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MapMemory {
    pub name: String,
    /// How the sum comes about: "4096 entries x 24 bytes x 2 CPUs".
    pub formula: String,
    pub bytes: u64,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Forward => "forward",
            Self::Drop => "drop",
        }
    }
}

impl XdpMode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::fmt::Display for XdpMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
