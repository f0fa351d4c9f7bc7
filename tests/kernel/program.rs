//! What the loaded load balancer sends, read by etherparse.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_common::reason::Reason;

use crate::craft::{self, Random, VIP4, VIP6};
use crate::loaded::Lb;

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;

/// The outer facts of an encapsulated frame.
struct Sent {
    tos: u8,
    entropy: Option<u32>,
    destination: std::net::IpAddr,
}

/// Reads a sent frame and holds every length and checksum against its neighbours.
fn read(frame: &[u8], original: &[u8]) -> Sent {
    let packet = SlicedPacket::from_ethernet(frame).expect("a sound frame");
    let inner = &original[14..];
    let (tos, label, destination, payload) = match packet.net.expect("an IP header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum(), "IPv4 checksum");
            assert_eq!(usize::from(header.total_len()), frame.len() - 14);
            assert!(header.dont_fragment());
            assert_eq!(header.ttl(), 64);
            let tos = header.dcp().value() << 2 | header.ecn().value();
            (tos, None, header.destination_addr().into(), ip.payload().payload)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(usize::from(header.payload_length()), frame.len() - 54);
            assert_eq!(header.hop_limit(), 64);
            (
                header.traffic_class(),
                Some(header.flow_label().value()),
                header.destination_addr().into(),
                ip.payload().payload,
            )
        }
        other => unreachable!("not IP: {other:?}"),
    };
    match packet.transport {
        Some(TransportSlice::Udp(udp)) if udp.destination_port() == 6080 => {
            let private_len = usize::from(udp.payload()[0] & 0x1f) * 4;
            assert_eq!(usize::from(udp.length()), inner.len() + 12 + private_len);
            assert!(udp.source_port() >= 49152);
            assert_eq!(&udp.payload()[4 + private_len..], inner, "the packet inside");
            Sent { tos, entropy: Some(u32::from(udp.source_port())), destination }
        }
        _ => {
            assert_eq!(payload, inner, "the packet inside");
            Sent { tos, entropy: label, destination }
        }
    }
}

fn tcp_frame(v6: bool, source_port: u16, tos: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8];
    let segment =
        [&source_port.to_be_bytes()[..], &[0, 80], &[0; 8], &[0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0], &[7; 60]]
            .concat();
    if v6 {
        frame.extend([0x86, 0xdd, 0x60 | tos >> 4, tos << 4, 0, 0, 0, 80, 6, 64]);
        frame.extend(craft::address("2001:db8:7::7").bytes());
        frame.extend(craft::address(VIP6).bytes());
    } else {
        frame.extend([0x08, 0x00, 0x45, tos, 0, 100, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(craft::address("198.51.100.7").v4_bytes());
        frame.extend(craft::address(VIP4).v4_bytes());
    }
    frame.extend(segment);
    frame
}

#[test]
fn a_flow_keeps_its_backend_and_its_entropy_for_all_256_tos_values_and_ecn_is_copied() {
    let mut lb = Lb::load(&craft::fleet());
    let mut reached = std::collections::BTreeSet::new();
    for v6 in [false, true] {
        for source_port in 2000..2032 {
            let original = tcp_frame(v6, source_port, 0);
            let first = lb.run(&original);
            if first.action != XDP_TX && first.action != XDP_REDIRECT {
                continue;
            }
            let first = read(&first.frame, &original);
            reached.insert(first.destination);
            for tos in 0..=255 {
                let original = tcp_frame(v6, source_port, tos);
                let sent = read(&lb.run(&original).frame, &original);
                assert_eq!(sent.destination, first.destination, "tos {tos:#x}");
                assert_eq!(sent.entropy, first.entropy, "tos {tos:#x}");
                assert_eq!(sent.tos, tos, "RFC 6040: the outer ECN field is the inner one");
            }
        }
    }
    assert!(reached.len() >= 4, "all four shapes of tunnel: {reached:?}");
}

#[test]
fn what_is_not_for_a_vip_comes_out_byte_for_byte() {
    let mut lb = Lb::load(&craft::fleet());
    let mut random = Random(7);
    for _ in 0..2000 {
        let mut frame = craft::frame(&mut random);
        let l3 = frame.len().min(64);
        // Another destination, whatever else the packet is.
        for at in 14..l3 {
            if frame[at..].starts_with(&[203, 0, 113, 10]) {
                frame[at..at + 4].copy_from_slice(&[198, 51, 100, 99]);
            } else if frame[at..].starts_with(craft::address(VIP6).bytes()) {
                frame[at] = 0x3f;
            }
        }
        let outcome = lb.run(&frame);
        assert_eq!(outcome.action, XDP_PASS);
        assert_eq!(outcome.frame, frame);
    }
    let passed: u64 = [Reason::NotVip, Reason::NotIp].iter().map(|reason| lb.counts()[reason]).sum();
    assert_eq!(passed, 2000);
}

#[test]
fn the_program_stays_far_below_the_verifier_limit() {
    let mut lb = Lb::load(&craft::fleet());
    let info = lb.program().info().expect("the kernel describes the program");
    let verified = info.verified_instruction_count().expect("kernel 5.16 and newer count");
    // The limit is one million; the rest is room for what later versions add.
    assert!(verified < 250_000, "{verified} instructions were walked");
}
