//! IPv6 (RFC 8200).

use super::{ipv4::OUTER_TTL, protocol};
use crate::{address::Address, packet::Packet, reason::Reason};

/// Bytes of the fixed header.
pub const LEN: usize = 40;

/// Extension headers that are followed; longer chains are refused by name.
pub const MAX_EXTENSIONS: usize = 4;

/// The fixed header, unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p>(pub &'p [u8; LEN]);

impl Header<'_> {
    /// Version field; 6 in a sound header.
    #[inline(always)]
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Traffic class: DSCP and ECN.
    #[inline(always)]
    pub fn traffic_class(&self) -> u8 {
        (self.0[0] << 4) | (self.0[1] >> 4)
    }

    /// Bytes behind this header, extension headers included.
    #[inline(always)]
    pub fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Protocol of what follows.
    #[inline(always)]
    pub fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> Address {
        Address::from_v6_bytes(sixteen(self.0, 8))
    }

    /// Destination address.
    #[inline(always)]
    pub fn destination(&self) -> Address {
        Address::from_v6_bytes(sixteen(self.0, 24))
    }
}

#[inline(always)]
fn sixteen(header: &[u8; LEN], at: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&header[at..at + 16]);
    bytes
}

/// Follows the extension headers from `next` at `offset`; gives protocol and offset of the upper layer.
///
/// Routing headers are stepped over: the packet is already at the address that it names now.
#[inline(always)]
pub fn skip_extensions<P: Packet>(packet: &P, next: u8, offset: usize) -> Result<(u8, usize), Reason> {
    let mut next = next;
    let mut offset = offset;
    let mut seen = 0;
    while seen < MAX_EXTENSIONS {
        match next {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS => {
                let Some([following, length]) = packet.bytes(offset).copied() else {
                    return Err(Reason::BadExtension);
                };
                next = following;
                // RFC 8200 section 4.3: "Length of the Hop-by-Hop Options header in 8-octet units, not
                // including the first 8 octets."
                offset += (usize::from(length) + 1) * 8;
            }
            protocol::FRAGMENT => return Err(Reason::Fragment),
            _ => return Ok((next, offset)),
        }
        seen += 1;
    }
    match next {
        protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION_OPTIONS | protocol::FRAGMENT => {
            Err(Reason::TooManyExtensions)
        }
        _ => Ok((next, offset)),
    }
}

/// What an outer header needs; the rest is fixed.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// 20 bits that are the same for all packets of a flow (RFC 6438).
    pub flow_label: u32,
    /// Bytes behind this header.
    pub payload_len: u16,
    /// Protocol of the payload.
    pub next_header: u8,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
}

impl Outer {
    /// The header.
    #[inline(always)]
    pub fn emit(&self) -> [u8; LEN] {
        let mut header = [0; LEN];
        let first = 6 << 28 | u32::from(self.traffic_class) << 20 | (self.flow_label & 0x000f_ffff);
        header[0..4].copy_from_slice(&first.to_be_bytes());
        header[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        header[6] = self.next_header;
        header[7] = OUTER_TTL;
        header[8..24].copy_from_slice(self.source.bytes());
        header[24..40].copy_from_slice(self.destination.bytes());
        header
    }
}
