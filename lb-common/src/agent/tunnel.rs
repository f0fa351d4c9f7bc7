//! The outer headers: is this a tunnel packet, is it for this host, from the fleet, and sound (DESIGN step 0).

use crate::{
    address::Address,
    chain::MAX_HOPS,
    packet::Packet,
    reason::AgentReason,
    tables::AgentTables,
    wire::{ether, gue, ipv4, ipv6, l4, protocol},
};

/// A tunnel packet whose outer headers are acceptable; offsets are from the start of the frame.
///
/// Small on purpose: it travels between two functions of a program that has 512 bytes of stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Offset of the outer IP header.
    pub(super) l3: u16,
    /// Offset of the inner packet.
    pub(super) inner_at: u16,
    /// Offset behind the outer packet, by its own length field.
    pub(super) end: u32,
    /// Protocol number of the inner packet: 4 or 41.
    pub(super) inner_protocol: u8,
    /// Outer DSCP and ECN.
    pub(super) tos: u8,
    /// Index of the next hop of the chain.
    pub(super) next: u8,
    /// Offset of that index.
    pub(super) index_at: u16,
    /// Hops left, the next one included.
    pub(super) hops_left: u8,
    /// The next hop itself; zeros where none is left.
    pub(super) hop: Address,
}

impl Tunnel {
    /// The next backend of the chain, if one is left.
    #[inline(always)]
    pub(super) fn next_hop(&self) -> Option<Address> {
        if self.hops_left > 0 { Some(self.hop) } else { None }
    }
}

/// The outer IP header.
struct Outer {
    protocol: u8,
    source: Address,
    destination: Address,
    tos: u8,
    /// Offset behind the IP header.
    payload: usize,
    /// Offset behind the IP packet, by its own length field.
    end: usize,
    is_sound: bool,
}

/// What is left of the chain that the packet carries.
struct ChainLeft {
    next: u8,
    index_at: u16,
    hops_left: u8,
    hop: Address,
}

impl ChainLeft {
    const NONE: Self = Self { next: 0, index_at: 0, hops_left: 0, hop: Address::from_v6_bytes([0; 16]) };
}

/// Where and what the inner packet is.
struct Carried {
    protocol: u8,
    at: usize,
    chain: ChainLeft,
}

/// Reads and checks the outer headers.
#[inline(always)]
pub fn open<P: Packet, T: AgentTables>(packet: &P, tables: &T) -> Result<Tunnel, AgentReason> {
    let link = ether::read(packet).ok_or(AgentReason::NotTunnel)?;
    let outer = match link.ethertype {
        ether::IPV4 => outer_v4(packet, link.l3),
        ether::IPV6 => outer_v6(packet, link.l3),
        _ => None,
    }
    .ok_or(AgentReason::NotTunnel)?;
    let is_gue = match outer.protocol {
        protocol::UDP => is_gue_port(packet, &outer, tables),
        protocol::IPV4 | protocol::IPV6 => false,
        _ => return Err(AgentReason::NotTunnel),
    };
    if outer.protocol == protocol::UDP && !is_gue {
        return Err(AgentReason::NotTunnel);
    }
    if !tables.is_local(&outer.destination) {
        return Err(AgentReason::NotLocal);
    }
    if !tables.is_tunnel_source(&outer.source) {
        return Err(AgentReason::UntrustedSource);
    }
    if !outer.is_sound || outer.end > packet.len() {
        return Err(AgentReason::BadOuter);
    }
    let carried = if is_gue {
        gue_payload(packet, &outer, tables)?
    } else {
        Carried { protocol: outer.protocol, at: outer.payload, chain: ChainLeft::NONE }
    };
    Ok(Tunnel {
        l3: link.l3 as u16,
        inner_at: carried.at as u16,
        end: outer.end as u32,
        inner_protocol: carried.protocol,
        tos: outer.tos,
        next: carried.chain.next,
        index_at: carried.chain.index_at,
        hops_left: carried.chain.hops_left,
        hop: carried.chain.hop,
    })
}

#[inline(always)]
fn outer_v4<P: Packet>(packet: &P, l3: usize) -> Option<Outer> {
    let header = ipv4::Header(packet.bytes(l3)?);
    let total_len = usize::from(header.total_len());
    Some(Outer {
        protocol: header.protocol(),
        source: header.source(),
        destination: header.destination(),
        tos: header.tos(),
        payload: l3 + header.header_len(),
        end: l3 + total_len,
        // A fragment of a tunnel packet (ours have DF set) is nobody's valid packet: it has no whole inner one.
        is_sound: header.version() == 4
            && header.header_len() >= ipv4::LEN
            && header.header_len() <= total_len
            && !header.is_fragment(),
    })
}

#[inline(always)]
fn outer_v6<P: Packet>(packet: &P, l3: usize) -> Option<Outer> {
    let header = ipv6::Header(packet.bytes(l3)?);
    Some(Outer {
        protocol: header.next_header(),
        source: header.source(),
        destination: header.destination(),
        tos: header.traffic_class(),
        payload: l3 + ipv6::LEN,
        end: l3 + ipv6::LEN + usize::from(header.payload_len()),
        // An IPv4-mapped address stands for IPv4 in our keys; it has no place in an IPv6 header.
        is_sound: header.version() == 6 && !header.source().is_v4() && !header.destination().is_v4(),
    })
}

#[inline(always)]
fn is_gue_port<P: Packet, T: AgentTables>(packet: &P, outer: &Outer, tables: &T) -> bool {
    match packet.bytes::<{ l4::UDP_LEN }>(outer.payload) {
        Some(bytes) => l4::Udp(bytes).ports().1 == tables.gue_port(),
        None => false,
    }
}

#[inline(always)]
fn gue_payload<P: Packet, T: AgentTables>(
    packet: &P,
    outer: &Outer,
    tables: &T,
) -> Result<Carried, AgentReason> {
    let udp = l4::Udp(packet.bytes(outer.payload).ok_or(AgentReason::BadOuter)?);
    if outer.payload + usize::from(udp.len()) != outer.end {
        return Err(AgentReason::BadOuter);
    }
    let at = outer.payload + l4::UDP_LEN;
    let header = gue::Header(packet.bytes(at).ok_or(AgentReason::BadGue)?);
    let inner_at = at + gue::LEN + header.private_len();
    let carries_ip = matches!(header.protocol(), protocol::IPV4 | protocol::IPV6);
    if !header.is_plain_data() || !carries_ip || inner_at > outer.end {
        return Err(AgentReason::BadGue);
    }
    let chain = match header.private_len() {
        0 => ChainLeft::NONE,
        private_len => chain(packet, at + gue::LEN, private_len, outer, tables)?,
    };
    Ok(Carried { protocol: header.protocol(), at: inner_at, chain })
}

/// Reads the chain at `at` and checks every hop that is left.
#[inline(always)]
fn chain<P: Packet, T: AgentTables>(
    packet: &P,
    at: usize,
    private_len: usize,
    outer: &Outer,
    tables: &T,
) -> Result<ChainLeft, AgentReason> {
    let [kind_high, kind_low, next, count] =
        *packet.bytes::<{ gue::chain::LEN }>(at).ok_or(AgentReason::BadChain)?;
    let is_v4 = outer.destination.is_v4();
    let kind = if is_v4 { gue::chain::V4 } else { gue::chain::V6 };
    if u16::from_be_bytes([kind_high, kind_low]) != kind
        || count as usize > MAX_HOPS
        || next > count
        || gue::chain::LEN + gue::chain::hop_len(is_v4) * usize::from(count) != private_len
    {
        return Err(AgentReason::BadChain);
    }
    let index_at = (at + gue::chain::INDEX) as u16;
    let mut left = ChainLeft { next, index_at, hops_left: count - next, ..ChainLeft::NONE };
    let mut i = next;
    // Opaque to the compiler, or it would unroll the loop and give each round its own place on a small stack.
    while i < core::hint::black_box(count).min(MAX_HOPS as u8) {
        let hop_at = at + gue::chain::LEN + gue::chain::hop_len(is_v4) * usize::from(i);
        let hop = read_hop(packet, hop_at, is_v4).ok_or(AgentReason::BadChain)?;
        if !tables.is_tunnel_source(&hop) {
            return Err(AgentReason::UntrustedHop);
        }
        if tables.is_local(&hop) {
            return Err(AgentReason::OwnHop);
        }
        if i == next {
            left.hop = hop;
        }
        i += 1;
    }
    Ok(left)
}

#[inline(always)]
fn read_hop<P: Packet>(packet: &P, at: usize, is_v4: bool) -> Option<Address> {
    Some(if is_v4 {
        Address::from_v4_bytes(*packet.bytes(at)?)
    } else {
        Address::from_v6_bytes(*packet.bytes(at)?)
    })
}
