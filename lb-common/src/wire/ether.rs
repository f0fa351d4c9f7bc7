//! Ethernet II with up to two VLAN tags (IEEE 802.1Q).

use crate::packet::{Packet, PacketMut};

/// Bytes of an untagged header.
pub const LEN: usize = 14;
/// Bytes of one VLAN tag.
pub const TAG_LEN: usize = 4;

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

/// What the link layer says of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// EtherType behind the last tag read.
    pub ethertype: u16,
    /// Offset of the network header: 14, 18 or 22.
    pub l3: usize,
}

/// Reads the header and at most two tags; `None` where the frame ends inside.
#[inline(always)]
pub fn read<P: Packet>(packet: &P) -> Option<Link> {
    let mut ethertype = u16::from_be_bytes(*packet.bytes(LEN - 2)?);
    let mut l3 = LEN;
    if is_tag(ethertype) {
        ethertype = u16::from_be_bytes(*packet.bytes(LEN + TAG_LEN - 2)?);
        l3 = LEN + TAG_LEN;
        if is_tag(ethertype) {
            ethertype = u16::from_be_bytes(*packet.bytes(LEN + 2 * TAG_LEN - 2)?);
            l3 = LEN + 2 * TAG_LEN;
        }
    }
    Some(Link { ethertype, l3 })
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == VLAN || ethertype == SERVICE_VLAN
}

/// The VLAN tags of a frame, to be put back after the header has moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// No tag.
    None,
    /// One tag.
    One([u8; TAG_LEN]),
    /// Two tags.
    Two([u8; 2 * TAG_LEN]),
}

impl Tags {
    /// The tags in front of a network header at `l3`.
    #[inline(always)]
    pub fn read<P: Packet>(packet: &P, l3: usize) -> Option<Self> {
        // A tag starts with its EtherType, where an untagged header has its own.
        const FIRST: usize = LEN - 2;
        Some(match l3 {
            LEN => Self::None,
            18 => Self::One(*packet.bytes(FIRST)?),
            _ => Self::Two(*packet.bytes(FIRST)?),
        })
    }

    /// Writes a whole header: addresses, these tags, `ethertype`. Gives the offset behind it.
    #[inline(always)]
    pub fn write_header<P: PacketMut>(
        &self,
        packet: &mut P,
        destination: [u8; 6],
        source: [u8; 6],
        ethertype: u16,
    ) -> Option<usize> {
        let l3 = match self {
            Self::None => LEN,
            Self::One(_) => LEN + TAG_LEN,
            Self::Two(_) => LEN + 2 * TAG_LEN,
        };
        let tags_written = match self {
            Self::None => true,
            Self::One(tag) => packet.write(LEN - 2, tag),
            Self::Two(tags) => packet.write(LEN - 2, tags),
        };
        let written = tags_written
            && packet.write(0, &destination)
            && packet.write(6, &source)
            && packet.write(l3 - 2, &ethertype.to_be_bytes());
        written.then_some(l3)
    }
}
