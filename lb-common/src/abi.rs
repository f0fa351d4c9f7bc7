//! Keys and values of the maps that the daemon writes and the datapath reads.
//!
//! Addresses, ports and MAC addresses are byte arrays in network order; counters, indices and flags are native
//! integers, because both sides run on the same machine. No type has padding (the derive proves it) and none
//! holds a `bool` or an enum, whose unknown values would be undefined behaviour.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::Address;

/// Version of the map layout: maps that outlive their daemon may be adopted only by one of the same version.
pub const ABI_VERSION: u32 = 2;

/// Names of the maps in the load balancer's object.
pub mod maps {
    /// Addresses that are VIPs: [`super::Address`] to one byte.
    pub const VIP_ADDRESSES: &str = "VIP_ADDRESSES";
    /// [`super::VipKey`] to [`super::VipEntry`].
    pub const VIPS: &str = "VIPS";
    /// Table index to an array of [`super::Chain`].
    pub const TABLES: &str = "TABLES";
    /// Handle to [`super::BackendEntry`].
    pub const BACKENDS: &str = "BACKENDS";
    /// Index to [`super::NextHop`].
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// [`super::PrefixKey`] to one byte: where our own tunnel packets come from.
    pub const TUNNEL_SOURCES: &str = "TUNNEL_SOURCES";
    /// Reason index to [`super::Counter`], per CPU.
    pub const REASON_COUNTERS: &str = "REASON_COUNTERS";
    /// VIP index to [`super::Counter`], per CPU.
    pub const VIP_COUNTERS: &str = "VIP_COUNTERS";
    /// Handle to [`super::Counter`], per CPU.
    pub const BACKEND_COUNTERS: &str = "BACKEND_COUNTERS";
    /// Addresses of this host, in the agent's object.
    pub const LOCAL_ADDRESSES: &str = "LOCAL_ADDRESSES";
    /// One [`super::AgentConfig`], in the agent's object.
    pub const AGENT_CONFIG: &str = "AGENT_CONFIG";
    /// Cell of RFC 6040's table (inner codepoint * 4 + outer) to [`super::Counter`], per CPU, in the agent's object.
    pub const ECN_CELLS: &str = "ECN_CELLS";
}

/// Capacities of the maps as they are declared.
pub mod limits {
    /// VIPs.
    pub const VIPS: usize = 4096;
    /// Backend handles, of which 0 is none.
    pub const BACKENDS: usize = 4096;
    /// Row tables, one per pool.
    pub const TABLES: usize = 256;
    /// Next hops.
    pub const NEXT_HOPS: usize = 4096;
    /// Prefixes in tunnel_sources.
    pub const TUNNEL_SOURCES: usize = 1024;
    /// Addresses of a backend host.
    pub const LOCAL_ADDRESSES: usize = 1024;
    /// Fewest rows of a table, as a power of two.
    pub const MIN_ROWS_LOG2: u32 = 12;
    /// Most rows of a table, as a power of two.
    pub const MAX_ROWS_LOG2: u32 = 20;
}

/// Key of a service.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct VipKey {
    /// Address of the VIP.
    pub address: Address,
    /// Port, network order; 0 = every port.
    pub port: [u8; 2],
    /// Protocol number.
    pub protocol: u8,
    /// Zero.
    pub zero: u8,
}

impl VipKey {
    /// The key of a service.
    #[inline(always)]
    pub const fn new(address: Address, port: [u8; 2], protocol: u8) -> Self {
        Self { address, port, protocol, zero: 0 }
    }
}

/// A service and what the datapath needs of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VipEntry {
    /// Seed of the pool's flow hash.
    pub seed: u64,
    /// Index of the VIP's counter.
    pub vip: u32,
    /// Index of the pool's table.
    pub table: u32,
    /// Rows of that table, as a power of two.
    pub rows_log2: u32,
    /// Zero.
    pub zero: u32,
}

/// Longest chain of a row.
pub const CHAIN_LEN: usize = 4;

/// What a row holds: handles of backends in their order, 0 behind the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Chain(pub [u16; CHAIN_LEN]);

/// Bits of [`BackendEntry::flags`].
pub mod backend_flags {
    /// Admin state `ready`.
    pub const READY: u32 = 1;
    /// Passes its health check.
    pub const HEALTHY: u32 = 1 << 1;
    /// Admin state `maint`: no traffic at all.
    pub const MAINT: u32 = 1 << 2;
    /// Answers nothing any more.
    pub const DEAD: u32 = 1 << 3;
    /// Encapsulate as GUE; otherwise plain IP in IP.
    pub const GUE: u32 = 1 << 4;
    /// Runs the agent: packets may carry the rest of their chain, for a second chance. Only with `GUE`.
    pub const AGENT: u32 = 1 << 5;
}

/// A backend as the datapath sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BackendEntry {
    /// Outer destination.
    pub address: Address,
    /// Outer source, of the same family.
    pub source: Address,
    /// Index of its next hop.
    pub next_hop: u32,
    /// Bits of [`backend_flags`].
    pub flags: u32,
    /// GUE port, network order.
    pub gue_port: [u8; 2],
    /// Zero.
    pub zero: [u8; 6],
}

impl BackendEntry {
    #[inline(always)]
    fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }

    /// Whether new flows may start here.
    #[inline(always)]
    pub fn takes_new_flows(&self) -> bool {
        self.has(backend_flags::READY | backend_flags::HEALTHY)
    }

    /// Whether packets of older flows may be sent here.
    #[inline(always)]
    pub fn is_reachable(&self) -> bool {
        self.flags & (backend_flags::MAINT | backend_flags::DEAD) == 0
    }

    /// Whether packets to it may carry the rest of their chain.
    #[inline(always)]
    pub fn has_agent(&self) -> bool {
        self.has(backend_flags::GUE | backend_flags::AGENT)
    }

    /// Whether its tunnel is GUE.
    #[inline(always)]
    pub fn is_gue(&self) -> bool {
        self.has(backend_flags::GUE)
    }
}

/// Bits of [`NextHop::flags`].
pub mod next_hop_flags {
    /// Interface and both MAC addresses are known.
    pub const USABLE: u32 = 1;
}

/// A gateway or an on-link backend; several backends behind one gateway share it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NextHop {
    /// Interface to send on.
    pub ifindex: u32,
    /// Bytes of the largest IP packet that the way takes.
    pub mtu: u32,
    /// MAC address of the gateway.
    pub destination: [u8; 6],
    /// MAC address of the interface.
    pub source: [u8; 6],
    /// Bits of [`next_hop_flags`].
    pub flags: u32,
}

impl NextHop {
    /// Whether a packet can be sent this way now.
    #[inline(always)]
    pub fn is_usable(&self) -> bool {
        self.flags & next_hop_flags::USABLE != 0
    }
}

/// Key of a longest-prefix match: a native length in bits over 16 bytes (IPv4: 96 more than its own).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrefixKey {
    /// Bits of the address that count.
    pub bits: u32,
    /// The address.
    pub address: Address,
}

/// A counter; one per CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the Ethernet header on, as received.
    pub bytes: u64,
}

/// Settings of the agent program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AgentConfig {
    /// GUE port, network order.
    pub gue_port: [u8; 2],
    /// Zero.
    pub zero: [u8; 2],
    /// Offset of the initial sequence number that this host sent, in the kernel's request socket; 0 = unknown.
    pub snt_isn: u32,
    /// Offset of the next sequence number expected, in the kernel's time-wait socket; 0 = unknown.
    pub rcv_nxt: u32,
}

// Offsets and sizes are the contract with the other side of the map; a change needs a new ABI_VERSION.
const _: () = {
    assert!(size_of::<VipKey>() == 20);
    assert!(size_of::<VipEntry>() == 24);
    assert!(size_of::<Chain>() == 8);
    assert!(size_of::<BackendEntry>() == 48);
    assert!(size_of::<NextHop>() == 24);
    assert!(size_of::<PrefixKey>() == 20);
    assert!(size_of::<Counter>() == 16);
    assert!(size_of::<AgentConfig>() == 12);
    assert!(limits::BACKENDS <= u16::MAX as usize + 1);
};
