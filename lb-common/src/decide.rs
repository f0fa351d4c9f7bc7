//! The load balancer's whole decision, composed: packet -> parse -> VIP -> row -> chain -> backend.
//!
//! Nothing here changes the packet or a table; [`crate::encap`] carries the decision out.

use crate::{
    abi::{NextHop, VipEntry, VipKey},
    chain::{self, Chosen, Hops, Kind},
    encap::Tunnel,
    flow::{FlowHash, FlowKey},
    packet::Packet,
    parse::{self, Flow},
    reason::Reason,
    tables::Tables,
    wire::protocol,
};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'t> {
    /// The way out.
    pub reason: Reason,
    /// Index of the VIP's counter, once a service was found.
    pub vip: Option<u32>,
    /// Where to, for [`Reason::Forwarded`] and for no other.
    pub forward: Option<Forward<'t>>,
}

/// Everything that sending needs.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'t> {
    /// The backend and its handle.
    pub backend: Chosen<'t>,
    /// The others of its chain, for a second chance.
    pub hops: Hops<'t>,
    /// The way to it.
    pub next_hop: &'t NextHop,
    /// Offset of the network header.
    pub l3: usize,
    /// The packet's own facts.
    pub inner: Inner,
    /// Hash of the flow.
    pub hash: FlowHash,
}

/// What the outer headers take from the packet.
#[derive(Clone, Copy, Debug)]
pub struct Inner {
    /// Bytes of the IP packet.
    pub len: u16,
    /// DSCP and ECN.
    pub tos: u8,
    /// Whether it is IPv4.
    pub is_v4: bool,
}

impl Decision<'_> {
    #[inline(always)]
    const fn leave(reason: Reason) -> Self {
        Self { reason, vip: None, forward: None }
    }
}

/// Decides about a packet.
#[inline(always)]
pub fn decide<'t, P: Packet, T: Tables>(packet: &P, tables: &'t T) -> Decision<'t> {
    let network = match parse::network(packet) {
        Ok(network) => network,
        Err(reason) => return Decision::leave(reason),
    };
    if network.is_mapped() || !tables.is_vip_address(&network.destination()) {
        return Decision::leave(Reason::NotVip);
    }
    // A backend that lacks the VIP but forwards would make this packet circle, and test healthy meanwhile.
    if tables.is_tunnel_source(&network.source()) {
        return Decision::leave(Reason::Looped);
    }
    let flow = match parse::flow(packet, &network) {
        Ok(flow) => flow,
        Err(reason) => return Decision::leave(reason),
    };
    let Some(vip) = find_service(&flow.key, tables) else {
        return Decision::leave(Reason::NoService);
    };
    match route(&flow, vip, network.l3, tables) {
        Ok(forward) => Decision { reason: Reason::Forwarded, vip: Some(vip.vip), forward: Some(forward) },
        Err(reason) => Decision { reason, vip: Some(vip.vip), forward: None },
    }
}

/// The VIP with the exact port, else the one for every port.
#[inline(always)]
pub fn find_service<'t, T: Tables>(key: &FlowKey, tables: &'t T) -> Option<&'t VipEntry> {
    let exact = VipKey::new(key.destination, key.destination_port, key.protocol);
    match tables.vip(&exact) {
        Some(vip) => Some(vip),
        None => tables.vip(&VipKey { port: [0, 0], ..exact }),
    }
}

#[inline(always)]
fn route<'t, T: Tables>(
    flow: &Flow,
    vip: &VipEntry,
    l3: usize,
    tables: &'t T,
) -> Result<Forward<'t>, Reason> {
    let hash = flow.key.hash(vip.seed);
    let chain = tables.chain(vip.table, hash.row(vip.rows_log2)).ok_or(Reason::NoTable)?;
    let choice = chain::choose(chain, kind_of(flow), tables)?;
    let backend = choice.chosen;
    let next_hop = tables.next_hop(backend.entry.next_hop).ok_or(Reason::NoNeighbour)?;
    if !next_hop.is_usable() {
        return Err(Reason::NoNeighbour);
    }
    let overhead = Tunnel::of(backend.entry).overhead(choice.hops.count);
    if u32::from(flow.len) + overhead as u32 > next_hop.mtu.min(u32::from(u16::MAX)) {
        return Err(if flow.may_fragment { Reason::TooBigNoDf } else { Reason::TooBig });
    }
    let inner = Inner { len: flow.len, tos: flow.tos, is_v4: flow.is_v4 };
    Ok(Forward { backend, hops: choice.hops, next_hop, l3, inner, hash })
}

#[inline(always)]
fn kind_of(flow: &Flow) -> Kind {
    match (flow.key.protocol, flow.opens) {
        (protocol::TCP, false) => Kind::Continues,
        (protocol::TCP, true) => Kind::Opens,
        _ => Kind::Connectionless,
    }
}
