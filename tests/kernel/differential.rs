//! One decision function, two worlds: the loaded program and the host build must agree on every packet.

use std::collections::BTreeMap;

use lb_common::agent::{self, Accept, Onward, OuterRewrite, Verdict};
use lb_common::decide;
use lb_common::encap;
use lb_common::memory::{MemoryAgentTables, MemoryTables};
use lb_common::packet::{Frame, FrameBuf};
use lb_common::reason::{AgentReason, Fate, Reason};
use xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};

use crate::craft::{self, INGRESS, Random};
use crate::loaded::{Agent, Lb};

mod xdp_action {
    //! Values of `enum xdp_action` in the kernel's uapi/linux/bpf.h.
    pub(super) const XDP_DROP: u32 = 1;
    pub(super) const XDP_PASS: u32 = 2;
    pub(super) const XDP_TX: u32 = 3;
    pub(super) const XDP_REDIRECT: u32 = 4;
}

const PACKETS: u64 = 20_000;

/// What the host says that the program does.
fn expected(tables: &MemoryTables, frame: &[u8]) -> (Reason, u32, Vec<u8>) {
    let decision = decide::decide(&Frame(frame), tables);
    let Some(forward) = decision.forward else {
        let action = if decision.reason.fate() == Fate::Pass { XDP_PASS } else { XDP_DROP };
        return (decision.reason, action, frame.to_vec());
    };
    let mut packet = FrameBuf::new(frame);
    encap::encapsulate(&mut packet, &forward).expect("256 bytes of headroom are enough");
    let action = if forward.next_hop.ifindex == INGRESS { XDP_TX } else { XDP_REDIRECT };
    (decision.reason, action, packet.as_slice().to_vec())
}

#[test]
fn the_load_balancer_in_the_kernel_agrees_with_the_host_on_generated_packets() {
    let tables = craft::fleet();
    let mut lb = Lb::load(&tables);
    let mut random = Random(2026);
    let mut reasons: BTreeMap<Reason, u64> = Reason::ALL.iter().map(|reason| (*reason, 0)).collect();
    for n in 0..PACKETS {
        let mut frame = craft::frame(&mut random);
        if n % 2 == 1 {
            craft::damage(&mut frame, &mut random);
        }
        let (reason, action, bytes) = expected(&tables, &frame);
        let outcome = lb.run(&frame);
        assert_eq!(outcome.action, action, "packet {n}: {reason:?}\n{frame:02x?}");
        assert_eq!(outcome.frame, bytes, "packet {n}: {reason:?}\n{frame:02x?}");
        *reasons.entry(reason).or_default() += 1;
    }
    assert_eq!(lb.counts(), reasons, "the counters of the program");
    assert_eq!(reasons.values().sum::<u64>(), PACKETS, "every packet has exactly one reason");
    // A generator that misses a way out proves nothing about it.
    let unreachable_here = [Reason::NoHeadroom];
    let missed: Vec<_> =
        reasons.iter().filter(|(reason, count)| **count == 0 && !unreachable_here.contains(reason)).collect();
    assert!(missed.is_empty(), "the generated packets never took {missed:?}");
}

/// What the host says that the agent does: the way out, the action, the frame that goes on.
fn expected_of_agent(tables: &MemoryAgentTables, frame: &[u8]) -> (AgentReason, u32, Vec<u8>) {
    const NEXT: u32 = u32::MAX;
    const SHOT: u32 = 2;
    const REDIRECT: u32 = 7;
    match agent::judge(&Frame(frame), tables).verdict {
        Verdict::Leave(reason) => {
            let action = if reason.fate() == Fate::Pass { NEXT } else { SHOT };
            (reason, action, frame.to_vec())
        }
        Verdict::Accept(accept) => (accept.reason, NEXT, decapsulated(frame, &accept)),
        Verdict::Onward(onward) => (onward.reason, REDIRECT, sent_on(frame, &onward)),
    }
}

fn decapsulated(frame: &[u8], accept: &Accept) -> Vec<u8> {
    let l3 = usize::from(accept.l3);
    let mut inner = frame[..l3].to_vec();
    inner.extend(&frame[l3 + usize::from(accept.strip)..]);
    let ethertype = if accept.inner.is_v4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    inner[l3 - 2..l3].copy_from_slice(&ethertype);
    inner[l3..l3 + 2].copy_from_slice(&accept.inner.start);
    if accept.inner.is_v4 {
        inner[l3 + 10..l3 + 12].copy_from_slice(&accept.inner.checksum);
    }
    inner
}

fn sent_on(frame: &[u8], onward: &Onward) -> Vec<u8> {
    let l3 = usize::from(onward.l3);
    let mut sent = frame.to_vec();
    match agent::readdress(&Frame(frame), onward).expect("the header was read before") {
        OuterRewrite::V4(bytes) => sent[l3 + 10..l3 + 20].copy_from_slice(&bytes),
        OuterRewrite::V6(bytes) => sent[l3 + 8..l3 + 40].copy_from_slice(&bytes),
    }
    sent[usize::from(onward.index_at)] = onward.index;
    sent
}

/// A tunnel packet made by the host build, its outer ECN as a congested router may leave it.
fn tunnel_frame(tables: &MemoryTables, random: &mut Random) -> Vec<u8> {
    loop {
        let frame = craft::frame(random);
        // The kernel takes VLAN tags off before TC, so the agent never sees one in the frame.
        let (Reason::Forwarded, _, mut frame) = expected(tables, &frame) else {
            continue;
        };
        if frame[12..14] == [0x81, 0x00] {
            continue;
        }
        let tos = random.one_of(&[0_u8, 1, 2, 3]);
        if frame[12] == 0x08 {
            frame[15] = frame[15] & !3 | tos;
        } else {
            frame[15] = frame[15] & !0x30 | tos << 4;
        }
        // Some chains name the host that judges them: their first hop is behind IPv4, UDP, GUE and the chain's head.
        const FIRST_HOP: usize = 14 + 20 + 8 + 4 + 4;
        let has_chain = frame[12] == 0x08 && frame[23] == 17 && frame[42] > 0;
        if has_chain && random.below(10) == 0 {
            frame[FIRST_HOP..FIRST_HOP + 4].copy_from_slice(&[10, 8, 11, 2]);
        }
        return frame;
    }
}

/// Whether TC ever sees such a frame: the kernel takes a VLAN tag off before, and its test-run refuses IP without a
/// whole header as the receive path does.
fn reaches_tc(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x81, 0x00] | [0x88, 0xa8] => false,
        [0x08, 0x00] => frame.len() >= 14 + 20,
        [0x86, 0xdd] => frame.len() >= 14 + 40,
        _ => frame.len() > 14,
    }
}

#[test]
fn the_agent_in_the_kernel_agrees_with_the_host_on_generated_packets() {
    let (fleet, host) = (craft::fleet(), craft::backend_host());
    let mut agent = Agent::load(&host);
    let mut random = Random(6040);
    let mut reasons: BTreeMap<AgentReason, u64> =
        AgentReason::ALL.iter().map(|reason| (*reason, 0)).collect();
    for n in 0..PACKETS {
        let mut frame =
            if n % 8 == 7 { craft::frame(&mut random) } else { tunnel_frame(&fleet, &mut random) };
        if n % 2 == 1 {
            craft::damage(&mut frame, &mut random);
        }
        if !reaches_tc(&frame) {
            frame[12..14].copy_from_slice(&[0x08, 0x06]);
            frame.resize(frame.len().max(15), 0);
        }
        let (reason, action, bytes) = expected_of_agent(&host, &frame);
        let outcome = agent.run(&frame);
        assert_eq!(outcome.action, action, "packet {n}: {reason:?}\n{frame:02x?}");
        assert_eq!(outcome.frame, bytes, "packet {n}: {reason:?}\n{frame:02x?}");
        *reasons.entry(reason).or_default() += 1;
    }
    assert_eq!(agent.counts(), reasons, "the counters of the program");
    // No socket listens where the test runs, and the kernel refuses none of these packets.
    let unreachable_here = [
        AgentReason::DecapFailed,
        AgentReason::RewriteFailed,
        AgentReason::AcceptedEstablished,
        AgentReason::AcceptedHalfOpen,
        AgentReason::AcceptedTimeWait,
        AgentReason::AcceptedCookie,
        AgentReason::SecondChanceHalfOpen,
        AgentReason::SecondChanceTimeWait,
        AgentReason::EndOfChainHalfOpen,
    ];
    let missed: Vec<_> =
        reasons.iter().filter(|(reason, count)| **count == 0 && !unreachable_here.contains(reason)).collect();
    assert!(missed.is_empty(), "the generated packets never took {missed:?}");
}
