use lb_common::agent::{self, Accept, Onward, OuterRewrite, Verdict};
use lb_common::checksum;
use lb_common::ecn;
use lb_common::encap;
use lb_common::memory::MemoryAgentTables;
use lb_common::packet::{Frame, FrameBuf};
use lb_common::parse;
use lb_common::reason::{AgentReason, Fate};
use lb_common::tables::Holder;
use proptest::prelude::*;

use super::support::{CHAINED, Spec, VIP4, VIP6, address, decide, fleet};

fn backend_host() -> MemoryAgentTables {
    MemoryAgentTables {
        local: ["10.8.11.2", "fd08:11::2", "10.8.12.2", "fd08:12::2"].map(address).into(),
        vips: [VIP4, VIP6].map(address).into(),
        tunnel_sources: fleet().tunnel_sources,
        gue_port: 6080_u16.to_be_bytes(),
        sockets: std::collections::BTreeMap::new(),
    }
}

fn judge(frame: &[u8]) -> Verdict {
    agent::judge(&Frame(frame), &backend_host()).verdict
}

fn refused(frame: &[u8]) -> AgentReason {
    match judge(frame) {
        Verdict::Leave(reason) => reason,
        verdict => unreachable!("accepted: {verdict:?}"),
    }
}

fn tunnel_packet(spec: &Spec) -> Vec<u8> {
    let frame = spec.frame();
    let fleet = fleet();
    let forward = decide(&fleet, &frame).forward.expect("forwarded");
    let mut packet = FrameBuf::new(&frame);
    encap::encapsulate(&mut packet, &forward).expect("there is headroom");
    packet.as_slice().to_vec()
}

/// Applies an acceptance as the program does.
fn decapsulate(frame: &[u8], accept: &Accept) -> Vec<u8> {
    let mut inner = frame[usize::from(accept.l3 + accept.strip)..].to_vec();
    inner[..2].copy_from_slice(&accept.inner.start);
    if accept.inner.is_v4 {
        inner[10..12].copy_from_slice(&accept.inner.checksum);
    }
    inner
}

fn set_outer_tos(frame: &mut [u8], outer_v6: bool, tos: u8) {
    if outer_v6 {
        frame[14] = 0x60 | tos >> 4;
        frame[15] = frame[15] & 0x0f | tos << 4;
    } else {
        frame[15] = tos;
    }
}

const SHAPES: [(u16, bool); 4] = [(8001, false), (8002, true), (8003, false), (8004, true)];

#[test]
fn what_the_load_balancer_sends_comes_out_as_it_went_in() {
    for (port, _) in SHAPES {
        for v6 in [false, true] {
            for udp in [false, true] {
                let spec = Spec { v6, udp, port, tos: 0x2e << 2 | 2, ..Spec::default() };
                let frame = tunnel_packet(&spec);
                let Verdict::Accept(accept) = judge(&frame) else { panic!("refused: {:?}", judge(&frame)) };
                let expected = if udp { AgentReason::Accepted } else { AgentReason::EndOfChainNoSocket };
                assert_eq!(accept.reason, expected, "nobody holds the connection here");
                assert_eq!(decapsulate(&frame, &accept), &spec.frame()[14..]);
            }
        }
    }
}

#[test]
fn all_sixteen_cells_of_rfc_6040_come_out_of_every_shape_with_a_sound_checksum() {
    for (port, outer_v6) in SHAPES {
        for v6 in [false, true] {
            for inner_ecn in 0..4 {
                for outer_ecn in 0..4 {
                    let dscp = 0x2e << 2;
                    let mut frame =
                        tunnel_packet(&Spec { v6, port, tos: dscp | inner_ecn, ..Spec::default() });
                    set_outer_tos(&mut frame, outer_v6, outer_ecn);
                    let judgement = agent::judge(&Frame(&frame), &backend_host());
                    assert_eq!(judgement.ecn_cell, Some(ecn::cell(inner_ecn, outer_ecn)));
                    let Some(expected) = ecn::decapsulate(inner_ecn, outer_ecn) else {
                        assert_eq!(judgement.verdict, Verdict::Leave(AgentReason::CeOverNotEct));
                        continue;
                    };
                    let Verdict::Accept(accept) = judgement.verdict else {
                        unreachable!("refused: {judgement:?}")
                    };
                    let inner = decapsulate(&frame, &accept);
                    let tos = if v6 { inner[0] << 4 | inner[1] >> 4 } else { inner[1] };
                    assert_eq!(tos, dscp | expected, "the DSCP stays the inner one");
                    if !v6 {
                        let header = inner.first_chunk::<20>().expect("an IPv4 header");
                        assert_eq!(checksum::finish(checksum::add(0, header)), 0);
                    }
                }
            }
        }
    }
}

#[test]
fn each_way_to_be_unacceptable_has_its_name() {
    let gue = tunnel_packet(&Spec { port: 8001, ..Spec::default() });
    let ipip = tunnel_packet(&Spec { port: 8003, ..Spec::default() });
    let with = |frame: &[u8], at: usize, bytes: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        refused(&frame)
    };
    assert_eq!(refused(&Spec::default().frame()), AgentReason::NotTunnel);
    assert_eq!(with(&gue, 36, &[0x17, 0xc1]), AgentReason::NotTunnel, "another UDP port");
    assert_eq!(with(&gue, 30, &[10, 8, 99, 99]), AgentReason::NotLocal);
    assert_eq!(with(&gue, 26, &[192, 0, 2, 1]), AgentReason::UntrustedSource);
    assert_eq!(with(&gue, 20, &[0x20]), AgentReason::BadOuter, "a fragment");
    assert_eq!(with(&gue, 16, &[0xff]), AgentReason::BadOuter, "longer than the frame");
    assert_eq!(with(&gue, 38, &[0, 9]), AgentReason::BadOuter, "UDP length");
    assert_eq!(with(&gue, 42, &[0x40]), AgentReason::BadGue, "version 1");
    assert_eq!(with(&gue, 42, &[0x20]), AgentReason::BadGue, "a control message");
    assert_eq!(with(&gue, 44, &[0x80]), AgentReason::BadGue, "a flag");
    assert_eq!(with(&gue, 43, &[6]), AgentReason::BadGue, "carries TCP");
    assert_eq!(with(&gue, 46, &[0x65]), AgentReason::BadInner, "version");
    assert_eq!(with(&gue, 46, &[0x44]), AgentReason::BadInner, "header length");
    assert_eq!(with(&gue, 48, &[0xff]), AgentReason::BadInner, "longer than the outer packet");
    assert_eq!(with(&gue, 62, &[198, 51, 100, 1]), AgentReason::NotOurVip);
    for source in [[127, 0, 0, 1], [224, 0, 0, 1], [0, 0, 0, 0], [203, 0, 113, 10]] {
        assert_eq!(with(&gue, 58, &source), AgentReason::BadInnerSource, "{source:?}");
        assert_eq!(with(&ipip, 46, &source), AgentReason::BadInnerSource, "{source:?}");
    }
    assert_eq!(with(&ipip, 26, &[192, 0, 2, 1]), AgentReason::UntrustedSource);
    for source in ["::1", "ff02::1", "::", VIP6] {
        let mut frame = tunnel_packet(&Spec { v6: true, port: 8003, ..Spec::default() });
        frame[42..58].copy_from_slice(address(source).bytes());
        assert_eq!(refused(&frame), AgentReason::BadInnerSource, "{source}");
    }
}

#[test]
fn a_tunnel_packet_cut_at_any_length_is_never_accepted() {
    for (port, _) in SHAPES {
        let frame = tunnel_packet(&Spec { port, ..Spec::default() });
        for len in 0..frame.len() {
            assert_ne!(refused(&frame[..len]).fate(), Fate::Carry, "cut at {len}");
        }
    }
}

proptest! {
    #[test]
    fn a_changed_byte_never_makes_the_agent_strip_beyond_the_frame(
        shape in 0_usize..4, v6: bool, position: prop::sample::Index, value: u8,
    ) {
        let mut frame = tunnel_packet(&Spec { v6, port: SHAPES[shape].0, payload: 4, ..Spec::default() });
        let at = position.index(frame.len());
        frame[at] = value;
        if let Verdict::Accept(accept) = judge(&frame) {
            prop_assert!(usize::from(accept.l3 + accept.strip) + 20 <= frame.len());
        }
    }
}

/// A host of a chain, by the second byte of its addresses.
fn chain_host(handle: u16) -> MemoryAgentTables {
    let local = [format!("10.8.{handle}.2"), format!("fd08:{handle}::2")];
    MemoryAgentTables { local: local.iter().map(|text| address(text)).collect(), ..backend_host() }
}

/// Applies a second chance as the program does.
fn send_on(frame: &[u8], onward: &Onward) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let l3 = usize::from(onward.l3);
    match agent::readdress(&Frame(&frame.clone()), onward).expect("a whole header") {
        OuterRewrite::V4(bytes) => frame[l3 + 10..l3 + 20].copy_from_slice(&bytes),
        OuterRewrite::V6(bytes) => frame[l3 + 8..l3 + 40].copy_from_slice(&bytes),
    }
    frame[usize::from(onward.index_at)] = onward.index;
    frame
}

#[test]
fn a_packet_that_nobody_holds_visits_the_whole_chain_once_and_ends_at_its_last_backend() {
    for (port, handles) in CHAINED {
        for v6 in [false, true] {
            let spec = Spec { v6, port, tos: 2, ..Spec::default() };
            let mut frame = tunnel_packet(&spec);
            for (position, handle) in handles.iter().enumerate() {
                let judgement = agent::judge(&Frame(&frame), &chain_host(*handle));
                if position == handles.len() - 1 {
                    let Verdict::Accept(accept) = judgement.verdict else { unreachable!("{judgement:?}") };
                    assert_eq!(accept.reason, AgentReason::EndOfChainNoSocket);
                    assert_eq!(decapsulate(&frame, &accept), &spec.frame()[14..]);
                    continue;
                }
                let Verdict::Onward(onward) = judgement.verdict else { unreachable!("{judgement:?}") };
                assert_eq!(onward.reason, AgentReason::SecondChanceNoSocket);
                assert_eq!(judgement.ecn_cell, None, "the outer ECN field travels on");
                frame = send_on(&frame, &onward);
                if port == 9004 {
                    let header = frame[14..].first_chunk::<20>().expect("an IPv4 header");
                    assert_eq!(
                        checksum::finish(checksum::add(0, header)),
                        0,
                        "the checksum fits the new addresses"
                    );
                    assert_eq!(frame[26..30], [10, 8, *handle as u8, 2], "from this host");
                }
            }
        }
    }
}

#[test]
fn whoever_holds_the_connection_keeps_the_packet() {
    for (port, handles) in CHAINED {
        let frame = tunnel_packet(&Spec { port, ..Spec::default() });
        let inner = Spec { port, ..Spec::default() }.frame();
        let inner = Frame(&inner);
        let network = parse::network(&inner).expect("sound");
        let key = parse::flow(&inner, &network).expect("sound").key;
        for (holder, reason) in [
            (Holder::Connection, AgentReason::AcceptedEstablished),
            (Holder::HalfOpen { sent: Some(4999) }, AgentReason::AcceptedHalfOpen),
            (Holder::TimeWait { expected: Some(5000) }, AgentReason::AcceptedTimeWait),
            (Holder::Listener { is_cookie: true }, AgentReason::AcceptedCookie),
        ] {
            let mut host = chain_host(handles[0]);
            host.sockets.insert(key, holder);
            let verdict = agent::judge(&Frame(&frame), &host).verdict;
            assert!(
                matches!(verdict, Verdict::Accept(accept) if accept.reason == reason),
                "{holder:?} {verdict:?}"
            );
        }
        for (holder, reason) in [
            (Holder::HalfOpen { sent: Some(7) }, AgentReason::SecondChanceHalfOpen),
            (Holder::TimeWait { expected: Some(999) }, AgentReason::SecondChanceTimeWait),
            (Holder::Listener { is_cookie: false }, AgentReason::SecondChanceNoSocket),
        ] {
            let mut host = chain_host(handles[0]);
            host.sockets.insert(key, holder);
            let verdict = agent::judge(&Frame(&frame), &host).verdict;
            assert!(
                matches!(verdict, Verdict::Onward(onward) if onward.reason == reason),
                "{holder:?} {verdict:?}"
            );
        }
    }
}

#[test]
fn a_syn_is_taken_by_whoever_gets_it() {
    let frame = tunnel_packet(&Spec { port: 9004, syn: true, ..Spec::default() });
    let verdict = agent::judge(&Frame(&frame), &chain_host(11)).verdict;
    assert!(matches!(verdict, Verdict::Accept(accept) if accept.reason == AgentReason::Accepted));
}

#[test]
fn chains_that_lie_are_dropped_by_name() {
    let frame = tunnel_packet(&Spec { port: 9004, ..Spec::default() });
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = frame.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        match agent::judge(&Frame(&frame), &chain_host(11)).verdict {
            Verdict::Leave(reason) => reason,
            verdict => unreachable!("{verdict:?}"),
        }
    };
    // The private data starts behind Ethernet, IPv4, UDP and the GUE header: at 46.
    assert_eq!(with(46, &[0, 1]), AgentReason::BadChain, "IPv6 hops over IPv4");
    assert_eq!(with(46, &[0, 9]), AgentReason::BadChain, "an unknown kind");
    assert_eq!(with(48, &[4]), AgentReason::BadChain, "the index is beyond the hops");
    assert_eq!(with(49, &[2]), AgentReason::BadChain, "the count contradicts the length");
    assert_eq!(with(50, &[192, 0, 2, 1]), AgentReason::UntrustedHop, "the next hop");
    assert_eq!(with(58, &[192, 0, 2, 1]), AgentReason::UntrustedHop, "a later hop");
    assert_eq!(with(54, &[10, 8, 11, 2]), AgentReason::OwnHop, "this host again");
}
