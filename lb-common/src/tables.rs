//! What a decision looks up, as a trait: kernel maps in the datapath, ordinary maps everywhere else.

use crate::{
    abi::{BackendEntry, Chain, NextHop, VipEntry, VipKey},
    address::Address,
    parse::Flow,
};

/// The load balancer's tables.
///
/// Entries are lent and not copied: a decision looks at up to four backends, and the kernel gives a program 512
/// bytes of stack.
pub trait Tables {
    /// Whether `address` is the address of a VIP.
    fn is_vip_address(&self, address: &Address) -> bool;
    /// The service with exactly this key.
    fn vip(&self, key: &VipKey) -> Option<&VipEntry>;
    /// Whether `address` belongs to the fleet's load balancers or backends.
    fn is_tunnel_source(&self, address: &Address) -> bool;
    /// A row of a table.
    fn chain(&self, table: u32, row: u32) -> Option<Chain>;
    /// A backend by its handle.
    fn backend(&self, handle: u16) -> Option<&BackendEntry>;
    /// A next hop by its index.
    fn next_hop(&self, index: u32) -> Option<&NextHop>;
}

/// What the sockets of a backend say of a TCP segment to one of its VIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// No socket at all.
    Nobody,
    /// A connection.
    Connection,
    /// A connection that was closed here; the next sequence number it expected, if the kernel told.
    TimeWait {
        /// It counts the FIN.
        expected: Option<u32>,
    },
    /// A handshake that this host answered; the sequence number of its SYN-ACK, if the kernel told.
    HalfOpen {
        /// The client acknowledges this number plus one.
        sent: Option<u32>,
    },
    /// A listener, and whether the segment returns a SYN cookie of this host.
    Listener {
        /// `bpf_tcp_check_syncookie` said yes.
        is_cookie: bool,
    },
}

/// The sockets of a backend.
pub trait Sockets {
    /// Who holds the connection of `flow`, a TCP segment inside the packet whose network header is at `l3`.
    fn holder(&self, flow: &Flow, l3: usize) -> Holder;
}

/// The agent's tables.
pub trait AgentTables {
    /// Whether `address` is one of this host's own (a VIP is not).
    fn is_local(&self, address: &Address) -> bool;
    /// Whether `address` is a VIP that this backend serves.
    fn is_vip_address(&self, address: &Address) -> bool;
    /// Whether `address` belongs to the fleet's load balancers or backends.
    fn is_tunnel_source(&self, address: &Address) -> bool;
    /// GUE port, network order.
    fn gue_port(&self) -> [u8; 2];
}
