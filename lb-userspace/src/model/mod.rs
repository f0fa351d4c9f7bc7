//! The desired state: pools, backends and VIPs as values that cannot be wrong.
//!
//! Every way to change a [`Model`] goes through its rules, so the configuration check, the API and the replay of
//! stored changes refuse the same things with the same words. Pure: no I/O, no clock.

mod change;
mod pool;
mod refusal;
mod vip;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

pub use change::Change;
pub use pool::{
    AdminState, Backend, Encapsulation, GUE_PORT_DEFAULT, Pool, ROWS_LOG2_DEFAULT, ROWS_LOG2_MAX,
    ROWS_LOG2_MIN, SLACK_PERMILLE_DEFAULT, SLACK_PERMILLE_MAX,
};
pub use refusal::Refusal;
pub use vip::{Endpoint, EndpointError, Protocol, Vip};

/// All pools and VIPs of a load balancer.
///
/// Holds always: a VIP's pool exists, no two VIPs share an [`Endpoint`], the backends of a pool are of one
/// address family and inside the fleet's prefixes, second chance needs GUE, and no VIP address is a backend or
/// an address of the load balancer itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    pools: BTreeMap<String, Pool>,
    vips: BTreeMap<String, Vip>,
    fleet: Fleet,
}

/// The addresses of the fleet that pools and VIPs must agree with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// Prefixes of all load balancers and backends. Empty: not checked.
    pub tunnel_sources: Vec<IpNet>,
    /// Outer source addresses of this load balancer.
    pub source: Vec<IpAddr>,
}

impl Model {
    pub fn new(fleet: Fleet) -> Self {
        Self { pools: BTreeMap::new(), vips: BTreeMap::new(), fleet }
    }

    /// By name.
    pub fn pools(&self) -> &BTreeMap<String, Pool> {
        &self.pools
    }

    /// By name.
    pub fn vips(&self) -> &BTreeMap<String, Vip> {
        &self.vips
    }

    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Every backend address, once.
    pub fn backend_addresses(&self) -> BTreeSet<IpAddr> {
        self.pools.values().flat_map(|pool| pool.backends.keys().copied()).collect()
    }

    pub fn pool(&self, name: &str) -> Result<&Pool, Refusal> {
        self.pools.get(name).ok_or_else(|| Refusal::UnknownPool {
            pool: name.to_owned(),
            close: close_names(name, self.pools.keys()),
        })
    }

    pub fn vip(&self, name: &str) -> Result<&Vip, Refusal> {
        self.vips.get(name).ok_or_else(|| Refusal::UnknownVip {
            name: name.to_owned(),
            close: close_names(name, self.vips.keys()),
        })
    }

    /// The backend with this address, in `pool` or, where none is named, in the only pool that has it.
    pub fn backend(&self, address: IpAddr, pool: Option<&str>) -> Result<(&Pool, &Backend), Refusal> {
        let pools: Vec<&Pool> = match pool {
            Some(name) => vec![self.pool(name)?],
            None => self.pools.values().collect(),
        };
        let found: Vec<_> =
            pools.iter().filter_map(|pool| Some((*pool, pool.backends.get(&address)?))).collect();
        match found.as_slice() {
            [one] => Ok(*one),
            [] => Err(Refusal::UnknownBackend {
                address,
                pool: pool.map(str::to_owned),
                close: close_addresses(address, pools.iter().flat_map(|pool| pool.backends.keys())),
            }),
            several => Err(Refusal::AmbiguousBackend {
                address,
                pools: several.iter().map(|(pool, _)| pool.name.clone()).collect(),
            }),
        }
    }

    /// Adds a pool with its backends.
    pub fn insert_pool(&mut self, pool: Pool) -> Result<(), Refusal> {
        check_name("pool", &pool.name)?;
        if self.pools.contains_key(&pool.name) {
            return Err(Refusal::PoolExists { pool: pool.name });
        }
        if pool.agent && pool.encapsulation != Encapsulation::Gue {
            return Err(Refusal::AgentNeedsGue { pool: pool.name });
        }
        if pool.backends.is_empty() {
            return Err(Refusal::EmptyPool { pool: pool.name });
        }
        for address in pool.backends.keys() {
            self.check_backend_address(*address, &pool.name)?;
        }
        self.pools.insert(pool.name.clone(), pool);
        Ok(())
    }

    /// Adds a VIP whose pool is there already.
    pub fn insert_vip(&mut self, vip: Vip) -> Result<(), Refusal> {
        check_name("VIP", &vip.name)?;
        if let Some(why) = unusable(vip.address) {
            return Err(Refusal::UnusableAddress { what: "VIP", address: vip.address, why });
        }
        if let Some(other) = self.vips.get(&vip.name) {
            return Err(Refusal::VipExists { name: vip.name, endpoint: other.endpoint() });
        }
        if let Some(other) = self.vips.values().find(|other| other.endpoint() == vip.endpoint()) {
            return Err(Refusal::EndpointTaken { endpoint: vip.endpoint(), by: other.name.clone() });
        }
        if self.fleet.source.contains(&vip.address) {
            return Err(Refusal::VipIsSource { vip: vip.name, address: vip.address });
        }
        if let Some(pool) = self.pools.values().find(|pool| pool.backends.contains_key(&vip.address)) {
            return Err(Refusal::VipIsBackend {
                vip: vip.name,
                address: vip.address,
                pool: pool.name.clone(),
            });
        }
        self.pool(&vip.pool)?;
        self.vips.insert(vip.name.clone(), vip);
        Ok(())
    }

    /// The rules for a backend that need more than its pool.
    pub fn check_backend_address(&self, address: IpAddr, pool: &str) -> Result<(), Refusal> {
        let sources = &self.fleet.tunnel_sources;
        if !sources.is_empty() && !sources.iter().any(|prefix| prefix.contains(&address)) {
            return Err(Refusal::OutsideTunnelSources { address });
        }
        if self.fleet.source.contains(&address) {
            return Err(Refusal::BackendIsSource { address });
        }
        match self.vips.values().find(|vip| vip.address == address) {
            Some(vip) => Err(Refusal::VipIsBackend { vip: vip.name.clone(), address, pool: pool.to_owned() }),
            None => Ok(()),
        }
    }
}

/// Names are words of commands and parts of API paths.
fn check_name(what: &'static str, name: &str) -> Result<(), Refusal> {
    let fine = (1..=63).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if fine { Ok(()) } else { Err(Refusal::BadName { what, name: name.to_owned() }) }
}

/// Why no packet can be sent to such an address; `None` for an ordinary one.
pub(crate) fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("is the unspecified address"),
        _ if address.is_loopback() => Some("is a loopback address"),
        _ if address.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("is an IPv4-mapped address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("is a link-local address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// How many near misses a refusal lists.
const CLOSE_MAX: usize = 3;

/// The names that a mistyped one may have meant, best first.
fn close_names<'a>(wrong: &str, names: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut close: Vec<(usize, &String)> = names
        .map(|name| (edits(wrong, name), name))
        .filter(|(edits, name)| *edits <= 2.max(name.len() / 3) || name.starts_with(wrong))
        .collect();
    close.sort();
    close.into_iter().take(CLOSE_MAX).map(|(_, name)| name.clone()).collect()
}

/// The addresses that a mistyped one may have meant, best first: same family, one or two characters off.
fn close_addresses<'a>(wrong: IpAddr, addresses: impl Iterator<Item = &'a IpAddr>) -> Vec<IpAddr> {
    let text = wrong.to_string();
    let mut close: Vec<(usize, IpAddr)> = addresses
        .filter(|address| address.is_ipv4() == wrong.is_ipv4())
        .map(|address| (edits(&text, &address.to_string()), *address))
        .filter(|(edits, _)| *edits <= 2)
        .collect();
    close.sort();
    close.dedup();
    close.into_iter().take(CLOSE_MAX).map(|(_, address)| address).collect()
}

/// Levenshtein distance in bytes.
pub(crate) fn edits(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.bytes().enumerate() {
            let substitute = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}
