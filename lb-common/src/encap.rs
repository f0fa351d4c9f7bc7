//! Outer headers: IPv4 or IPv6, with GUE over UDP between or nothing.

use crate::{
    abi::BackendEntry,
    address::Address,
    chain::Hops,
    decide::Forward,
    packet::PacketMut,
    reason::Reason,
    wire::{
        ether::{self, Tags},
        gue, ipv4, ipv6, l4, protocol,
    },
};

/// The four shapes of an outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Family of the outer header.
    pub is_v4: bool,
    /// GUE over UDP, or IP directly in IP.
    pub is_gue: bool,
}

const UDP_AND_GUE: usize = l4::UDP_LEN + gue::LEN;

impl Tunnel {
    /// The tunnel to a backend.
    #[inline(always)]
    pub fn of(backend: &BackendEntry) -> Self {
        Self { is_v4: backend.address.is_v4(), is_gue: backend.is_gue() }
    }

    /// Bytes that it puts in front of a packet: 20, 32, 40 or 52, and the chain where there are `hops`.
    #[inline(always)]
    pub const fn overhead(self, hops: u8) -> usize {
        let ip = if self.is_v4 { ipv4::LEN } else { ipv6::LEN };
        if self.is_gue { ip + UDP_AND_GUE + gue::chain::private_len(self.is_v4, hops) } else { ip }
    }
}

/// Puts the outer headers in front of a packet and addresses the frame to the next hop.
///
/// After an error the frame is in no defined state and must be dropped.
#[inline(always)]
pub fn encapsulate<P: PacketMut>(packet: &mut P, forward: &Forward<'_>) -> Result<(), Reason> {
    let tunnel = Tunnel::of(forward.backend.entry);
    let tags = Tags::read(packet, forward.l3).ok_or(Reason::NoHeadroom)?;
    if !packet.grow_head(tunnel.overhead(forward.hops.count)) {
        return Err(Reason::NoHeadroom);
    }
    let ethertype = if tunnel.is_v4 { ether::IPV4 } else { ether::IPV6 };
    let next_hop = forward.next_hop;
    let at = tags
        .write_header(packet, next_hop.destination, next_hop.source, ethertype)
        .ok_or(Reason::NoHeadroom)?;
    let behind = write_ip(packet, at, forward, tunnel).ok_or(Reason::NoHeadroom)?;
    if tunnel.is_gue && !write_gue(packet, behind, forward, tunnel) {
        return Err(Reason::NoHeadroom);
    }
    Ok(())
}

/// Protocol number that says what the tunnel carries.
#[inline(always)]
fn inner_protocol(forward: &Forward<'_>) -> u8 {
    if forward.inner.is_v4 { protocol::IPV4 } else { protocol::IPV6 }
}

/// Writes the outer IP header at `at`; gives the offset behind it.
#[inline(always)]
fn write_ip<P: PacketMut>(packet: &mut P, at: usize, forward: &Forward<'_>, tunnel: Tunnel) -> Option<usize> {
    let carries = if tunnel.is_gue { protocol::UDP } else { inner_protocol(forward) };
    let backend = forward.backend.entry;
    // RFC 6040 section 4.1, normal mode: the ingress copies the ECN field of the inner header to the outer.
    // The DSCP goes with it (RFC 2983 section 3, the uniform model).
    let tos = forward.inner.tos;
    if tunnel.is_v4 {
        let outer = ipv4::Outer {
            tos,
            total_len: forward.inner.len + tunnel.overhead(forward.hops.count) as u16,
            protocol: carries,
            source: backend.source,
            destination: backend.address,
        };
        packet.write(at, &outer.emit()).then_some(at + ipv4::LEN)
    } else {
        let outer = ipv6::Outer {
            traffic_class: tos,
            flow_label: forward.hash.flow_label(),
            payload_len: forward.inner.len + (tunnel.overhead(forward.hops.count) - ipv6::LEN) as u16,
            next_header: carries,
            source: backend.source,
            destination: backend.address,
        };
        packet.write(at, &outer.emit()).then_some(at + ipv6::LEN)
    }
}

#[inline(always)]
fn write_gue<P: PacketMut>(packet: &mut P, at: usize, forward: &Forward<'_>, tunnel: Tunnel) -> bool {
    let private_len = gue::chain::private_len(tunnel.is_v4, forward.hops.count);
    let len = forward.inner.len + (UDP_AND_GUE + private_len) as u16;
    let udp = l4::emit_udp(forward.hash.source_port(), forward.backend.entry.gue_port, len);
    let gue = gue::emit(inner_protocol(forward), private_len);
    packet.write(at, &udp)
        && packet.write(at + l4::UDP_LEN, &gue)
        && (forward.hops.count == 0 || write_chain(packet, at + UDP_AND_GUE, &forward.hops, tunnel.is_v4))
}

/// Writes the private data that holds the hops, of which there is at least one.
#[inline(always)]
fn write_chain<P: PacketMut>(packet: &mut P, at: usize, hops: &Hops<'_>, is_v4: bool) -> bool {
    let first = at + gue::chain::LEN;
    let hop_len = gue::chain::hop_len(is_v4);
    packet.write(at, &gue::chain::emit(is_v4, hops.count))
        && write_hop(packet, first, hops.first, is_v4)
        && write_hop(packet, first + hop_len, hops.second, is_v4)
        && write_hop(packet, first + 2 * hop_len, hops.third, is_v4)
}

#[inline(always)]
fn write_hop<P: PacketMut>(packet: &mut P, at: usize, hop: Option<&Address>, is_v4: bool) -> bool {
    match hop {
        Some(hop) if is_v4 => packet.write(at, &hop.v4_bytes()),
        Some(hop) => packet.write(at, hop.bytes()),
        None => true,
    }
}
