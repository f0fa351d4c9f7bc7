//! The tables in ordinary memory: for tests, `explain` and the simulator.

use alloc::{collections::BTreeMap, collections::BTreeSet, vec::Vec};

use crate::{
    abi::{BackendEntry, Chain, NextHop, PrefixKey, VipEntry, VipKey},
    address::Address,
    flow::FlowKey,
    parse::Flow,
    tables::{AgentTables, Holder, Sockets, Tables},
};

/// Everything that the load balancer's datapath reads.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    /// Services.
    pub vips: BTreeMap<VipKey, VipEntry>,
    /// Prefixes of the fleet.
    pub tunnel_sources: Vec<PrefixKey>,
    /// Rows by table index.
    pub tables: BTreeMap<u32, Vec<Chain>>,
    /// Backends by handle.
    pub backends: BTreeMap<u16, BackendEntry>,
    /// Next hops by index.
    pub next_hops: BTreeMap<u32, NextHop>,
}

impl PrefixKey {
    /// Whether this prefix holds `address`.
    pub fn holds(&self, address: &Address) -> bool {
        let as_number = |address: &Address| u128::from_be_bytes(*address.bytes());
        let differing = as_number(&self.address) ^ as_number(address);
        differing.leading_zeros() >= self.bits
    }
}

impl Tables for MemoryTables {
    fn is_vip_address(&self, address: &Address) -> bool {
        self.vips.keys().any(|key| key.address == *address)
    }

    fn vip(&self, key: &VipKey) -> Option<&VipEntry> {
        self.vips.get(key)
    }

    fn is_tunnel_source(&self, address: &Address) -> bool {
        self.tunnel_sources.iter().any(|prefix| prefix.holds(address))
    }

    fn chain(&self, table: u32, row: u32) -> Option<Chain> {
        self.tables.get(&table)?.get(row as usize).copied()
    }

    fn backend(&self, handle: u16) -> Option<&BackendEntry> {
        self.backends.get(&handle)
    }

    fn next_hop(&self, index: u32) -> Option<&NextHop> {
        self.next_hops.get(&index)
    }
}

/// Everything that the agent's datapath reads.
#[derive(Clone, Debug, Default)]
pub struct MemoryAgentTables {
    /// Addresses of the host.
    pub local: BTreeSet<Address>,
    /// VIPs that it serves.
    pub vips: BTreeSet<Address>,
    /// Prefixes of the fleet.
    pub tunnel_sources: Vec<PrefixKey>,
    /// GUE port, network order.
    pub gue_port: [u8; 2],
    /// Who holds the TCP connections to its VIPs; what is not here is nobody's.
    pub sockets: BTreeMap<FlowKey, Holder>,
}

impl Sockets for MemoryAgentTables {
    fn holder(&self, flow: &Flow, _l3: usize) -> Holder {
        self.sockets.get(&flow.key).copied().unwrap_or(Holder::Nobody)
    }
}

impl AgentTables for MemoryAgentTables {
    fn is_local(&self, address: &Address) -> bool {
        self.local.contains(address)
    }

    fn is_vip_address(&self, address: &Address) -> bool {
        self.vips.contains(address)
    }

    fn is_tunnel_source(&self, address: &Address) -> bool {
        self.tunnel_sources.iter().any(|prefix| prefix.holds(address))
    }

    fn gue_port(&self) -> [u8; 2] {
        self.gue_port
    }
}
