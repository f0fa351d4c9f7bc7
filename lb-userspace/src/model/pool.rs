//! Pools and their backends.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use lb_common::rows::ROWS_LOG2;
use lb_common::wire::gue;
use serde::{Deserialize, Serialize};

use super::Refusal;

/// The smallest table: 2^12 rows.
pub const ROWS_LOG2_MIN: u8 = *ROWS_LOG2.start();
/// The largest table: 2^20 rows.
pub const ROWS_LOG2_MAX: u8 = *ROWS_LOG2.end();
pub const ROWS_LOG2_DEFAULT: u8 = 16;
/// Slack in per mille: how far above its ideal share a backend may own rows.
pub const SLACK_PERMILLE_MAX: u16 = 500;
pub const SLACK_PERMILLE_DEFAULT: u16 = 20;
/// The UDP port that IANA assigned to GUE.
pub const GUE_PORT_DEFAULT: u16 = gue::DEFAULT_PORT;

/// The named set of backends that one or more VIPs share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub name: String,
    /// Seed of the row hash and of the ranks: a fleet secret, the same on every load balancer.
    #[serde(with = "seed_text")]
    pub seed: u64,
    /// The table has `1 << rows_log2` rows.
    pub rows_log2: u8,
    /// How far above its ideal share a backend may own rows, in per mille.
    pub slack_permille: u16,
    pub encapsulation: Encapsulation,
    /// UDP destination port of GUE packets, host byte order.
    pub gue_port: u16,
    /// Whether the backends run `bowline agent`, which gives packets a second chance.
    pub agent: bool,
    /// Keyed by the backend's own address. All addresses are of one family.
    #[serde(with = "backend_list")]
    pub backends: BTreeMap<IpAddr, Backend>,
}

/// A member of a pool, identified by its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub address: IpAddr,
    pub weight: u16,
    #[serde(rename = "state")]
    pub admin: AdminState,
}

/// What the operator wants of a backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminState {
    /// Takes new flows.
    #[default]
    Ready,
    /// No new flows; keeps its old ones.
    Drain,
    /// No traffic at all.
    Maint,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    #[default]
    Gue,
    Ipip,
}

impl Pool {
    /// A pool with the default settings and no backends yet.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            seed: 0,
            rows_log2: ROWS_LOG2_DEFAULT,
            slack_permille: SLACK_PERMILLE_DEFAULT,
            encapsulation: Encapsulation::Gue,
            gue_port: GUE_PORT_DEFAULT,
            agent: false,
            backends: BTreeMap::new(),
        }
    }

    pub fn rows(&self) -> u32 {
        1 << self.rows_log2
    }

    pub fn total_weight(&self) -> u64 {
        self.backends.values().map(|backend| u64::from(backend.weight)).sum()
    }

    /// Adds a backend, if it obeys the rules that need nothing but this pool.
    pub fn insert(&mut self, backend: Backend) -> Result<(), Refusal> {
        let pool = || self.name.clone();
        let address = backend.address;
        if backend.weight == 0 {
            return Err(Refusal::ZeroWeight { address });
        }
        if let Some(why) = super::unusable(address) {
            return Err(Refusal::UnusableAddress { what: "backend", address, why });
        }
        if self.backends.contains_key(&address) {
            return Err(Refusal::BackendExists { pool: pool(), address });
        }
        if let Some(other) = self.backends.keys().find(|other| other.is_ipv4() != address.is_ipv4()) {
            return Err(Refusal::MixedFamilies { pool: pool(), address, other: *other });
        }
        self.backends.insert(address, backend);
        Ok(())
    }
}

impl Backend {
    pub fn new(address: IpAddr, weight: u16) -> Self {
        Self { address, weight, admin: AdminState::Ready }
    }
}

impl AdminState {
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maint];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

impl Encapsulation {
    pub const ALL: [Self; 2] = [Self::Gue, Self::Ipip];

    pub fn name(self) -> &'static str {
        match self {
            Self::Gue => "gue",
            Self::Ipip => "ipip",
        }
    }
}

impl fmt::Display for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for AdminState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or(())
    }
}

impl FromStr for Encapsulation {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|encapsulation| encapsulation.name() == text).ok_or(())
    }
}

/// The seed as 16 hex digits: the form of the configuration file.
mod seed_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(seed: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{seed:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// Backends as a list: each one carries its own address.
mod backend_list {
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Backend;

    pub(super) fn serialize<S: Serializer>(
        backends: &BTreeMap<IpAddr, Backend>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(backends.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<IpAddr, Backend>, D::Error> {
        let list = Vec::<Backend>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|backend| (backend.address, backend)).collect())
    }
}
