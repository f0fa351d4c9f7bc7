//! What a decision looks up, as a trait: kernel maps in the datapath, ordinary maps everywhere else.

use crate::{
    abi::{BackendEntry, Chain, NextHop, VipEntry, VipKey},
    address::Address,
};

/// The load balancer's tables.
pub trait Tables {
    /// Whether `address` is the address of a VIP.
    fn is_vip_address(&self, address: &Address) -> bool;
    /// The service with exactly this key.
    fn vip(&self, key: &VipKey) -> Option<VipEntry>;
    /// Whether `address` belongs to the fleet's load balancers or backends.
    fn is_tunnel_source(&self, address: &Address) -> bool;
    /// A row of a table.
    fn chain(&self, table: u32, row: u32) -> Option<Chain>;
    /// A backend by its handle.
    fn backend(&self, handle: u16) -> Option<BackendEntry>;
    /// A next hop by its index.
    fn next_hop(&self, index: u32) -> Option<NextHop>;
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
