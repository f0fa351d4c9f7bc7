//! IPv4 (RFC 791).

use crate::{address::Address, checksum};

/// Bytes of a header without options.
pub const LEN: usize = 20;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// The fixed 20 bytes of a header, unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p>(pub &'p [u8; LEN]);

impl Header<'_> {
    /// Version field; 4 in a sound header.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Header length in bytes by the IHL field, options included: 0 to 60.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[0] & 0x0f) * 4
    }

    /// The byte that was Type of Service: DSCP and ECN (RFC 2474, RFC 3168).
    #[inline(always)]
    pub fn tos(&self) -> u8 {
        self.0[1]
    }

    /// Total length in bytes, this header included.
    #[inline(always)]
    pub fn total_len(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    #[inline(always)]
    fn flags_and_offset(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// Whether the sender forbids fragmentation.
    #[inline(always)]
    pub fn dont_fragment(&self) -> bool {
        self.flags_and_offset() & DONT_FRAGMENT != 0
    }

    /// Whether this is a part of a larger packet, first, middle or last.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.flags_and_offset() & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// Protocol of the payload.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// Header checksum.
    #[inline(always)]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[10], self.0[11]])
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> Address {
        Address::from_v4_bytes([self.0[12], self.0[13], self.0[14], self.0[15]])
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination(&self) -> Address {
        Address::from_v4_bytes([self.0[16], self.0[17], self.0[18], self.0[19]])
    }
}

/// What an outer header needs; the rest is fixed.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// DSCP and ECN.
    pub tos: u8,
    /// Total length in bytes, this header included.
    pub total_len: u16,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source address, an IPv4 one.
    pub source: Address,
    /// Destination address, an IPv4 one.
    pub destination: Address,
}

/// Hop limit of everything we send: far above any path inside a fleet, far below endless.
pub const OUTER_TTL: u8 = 64;

impl Outer {
    /// The header with its checksum.
    #[inline(always)]
    pub fn emit(&self) -> [u8; LEN] {
        let mut header = [0; LEN];
        header[0] = 0x45;
        header[1] = self.tos;
        header[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        // RFC 6864 section 4.1: an atomic datagram (DF set, not a fragment) may carry any identification;
        // zero needs no counter that CPUs would share.
        header[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
        header[8] = OUTER_TTL;
        header[9] = self.protocol;
        header[12..16].copy_from_slice(&self.source.v4_bytes());
        header[16..20].copy_from_slice(&self.destination.v4_bytes());
        let sum = checksum::finish(checksum::add(0, &header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }
}
