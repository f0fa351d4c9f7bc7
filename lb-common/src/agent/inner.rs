//! The inner packet: is it sound, for a VIP of this backend, from a host that may send.

use super::tunnel::Tunnel;
use crate::{
    address::Address,
    checksum,
    packet::Packet,
    parse::{self, Flow, Header, Network},
    reason::{AgentReason, Reason},
    tables::AgentTables,
    wire::{ipv4, ipv6, protocol},
};

/// The inner packet.
pub(super) struct Inner {
    pub(super) head: Head,
    /// Its flow, where it is TCP or UDP.
    pub(super) flow: Option<Flow>,
}

/// What a change of the ECN field needs of the header.
pub(super) struct Head {
    pub(super) tos: u8,
    is_v4: bool,
    /// Byte 0, and byte 1 of IPv6.
    start: [u8; 2],
    /// Of IPv4.
    checksum: u16,
}

/// Family of the inner packet, and the first bytes of its header with the merged ECN field.
///
/// Not an enum, as is nothing that travels between two functions in the kernel: the verifier refuses a copy of the
/// bytes that a variant leaves undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerHead {
    /// Whether it is IPv4.
    pub is_v4: bool,
    /// Whether the bytes below differ from what arrived.
    pub changed: bool,
    /// Bytes 0 and 1 of the header: version, IHL and TOS; or version, traffic class and the start of the flow label.
    pub start: [u8; 2],
    /// Bytes 10 and 11 of an IPv4 header: the checksum that goes with them.
    pub checksum: [u8; 2],
}

impl Head {
    #[inline(always)]
    fn of(header: &Header<'_>) -> Self {
        match header {
            Header::V4(header) => Self {
                tos: header.tos(),
                is_v4: true,
                start: [header.0[0], header.0[1]],
                checksum: header.checksum(),
            },
            Header::V6(header) => Self {
                tos: header.traffic_class(),
                is_v4: false,
                start: [header.0[0], header.0[1]],
                checksum: 0,
            },
        }
    }

    /// The head of the header with another TOS byte.
    #[inline(always)]
    pub(super) fn with_tos(&self, tos: u8) -> InnerHead {
        let start = if self.is_v4 {
            [self.start[0], tos]
        } else {
            [(self.start[0] & 0xf0) | (tos >> 4), (tos << 4) | (self.start[1] & 0x0f)]
        };
        let sum = checksum::update(self.checksum, u16::from_be_bytes(self.start), u16::from_be_bytes(start));
        InnerHead { is_v4: self.is_v4, changed: tos != self.tos, start, checksum: sum.to_be_bytes() }
    }
}

/// Reads and checks the inner packet.
#[inline(always)]
pub(super) fn read<P: Packet, T: AgentTables>(
    packet: &P,
    tunnel: &Tunnel,
    tables: &T,
) -> Result<Inner, AgentReason> {
    let at = usize::from(tunnel.inner_at);
    let header = match tunnel.inner_protocol {
        protocol::IPV4 => Header::V4(ipv4::Header(packet.bytes(at).ok_or(AgentReason::BadInner)?)),
        _ => Header::V6(ipv6::Header(packet.bytes(at).ok_or(AgentReason::BadInner)?)),
    };
    let network = Network { l3: at, header };
    if network.is_mapped() {
        return Err(AgentReason::BadInner);
    }
    check_lengths(&network, tunnel.end as usize)?;
    check_addresses(&network.source(), &network.destination(), tables)?;
    let flow = match parse::flow(packet, &network) {
        Ok(flow) => Some(flow),
        // Sound packets that are of no flow: they are for the stack.
        Err(Reason::Icmp | Reason::Fragment | Reason::NoService) => None,
        Err(_) => return Err(AgentReason::BadInner),
    };
    Ok(Inner { head: Head::of(&network.header), flow })
}

/// The inner packet must end inside the outer one; [`parse::flow`] only knows the frame.
#[inline(always)]
fn check_lengths(network: &Network<'_>, end: usize) -> Result<(), AgentReason> {
    let len = match &network.header {
        Header::V4(header) => usize::from(header.total_len()),
        Header::V6(header) => ipv6::LEN + usize::from(header.payload_len()),
    };
    if network.l3 + len > end { Err(AgentReason::BadInner) } else { Ok(()) }
}

#[inline(always)]
fn check_addresses<T: AgentTables>(
    source: &Address,
    destination: &Address,
    tables: &T,
) -> Result<(), AgentReason> {
    if !tables.is_vip_address(destination) {
        return Err(AgentReason::NotOurVip);
    }
    if !source.is_unicast_of_a_host() || tables.is_vip_address(source) {
        return Err(AgentReason::BadInnerSource);
    }
    Ok(())
}
