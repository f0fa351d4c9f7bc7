//! The backend agent's verdict: is this tunnel packet acceptable, and what comes out of it.
//!
//! The second chance (a packet of a flow that has no socket here goes on to the next member of its chain) will
//! stand between [`judge`]'s last check and [`Verdict::Accept`].

use crate::{
    address::Address,
    ecn,
    packet::Packet,
    reason::AgentReason,
    tables::AgentTables,
    wire::{ether, gue, ipv4, ipv6, l4, protocol},
};

/// What becomes of a packet on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it alone, or end it, as [`AgentReason::fate`] says.
    Leave(AgentReason),
    /// Remove the outer headers and give the inner packet to the local stack.
    Accept(Accept),
}

/// How to decapsulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The way out.
    pub reason: AgentReason,
    /// Offset of the outer IP header.
    pub l3: usize,
    /// Bytes of outer headers.
    pub strip: usize,
    /// What the inner header needs after the ECN field was merged.
    pub inner: InnerHead,
}

/// Family of the inner packet, and the first bytes of its header with the merged ECN field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerHead {
    /// IPv4.
    V4 {
        /// Bytes 0 and 1 of the header: version, IHL, TOS.
        start: [u8; 2],
        /// Bytes 10 and 11: the checksum that goes with them.
        checksum: [u8; 2],
        /// Whether they differ from what arrived.
        changed: bool,
    },
    /// IPv6.
    V6 {
        /// Bytes 0 and 1 of the header: version, traffic class, start of the flow label.
        start: [u8; 2],
        /// Whether they differ from what arrived.
        changed: bool,
    },
}

/// The outer IP header of a packet that may be a tunnel's.
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

/// Judges a packet that arrived on a backend's uplink (DESIGN section 5, step 0).
#[inline(always)]
pub fn judge<P: Packet, T: AgentTables>(packet: &P, tables: &T) -> Verdict {
    match tunnel(packet, tables) {
        Ok(accept) => Verdict::Accept(accept),
        Err(reason) => Verdict::Leave(reason),
    }
}

#[inline(always)]
fn tunnel<P: Packet, T: AgentTables>(packet: &P, tables: &T) -> Result<Accept, AgentReason> {
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
    let (inner_protocol, inner_at) =
        if is_gue { gue_payload(packet, &outer)? } else { (outer.protocol, outer.payload) };
    let strip = inner_at - link.l3;
    let (inner, reason) = match inner_protocol {
        protocol::IPV4 => inner_v4(packet, inner_at, &outer, tables)?,
        protocol::IPV6 => inner_v6(packet, inner_at, &outer, tables)?,
        _ => return Err(AgentReason::BadGue),
    };
    Ok(Accept { reason, l3: link.l3, strip, inner })
}

#[inline(always)]
fn outer_v4<P: Packet>(packet: &P, l3: usize) -> Option<Outer> {
    let header = ipv4::Header(packet.read(l3)?);
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
    let header = ipv6::Header(packet.read(l3)?);
    Some(Outer {
        protocol: header.next_header(),
        source: header.source(),
        destination: header.destination(),
        tos: header.traffic_class(),
        payload: l3 + ipv6::LEN,
        end: l3 + ipv6::LEN + usize::from(header.payload_len()),
        is_sound: header.version() == 6,
    })
}

#[inline(always)]
fn is_gue_port<P: Packet, T: AgentTables>(packet: &P, outer: &Outer, tables: &T) -> bool {
    match packet.read::<{ l4::UDP_LEN }>(outer.payload) {
        Some(bytes) => l4::Udp(bytes).ports().1 == tables.gue_port(),
        None => false,
    }
}

/// Protocol and offset of what a GUE packet carries.
#[inline(always)]
fn gue_payload<P: Packet>(packet: &P, outer: &Outer) -> Result<(u8, usize), AgentReason> {
    let udp = l4::Udp(packet.read(outer.payload).ok_or(AgentReason::BadOuter)?);
    if outer.payload + usize::from(udp.len()) != outer.end {
        return Err(AgentReason::BadOuter);
    }
    let at = outer.payload + l4::UDP_LEN;
    let header = gue::Header(packet.read(at).ok_or(AgentReason::BadGue)?);
    let inner_at = at + gue::LEN + header.private_len();
    if !header.is_plain_data() || inner_at > outer.end {
        return Err(AgentReason::BadGue);
    }
    Ok((header.protocol(), inner_at))
}

#[inline(always)]
fn inner_v4<P: Packet, T: AgentTables>(
    packet: &P,
    at: usize,
    outer: &Outer,
    tables: &T,
) -> Result<(InnerHead, AgentReason), AgentReason> {
    let header = ipv4::Header(packet.read(at).ok_or(AgentReason::BadInner)?);
    let total_len = usize::from(header.total_len());
    if header.version() != 4
        || header.header_len() < ipv4::LEN
        || header.header_len() > total_len
        || at + total_len > outer.end
    {
        return Err(AgentReason::BadInner);
    }
    check_inner_addresses(&header.source(), &header.destination(), tables)?;
    let (tos, reason) = merge(header.tos(), outer.tos)?;
    let (start, checksum) = header.with_tos(tos);
    Ok((InnerHead::V4 { start, checksum, changed: tos != header.tos() }, reason))
}

#[inline(always)]
fn inner_v6<P: Packet, T: AgentTables>(
    packet: &P,
    at: usize,
    outer: &Outer,
    tables: &T,
) -> Result<(InnerHead, AgentReason), AgentReason> {
    let header = ipv6::Header(packet.read(at).ok_or(AgentReason::BadInner)?);
    if header.version() != 6 || at + ipv6::LEN + usize::from(header.payload_len()) > outer.end {
        return Err(AgentReason::BadInner);
    }
    check_inner_addresses(&header.source(), &header.destination(), tables)?;
    let (class, reason) = merge(header.traffic_class(), outer.tos)?;
    let start = header.with_traffic_class(class);
    Ok((InnerHead::V6 { start, changed: class != header.traffic_class() }, reason))
}

#[inline(always)]
fn check_inner_addresses<T: AgentTables>(
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

/// The inner TOS byte after RFC 6040; the DSCP stays the inner one (RFC 2983 section 3, the pipe model).
#[inline(always)]
fn merge(inner: u8, outer: u8) -> Result<(u8, AgentReason), AgentReason> {
    match ecn::decapsulate(inner, outer) {
        (_, AgentReason::CeOverNotEct) => Err(AgentReason::CeOverNotEct),
        (codepoint, reason) => Ok(((inner & !ecn::MASK) | codepoint, reason)),
    }
}
