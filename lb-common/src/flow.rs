//! What identifies a flow, and its hash.
//!
//! The key's layout, the hash and the row function are the fleet's contract: load balancers that disagree about
//! them break flows. A change is a new [`CONTRACT_VERSION`], which is in every digest.

use xxhash_rust::xxh64::xxh64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::address::Address;

/// Version of everything that load balancers of a fleet must agree on.
pub const CONTRACT_VERSION: u32 = 1;

/// The stable 5-tuple: 40 bytes, network order, three of them zero.
///
/// There is no field for DSCP, ECN, TTL, flow label, VLAN or queue, so none of them can choose a backend.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowKey {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, network order.
    pub source_port: [u8; 2],
    /// Destination port, network order.
    pub destination_port: [u8; 2],
    /// Protocol number.
    pub protocol: u8,
    /// Zero.
    pub zero: [u8; 3],
}

impl FlowKey {
    /// XXH64 of the 40 bytes with the pool's seed.
    #[inline(always)]
    pub fn hash(&self, seed: u64) -> FlowHash {
        let bytes: [u8; size_of::<Self>()] = zerocopy::transmute!(*self);
        FlowHash(xxh64(&bytes, seed))
    }
}

/// Hash of a flow: its high bits choose the row, its low bits spread the tunnel packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowHash(pub u64);

/// RFC 6335 section 6: dynamic ports are 49152 to 65535. A tunnel's source port is one of these 2^14.
const FIRST_DYNAMIC_PORT: u16 = 0xc000;

impl FlowHash {
    /// The row of the flow in a table of `2^rows_log2` rows (1 to 31).
    #[inline(always)]
    pub fn row(self, rows_log2: u32) -> u32 {
        // Masking says to the verifier what the table's size says to us.
        (self.0 >> ((64 - rows_log2) & 63)) as u32
    }

    /// UDP source port of the flow's tunnel packets.
    #[inline(always)]
    pub fn source_port(self) -> u16 {
        FIRST_DYNAMIC_PORT | (self.0 as u16 & !FIRST_DYNAMIC_PORT)
    }

    /// Flow label of the flow's tunnel packets, 20 bits.
    #[inline(always)]
    pub fn flow_label(self) -> u32 {
        (self.0 >> 14) as u32 & 0x000f_ffff
    }
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::*;

    fn key(source: &str, destination: &str, ports: (u16, u16), protocol: u8) -> FlowKey {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().expect("an address literal"));
        FlowKey {
            source: address(source),
            destination: address(destination),
            source_port: ports.0.to_be_bytes(),
            destination_port: ports.1.to_be_bytes(),
            protocol,
            zero: [0; 3],
        }
    }

    /// Computed by `tests/flow_oracle.py`, an implementation of XXH64 that shares nothing with ours.
    const VECTORS: &str = include_str!("../tests/flow_vectors.txt");

    #[test]
    fn frozen_vectors_of_the_fleet_hold() {
        let mut checked = 0;
        for line in VECTORS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [source, source_port, destination, destination_port, protocol, seed, hash, row] = fields[..]
            else {
                panic!("a vector has eight fields: {line}");
            };
            let number = |text: &str| text.parse::<u16>().expect("a number");
            let key = key(
                source,
                destination,
                (number(source_port), number(destination_port)),
                number(protocol) as u8,
            );
            let seed = u64::from_str_radix(seed, 16).expect("a hexadecimal seed");
            let computed = key.hash(seed);
            assert_eq!(format!("{:016x}", computed.0), hash, "{line}");
            assert_eq!(computed.row(16).to_string(), row, "{line}");
            checked += 1;
        }
        assert!(checked >= 8, "only {checked} vectors");
    }

    #[test]
    fn rows_are_the_top_bits_and_ports_are_dynamic_ones() {
        let hash = FlowHash(0xfedc_ba98_7654_3210);
        assert_eq!(hash.row(12), 0xfed);
        assert_eq!(hash.row(16), 0xfedc);
        assert_eq!(hash.row(20), 0xfedcb);
        assert!(FlowHash(0).source_port() == 49152 && FlowHash(u64::MAX).source_port() == 65535);
        assert!(FlowHash(u64::MAX).flow_label() < 1 << 20);
    }
}
