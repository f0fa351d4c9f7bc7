//! The backend agent's verdict: is this tunnel packet acceptable, whose is it, and what comes out of it.
//!
//! ```text
//! tunnel packet -> acceptable? -> a socket here? -> yes: merge ECN, decapsulate
//!                                                -> no, hops left: to the next backend of the chain
//!                                                -> no, no hops: decapsulate; the local stack resets it
//! ```

mod chance;
mod inner;
mod tunnel;

use self::chance::Chance;
pub use self::{
    inner::InnerHead,
    tunnel::{Tunnel, open},
};
use crate::{
    address::Address,
    checksum, ecn,
    packet::Packet,
    reason::AgentReason,
    tables::{AgentTables, Sockets},
    wire::ipv4,
};

/// What becomes of a packet on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Cell of RFC 6040's table to count, once both codepoints were held against each other.
    pub ecn_cell: Option<u32>,
}

/// The ways that a packet can go on a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it alone, or end it, as [`AgentReason::fate`] says.
    Leave(AgentReason),
    /// Remove the outer headers and give the inner packet to the local stack.
    Accept(Accept),
    /// Send it to the next backend of its chain.
    Onward(Onward),
}

/// How to decapsulate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    /// The way out.
    pub reason: AgentReason,
    /// Offset of the outer IP header.
    pub l3: u16,
    /// Bytes of outer headers.
    pub strip: u16,
    /// What the inner header needs after the ECN field was merged.
    pub inner: InnerHead,
}

/// How to give a packet its second chance: some bytes of the outer headers change, nothing else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onward {
    /// The way out.
    pub reason: AgentReason,
    /// Offset of the outer IP header.
    pub l3: u16,
    /// Offset of the index of the next hop.
    pub index_at: u16,
    /// The new value of that index.
    pub index: u8,
    /// The next backend.
    pub hop: Address,
}

/// The bytes of an outer header that change with its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterRewrite {
    /// IPv4: from offset 10 of the header: checksum, source, destination.
    V4([u8; 10]),
    /// IPv6: from offset 8 of the header: source, destination.
    V6([u8; 32]),
}

/// Judges a packet that arrived on a backend's uplink: [`open`], then [`weigh`].
///
/// The program calls the two itself: each has a stack of its own then.
#[inline(always)]
pub fn judge<P: Packet, T: AgentTables + Sockets>(packet: &P, tables: &T) -> Judgement {
    match open(packet, tables) {
        Ok(tunnel) => weigh(packet, &tunnel, tables),
        Err(reason) => Judgement::leave(reason),
    }
}

/// Judges what an acceptable tunnel packet carries.
#[inline(always)]
pub fn weigh<P: Packet, T: AgentTables + Sockets>(packet: &P, tunnel: &Tunnel, tables: &T) -> Judgement {
    let inner = match inner::read(packet, tunnel, tables) {
        Ok(inner) => inner,
        Err(reason) => return Judgement::leave(reason),
    };
    match chance::of(&inner, tunnel, tables) {
        Chance::Accept(reason) => accept(&inner, tunnel, reason),
        // RFC 6040 has nothing to merge here: the outer ECN field travels on as it arrived.
        Chance::Onward(reason, hop) => Judgement {
            verdict: Verdict::Onward(Onward {
                reason,
                l3: tunnel.l3,
                index_at: tunnel.index_at,
                index: tunnel.next + 1,
                hop,
            }),
            ecn_cell: None,
        },
    }
}

impl Judgement {
    /// To leave a packet alone, or to end it.
    #[inline(always)]
    pub const fn leave(reason: AgentReason) -> Self {
        Self { verdict: Verdict::Leave(reason), ecn_cell: None }
    }
}

#[inline(always)]
fn accept(inner: &inner::Inner, tunnel: &Tunnel, reason: AgentReason) -> Judgement {
    let (from, over) = (inner.head.tos, tunnel.tos);
    let verdict = match ecn::decapsulate(from, over) {
        // The DSCP stays the inner one (RFC 2983 section 3, the pipe model).
        Some(codepoint) => Verdict::Accept(Accept {
            reason,
            l3: tunnel.l3,
            strip: tunnel.inner_at - tunnel.l3,
            inner: inner.head.with_tos((from & !ecn::MASK) | codepoint),
        }),
        None => Verdict::Leave(AgentReason::CeOverNotEct),
    };
    Judgement { verdict, ecn_cell: Some(ecn::cell(from, over)) }
}

/// The outer addresses of a packet that goes on: from this host, where it was sent to, to the next hop.
#[inline(always)]
pub fn readdress<P: Packet>(packet: &P, onward: &Onward) -> Option<OuterRewrite> {
    let l3 = usize::from(onward.l3);
    if onward.hop.is_v4() {
        let header = ipv4::Header(packet.bytes(l3)?);
        Some(OuterRewrite::V4(readdress_v4(&header, onward.hop)))
    } else {
        let this_host = packet.bytes::<16>(l3 + 24)?;
        let mut addresses = [0; 32];
        addresses[..16].copy_from_slice(this_host);
        addresses[16..].copy_from_slice(onward.hop.bytes());
        Some(OuterRewrite::V6(addresses))
    }
}

/// Checksum, source and destination of a header whose destination becomes its source.
#[inline(always)]
fn readdress_v4(header: &ipv4::Header<'_>, destination: Address) -> [u8; 10] {
    // The old destination stays in the sum, as source; the old source leaves it, and the hop enters.
    let old = header.source().v4_bytes();
    let new = destination.v4_bytes();
    let word = |bytes: &[u8; 4], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let sum = checksum::update(header.checksum(), word(&old, 0), word(&new, 0));
    let sum = checksum::update(sum, word(&old, 2), word(&new, 2));
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&sum.to_be_bytes());
    bytes[2..6].copy_from_slice(&header.destination().v4_bytes());
    bytes[6..].copy_from_slice(&new);
    bytes
}
