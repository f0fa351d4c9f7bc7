//! The way to each backend, as netlink sees it.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The way to each backend address. An address that is not in the map is not known yet.
pub type Paths = BTreeMap<IpAddr, PathState>;

/// Whether packets for a backend can be sent, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    Up(Path),
    /// No packet can be sent; the reason is for people ("no route", "neighbour 10.8.1.1 does not answer").
    Down {
        reason: String,
    },
}

/// A resolved next hop towards one backend address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    pub ifindex: u32,
    pub interface: String,
    /// The gateway, or the backend itself when it is on the link.
    pub next_hop: IpAddr,
    /// Destination MAC address of frames to the next hop.
    pub mac: [u8; 6],
    /// Source MAC address: the outgoing interface's own.
    pub source_mac: [u8; 6],
    /// Largest IP packet, in bytes, that the route and the interface carry.
    pub mtu: u32,
    /// The address that the route prefers as source: the outer source unless the configuration names one.
    pub source: IpAddr,
}

impl PathState {
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }

    /// `up` or `down`.
    pub fn word(&self) -> &'static str {
        if self.is_up() { "up" } else { "down" }
    }
}
