//! What the loaded agent program hands to the stack.

use etherparse::{NetSlice, SlicedPacket};
use lb_common::ecn;
use lb_common::reason::AgentReason;

use crate::craft;
use crate::loaded::Agent;

/// The inner packet: TCP to a VIP with a correct checksum, by etherparse.
fn inner(v6: bool, tos: u8) -> Vec<u8> {
    let payload = [9; 40];
    let mut packet = Vec::new();
    if v6 {
        let builder = etherparse::PacketBuilder::ipv6(
            craft::address("2001:db8:7::7").bytes().to_owned(),
            craft::address(craft::VIP6).bytes().to_owned(),
            64,
        );
        builder.tcp(40000, 80, 1, 100).ack(1).write(&mut packet, &payload).expect("a vector");
        packet[0] = 0x60 | tos >> 4;
        packet[1] = tos << 4;
    } else {
        let builder = etherparse::PacketBuilder::ipv4(
            craft::address("198.51.100.7").v4_bytes(),
            craft::address(craft::VIP4).v4_bytes(),
            64,
        );
        builder.tcp(40000, 80, 1, 100).ack(1).write(&mut packet, &payload).expect("a vector");
        let mut header = etherparse::Ipv4Header::from_slice(&packet).expect("just written").0;
        header.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("six bits");
        header.ecn = etherparse::IpEcn::try_new(tos & 3).expect("two bits");
        header.header_checksum = header.calc_header_checksum();
        packet[..20].copy_from_slice(&header.to_bytes());
    }
    packet
}

/// A tunnel around it, built here byte by byte and not by the code under test.
fn tunnel(outer_v6: bool, is_gue: bool, outer_tos: u8, inner: &[u8]) -> Vec<u8> {
    let protocol = if inner[0] >> 4 == 4 { 4 } else { 41 };
    let mut payload = Vec::new();
    if is_gue {
        payload.extend([0xc0, 0x01, 0x17, 0xc0]);
        payload.extend(((inner.len() + 12) as u16).to_be_bytes());
        payload.extend([0, 0, 0, protocol, 0, 0]);
    }
    payload.extend(inner);
    let carried = if is_gue { 17 } else { protocol };
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8];
    if outer_v6 {
        frame.extend([0x86, 0xdd, 0x60 | outer_tos >> 4, outer_tos << 4, 0, 0]);
        frame.extend((payload.len() as u16).to_be_bytes());
        frame.extend([carried, 64]);
        frame.extend(craft::address("fd08:1::2").bytes());
        frame.extend(craft::address("fd08:11::2").bytes());
    } else {
        frame.extend([0x08, 0x00, 0x45, outer_tos]);
        frame.extend(((payload.len() + 20) as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, carried, 0, 0]);
        frame.extend(craft::address("10.8.1.2").v4_bytes());
        frame.extend(craft::address("10.8.11.2").v4_bytes());
    }
    frame.extend(payload);
    frame
}

#[test]
fn all_sixteen_ecn_cells_of_all_eight_tunnels_come_out_sound() {
    let mut agent = Agent::load(&craft::backend_host());
    let dscp = 0x12 << 2;
    for outer_v6 in [false, true] {
        for is_gue in [false, true] {
            for v6 in [false, true] {
                for (inner_ecn, outer_ecn) in (0..16).map(|cell| (cell / 4, cell % 4)) {
                    let packet = inner(v6, dscp | inner_ecn);
                    let outcome = agent.run(&tunnel(outer_v6, is_gue, outer_ecn, &packet));
                    let Some(codepoint) = ecn::decapsulate(inner_ecn, outer_ecn) else {
                        assert_eq!(outcome.action, 2, "TC_ACT_SHOT");
                        continue;
                    };
                    assert_eq!(outcome.action, u32::MAX, "TCX_NEXT");
                    let expected = inner(v6, dscp | codepoint);
                    assert_eq!(&outcome.frame[14..], expected, "inner {inner_ecn} outer {outer_ecn}");
                    let slices = SlicedPacket::from_ethernet(&outcome.frame)
                        .expect("the link header names the family");
                    assert_eq!(matches!(slices.net, Some(NetSlice::Ipv6(_))), v6);
                }
            }
        }
    }
    assert_eq!(agent.counts()[&AgentReason::CeOverNotEct], 8, "one cell of each tunnel");
    for (inner_ecn, outer_ecn) in (0..16).map(|cell| (cell / 4, cell % 4)) {
        assert_eq!(agent.ecn_cell(ecn::cell(inner_ecn, outer_ecn)), 8, "each cell once for each tunnel");
    }
}

#[test]
fn ordinary_traffic_of_the_backend_comes_out_byte_for_byte() {
    let mut agent = Agent::load(&craft::backend_host());
    for v6 in [false, true] {
        let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8];
        frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
        frame.extend(inner(v6, 0xff));
        let outcome = agent.run(&frame);
        assert_eq!((outcome.action, outcome.frame), (u32::MAX, frame));
    }
    assert_eq!(agent.counts()[&AgentReason::NotTunnel], 2);
}
