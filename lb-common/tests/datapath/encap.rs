use etherparse::{LinkExtSlice, NetSlice, SlicedPacket, TransportSlice};
use lb_common::abi::backend_flags;
use lb_common::encap;
use lb_common::packet::FrameBuf;
use lb_common::reason::Reason;

use super::support::{CHAINED, Spec, address, decide, fleet};

/// Decides and encapsulates; gives the frame before and after.
fn encapsulated(spec: &Spec) -> (Vec<u8>, Vec<u8>) {
    let frame = spec.frame();
    let fleet = fleet();
    let decision = decide(&fleet, &frame);
    assert_eq!(decision.reason, Reason::Forwarded, "{spec:?}");
    let forward = decision.forward.expect("forwarded");
    let mut packet = FrameBuf::new(&frame);
    encap::encapsulate(&mut packet, &forward).expect("there is headroom");
    (frame, packet.as_slice().to_vec())
}

struct Outer {
    tos: u8,
    ttl: u8,
    source: std::net::IpAddr,
    destination: std::net::IpAddr,
    flow_label: Option<u32>,
    udp: Option<(u16, u16, u16)>,
    inner: Vec<u8>,
}

/// Reads the outer headers with etherparse, which knows nothing of ours.
fn dissect(frame: &[u8], vlans: usize) -> Outer {
    let packet = SlicedPacket::from_ethernet(frame).expect("a sound frame");
    let tags = packet.link_exts.iter().filter(|ext| matches!(ext, LinkExtSlice::Vlan(_)));
    assert_eq!(tags.count(), vlans);
    let mut outer = network(packet.net.as_ref().expect("an IP header"));
    if let Some(TransportSlice::Udp(udp)) = packet.transport
        && udp.destination_port() == 6080
    {
        assert_eq!(udp.checksum(), 0);
        assert_eq!(usize::from(udp.length()), outer.inner.len());
        outer.udp = Some((udp.source_port(), udp.destination_port(), udp.length()));
        let gue = &udp.payload()[..4];
        let inner_version = udp.payload()[4] >> 4;
        assert_eq!(gue, [0, if inner_version == 4 { 4 } else { 41 }, 0, 0]);
        outer.inner = udp.payload()[4..].to_vec();
    }
    outer
}

fn network(header: &NetSlice<'_>) -> Outer {
    match header {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
            assert!(header.dont_fragment() && !header.more_fragments());
            Outer {
                tos: header.dcp().value() << 2 | header.ecn().value(),
                ttl: header.ttl(),
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                flow_label: None,
                udp: None,
                inner: ip.payload().payload.to_vec(),
            }
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            Outer {
                tos: header.traffic_class(),
                ttl: header.hop_limit(),
                source: header.source_addr().into(),
                destination: header.destination_addr().into(),
                flow_label: Some(header.flow_label().value()),
                udp: None,
                inner: ip.payload().payload.to_vec(),
            }
        }
        NetSlice::Arp(arp) => unreachable!("not IP: {arp:?}"),
    }
}

#[test]
fn the_packet_travels_unchanged_inside_a_sound_tunnel_in_all_shapes() {
    for (port, is_gue, outer_v6, overhead) in
        [(8001, true, false, 32), (8002, true, true, 52), (8003, false, false, 20), (8004, false, true, 40)]
    {
        for v6 in [false, true] {
            for udp in [false, true] {
                for vlans in 0..=2 {
                    let spec =
                        Spec { v6, udp, port, vlans, tos: 0xb9, flow_label: 0x12345, ..Spec::default() };
                    let (before, after) = encapsulated(&spec);
                    assert_eq!(after.len(), before.len() + overhead);
                    let l3 = 14 + 4 * vlans;
                    assert_eq!(&after[..12], &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2], "next hop, then us");
                    assert_eq!(&after[12..l3 - 2], &before[12..l3 - 2], "tags are kept");
                    let outer = dissect(&after, vlans);
                    assert_eq!(outer.inner, &before[l3..]);
                    assert_eq!((outer.tos, outer.ttl), (0xb9, 64));
                    assert_eq!((outer.source.is_ipv6(), outer.destination.is_ipv6()), (outer_v6, outer_v6));
                    assert_eq!(outer.udp.is_some(), is_gue);
                }
            }
        }
    }
}

#[test]
fn outer_ecn_and_dscp_are_the_inner_ones_for_all_256_values() {
    for port in 8001..=8004 {
        for v6 in [false, true] {
            for tos in 0..=255 {
                let (_, after) = encapsulated(&Spec { v6, port, tos, ..Spec::default() });
                assert_eq!(dissect(&after, 0).tos, tos);
            }
        }
    }
}

#[test]
fn entropy_is_of_the_flow_and_not_of_the_packet() {
    let mut ports = std::collections::BTreeSet::new();
    let mut labels = std::collections::BTreeSet::new();
    for source_port in 1000..1100 {
        let plain = Spec { port: 8002, source_port, ..Spec::default() };
        let varied = Spec { tos: 2, ttl: 9, payload: 333, vlans: 1, ..plain.clone() };
        let (one, other) = (dissect(&encapsulated(&plain).1, 0), dissect(&encapsulated(&varied).1, 1));
        let (udp, udp_varied) = (one.udp.expect("GUE"), other.udp.expect("GUE"));
        assert_eq!((udp.0, one.flow_label), (udp_varied.0, other.flow_label));
        assert!(udp.0 >= 49152);
        ports.insert(udp.0);
        labels.insert(one.flow_label);
    }
    assert!(
        ports.len() > 90 && labels.len() > 90,
        "{} ports, {} labels of 100 flows",
        ports.len(),
        labels.len()
    );
}

#[test]
fn the_rest_of_the_chain_travels_in_the_published_layout_and_only_with_packets_that_may_need_it() {
    for (port, handles) in CHAINED {
        let is_v4 = port == 9004;
        let (_, after) = encapsulated(&Spec { port, ..Spec::default() });
        // Behind Ethernet, IP, UDP and the four bytes of GUE.
        let at = 14 + if is_v4 { 20 } else { 40 } + 8 + 4;
        let hop_len = if is_v4 { 4 } else { 16 };
        assert_eq!(after[at - 4] & 0x1f, (4 + 3 * hop_len as u8) / 4, "GUE header length, in words");
        assert_eq!(after[at..at + 4], [0, u8::from(!is_v4), 0, 3], "type, next hop, count");
        for (n, handle) in handles[1..].iter().enumerate() {
            let hop = &after[at + 4 + n * hop_len..][..hop_len];
            let text = if is_v4 { format!("10.8.{handle}.2") } else { format!("fd08:{handle}::2") };
            let expected = address(&text);
            assert_eq!(hop, &expected.bytes()[16 - hop_len..], "hop {n}");
        }
        let (before, syn) = encapsulated(&Spec { port, syn: true, ..Spec::default() });
        assert_eq!(syn.len(), before.len() + if is_v4 { 32 } else { 52 }, "a SYN carries no chain");
        let (before, udp) = encapsulated(&Spec { port, udp: true, ..Spec::default() });
        assert_eq!(udp.len(), before.len() + if is_v4 { 32 } else { 52 }, "a datagram carries no chain");
    }
}

#[test]
fn members_in_maintenance_and_dead_ones_are_no_hops_and_draining_ones_are() {
    let mut fleet = fleet();
    let frame = Spec { port: 9004, ..Spec::default() }.frame();
    let hops = |fleet: &lb_common::memory::MemoryTables| {
        let forward = decide(fleet, &frame).forward.expect("forwarded");
        let hops = [forward.hops.first, forward.hops.second, forward.hops.third];
        (forward.backend.handle, hops.into_iter().flatten().map(|hop| hop.v4_bytes()[2]).collect::<Vec<_>>())
    };
    assert_eq!(hops(&fleet), (11, vec![12, 13, 14]));
    let mut set = |handle: u16, on: u32, off: u32| {
        let entry = fleet.backends.get_mut(&handle).expect("in the fleet");
        entry.flags = (entry.flags | on) & !off;
    };
    set(11, 0, backend_flags::READY);
    set(12, backend_flags::MAINT, backend_flags::READY);
    set(14, backend_flags::DEAD, backend_flags::HEALTHY);
    assert_eq!(hops(&fleet), (13, vec![11]), "the first that takes new flows, then the draining owner");
}
