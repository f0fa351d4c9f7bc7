//! Why the model refuses something, and what to do instead.

use std::fmt::Display;
use std::net::IpAddr;

use thiserror::Error;

use super::Endpoint;

/// A rule that something breaks. The message names what is wrong with which object; [`Refusal::hint`] the fix.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("{what} name `{name}` is not a word")]
    BadName { what: &'static str, name: String },
    #[error("{what} address {address} {why}")]
    UnusableAddress { what: &'static str, address: IpAddr, why: &'static str },
    #[error("pool {pool} exists already")]
    PoolExists { pool: String },
    #[error("pool {pool} has no backend")]
    EmptyPool { pool: String },
    #[error("pool {pool} has agent = true with encapsulation = \"ipip\"")]
    AgentNeedsGue { pool: String },
    #[error("there is no pool {pool}")]
    UnknownPool { pool: String, close: Vec<String> },
    #[error("backend {address} has weight 0")]
    ZeroWeight { address: IpAddr },
    #[error("pool {pool} has backend {address} already")]
    BackendExists { pool: String, address: IpAddr },
    #[error("pool {pool} mixes address families: {address} and {other}")]
    MixedFamilies { pool: String, address: IpAddr, other: IpAddr },
    #[error("backend {address} lies outside tunnel_sources: agents would drop what is sent to it")]
    OutsideTunnelSources { address: IpAddr },
    #[error("backend {address} is a source address of this load balancer")]
    BackendIsSource { address: IpAddr },
    #[error("cannot remove backend {address}: it is the last one of pool {pool}")]
    LastBackend { pool: String, address: IpAddr },
    #[error("there is no backend {address}{}", in_pool(pool.as_deref()))]
    UnknownBackend { address: IpAddr, pool: Option<String>, close: Vec<IpAddr> },
    #[error("backend {address} is in several pools: {}", pools.join(", "))]
    AmbiguousBackend { address: IpAddr, pools: Vec<String> },
    #[error("there is no VIP {name}")]
    UnknownVip { name: String, close: Vec<String> },
    #[error("VIP {name} exists already, as {endpoint}")]
    VipExists { name: String, endpoint: Endpoint },
    #[error("{endpoint} is VIP {by} already")]
    EndpointTaken { endpoint: Endpoint, by: String },
    #[error("VIP {vip} has {address}, which is a source address of this load balancer")]
    VipIsSource { vip: String, address: IpAddr },
    #[error("{address} is both VIP {vip} and a backend of pool {pool}")]
    VipIsBackend { vip: String, address: IpAddr, pool: String },
}

impl Refusal {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::BadName { .. } => {
                "use 1 to 63 letters, digits, `-`, `_` or `.`, beginning with a letter or digit".to_owned()
            }
            Self::UnusableAddress { .. } => "use an ordinary unicast address".to_owned(),
            Self::PoolExists { .. } | Self::VipExists { .. } => "choose another name".to_owned(),
            Self::EmptyPool { .. } => "give it at least one [[pool.backend]]".to_owned(),
            Self::AgentNeedsGue { .. } => {
                "a second chance travels in the GUE header: use encapsulation = \"gue\", or agent = false"
                    .to_owned()
            }
            Self::UnknownPool { close, .. } => return did_you_mean(close, "config show"),
            Self::UnknownVip { close, .. } => return did_you_mean(close, "vip list"),
            Self::UnknownBackend { close, .. } => return did_you_mean(close, "backend list"),
            Self::ZeroWeight { .. } => {
                "weights are 1 to 65535; state = \"drain\" (backend drain) takes new flows away".to_owned()
            }
            Self::BackendExists { address, .. } => {
                format!("change it with `bowline backend weight {address} N`, or remove the second entry")
            }
            Self::MixedFamilies { .. } => {
                "a pool has one underlay family (IPv4 and IPv6 VIPs work over either): make two pools"
                    .to_owned()
            }
            Self::OutsideTunnelSources { .. } => {
                "add its prefix to tunnel_sources, on every load balancer and backend".to_owned()
            }
            Self::BackendIsSource { .. } | Self::VipIsBackend { .. } => {
                "a load balancer cannot be a backend of its own VIP: use another host".to_owned()
            }
            Self::LastBackend { address, .. } => {
                format!("remove the VIP first, or drain it: bowline backend drain {address}")
            }
            Self::AmbiguousBackend { pools, .. } => {
                format!("say which one: --pool {}", pools.first().map_or("POOL", String::as_str))
            }
            Self::EndpointTaken { by, .. } => format!("remove the other first: bowline vip remove {by}"),
            Self::VipIsSource { .. } => {
                "the VIP must not be an address of the load balancer itself".to_owned()
            }
        };
        Some(text)
    }
}

fn in_pool(pool: Option<&str>) -> String {
    pool.map_or_else(String::new, |pool| format!(" in pool {pool}"))
}

fn did_you_mean<T: Display>(close: &[T], list: &str) -> Option<String> {
    let close: Vec<String> = close.iter().map(ToString::to_string).collect();
    Some(match close.as_slice() {
        [] => format!("`bowline {list}` shows what there is"),
        some => format!("did you mean {}?", some.join(" or ")),
    })
}
