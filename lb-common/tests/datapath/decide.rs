use lb_common::abi::{Chain, backend_flags, next_hop_flags};
use lb_common::memory::MemoryTables;
use lb_common::reason::{Fate, Reason};
use proptest::prelude::*;

use super::support::{BACKENDS, Spec, address, decide, fleet, reason};

/// The backend that a frame goes to first.
fn handle_of(fleet: &MemoryTables, frame: &[u8]) -> u16 {
    decide(fleet, frame).forward.expect("forwarded").backend.handle
}

fn backend(spec: &Spec) -> u16 {
    let fleet = fleet();
    let decision = decide(&fleet, &spec.frame());
    assert_eq!(decision.reason, Reason::Forwarded, "{spec:?}");
    decision.forward.expect("a forwarded packet has a backend").backend.handle
}

#[test]
fn all_256_tos_values_of_a_flow_choose_one_backend() {
    for v6 in [false, true] {
        for udp in [false, true] {
            for source_port in 40000..40016 {
                let plain = Spec { v6, udp, source_port, ..Spec::default() };
                let chosen = backend(&plain);
                for tos in 0..=255 {
                    assert_eq!(backend(&Spec { tos, ..plain.clone() }), chosen, "tos {tos:#x}");
                }
            }
        }
    }
}

#[test]
fn different_source_ports_reach_every_backend() {
    let reached: std::collections::BTreeSet<u16> =
        (0..200).map(|n| backend(&Spec { source_port: 1024 + n, ..Spec::default() })).collect();
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), BACKENDS);
}

proptest! {
    #[test]
    fn nothing_but_the_five_tuple_chooses_the_backend(
        v6: bool,
        udp: bool,
        source_port: u16,
        tos: u8,
        ttl: u8,
        flow_label in 0_u32..1 << 20,
        vlans in 0_usize..=2,
        payload in 0_usize..500,
        syn: bool,
    ) {
        let plain = Spec { v6, udp, source_port, ..Spec::default() };
        let varied = Spec { tos, ttl, flow_label, vlans, payload, syn, ..plain.clone() };
        prop_assert_eq!(backend(&varied), backend(&plain));
    }

    #[test]
    fn random_bytes_never_panic_and_are_forwarded_only_with_a_backend(mut frame: Vec<u8>, v6: bool) {
        // Half of the time the bytes claim to be IP, or almost all of them would leave as `not_ip`.
        if frame.len() > 14 {
            let ethertype: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
            frame[12..14].copy_from_slice(&ethertype);
        }
        let fleet = fleet();
        let decision = decide(&fleet, &frame);
        prop_assert_eq!(decision.reason == Reason::Forwarded, decision.forward.is_some());
    }

    #[test]
    fn a_changed_byte_never_forwards_beyond_the_frame(
        v6: bool, udp: bool, vlans in 0_usize..=2, position: prop::sample::Index, value: u8,
    ) {
        let mut frame = Spec { v6, udp, vlans, payload: 0, ..Spec::default() }.frame();
        let at = position.index(frame.len());
        frame[at] = value;
        let fleet = fleet();
        if let Some(forward) = decide(&fleet, &frame).forward {
            prop_assert!(forward.l3 + usize::from(forward.inner.len) <= frame.len());
        }
    }
}

#[test]
fn a_frame_cut_at_any_length_is_never_forwarded() {
    for v6 in [false, true] {
        for udp in [false, true] {
            for vlans in 0..=2 {
                let frame = Spec { v6, udp, vlans, ..Spec::default() }.frame();
                assert_eq!(reason(&fleet(), &frame), Reason::Forwarded);
                let l3 = 14 + 4 * vlans;
                let fixed = l3 + if v6 { 40 } else { 20 };
                for len in 0..frame.len() {
                    let cut = reason(&fleet(), &frame[..len]);
                    let expected = if len < fixed { Reason::TooShort } else { Reason::BadTotalLength };
                    assert_eq!(cut, expected, "v6 {v6} udp {udp} vlans {vlans} cut at {len}");
                }
            }
        }
    }
}

#[test]
fn ethernet_padding_is_not_payload() {
    for v6 in [false, true] {
        let mut frame = Spec { v6, payload: 0, ..Spec::default() }.frame();
        let ip_len = frame.len() - 14;
        frame.extend([0; 40]);
        let fleet = fleet();
        let forward = decide(&fleet, &frame).forward.expect("padding is legal");
        assert_eq!(usize::from(forward.inner.len), ip_len);
    }
}

#[test]
fn what_is_not_for_a_vip_address_passes_whatever_it_is() {
    let fleet = fleet();
    let mut arp = vec![0xff; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(reason(&fleet, &arp), Reason::NotIp);
    let mut elsewhere = Spec::default().frame();
    elsewhere[30..34].copy_from_slice(&[198, 51, 100, 1]);
    assert_eq!(reason(&fleet, &elsewhere), Reason::NotVip);
    // Fragments, wrong versions, header lengths and total lengths of others are none of our business.
    for (at, value) in [(20, 0x20), (14, 0x65), (14, 0x41), (16, 0xff)] {
        let mut broken = elsewhere.clone();
        broken[at] = value;
        assert_eq!(reason(&fleet, &broken), Reason::NotVip);
    }
}

#[test]
fn a_malformed_ipv4_packet_to_a_vip_leaves_by_its_own_name() {
    let frame = Spec::default().frame();
    let with = |at: usize, bytes: &[u8]| {
        let mut frame = frame.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        reason(&fleet(), &frame)
    };
    assert_eq!(with(14, &[0x65]), Reason::BadVersion);
    for ihl in 0..5 {
        assert_eq!(with(14, &[0x40 | ihl]), Reason::BadHeaderLength);
    }
    assert_eq!(with(16, &[0, 19]), Reason::BadTotalLength);
    assert_eq!(with(16, &[0xff, 0xff]), Reason::BadTotalLength);
    assert_eq!(with(14, &[0x4f, 0, 0, 40]), Reason::BadHeaderLength);
    assert_eq!(with(20, &[0x20, 0x00]), Reason::Fragment);
    assert_eq!(with(20, &[0x00, 0x01]), Reason::Fragment);
    assert_eq!(with(23, &[1]), Reason::Icmp);
    assert_eq!(with(23, &[132]), Reason::NoService);
    assert_eq!(with(46, &[0x40]), Reason::BadTcpHeader);
    assert_eq!(with(16, &[0, 39]), Reason::BadTcpHeader);
}

#[test]
fn a_udp_length_that_lies_is_dropped_by_name() {
    for len in [0_u16, 7, 109, u16::MAX] {
        let mut frame = Spec { udp: true, ..Spec::default() }.frame();
        frame[38..40].copy_from_slice(&len.to_be_bytes());
        assert_eq!(reason(&fleet(), &frame), Reason::BadUdpHeader, "UDP length {len}");
    }
}

#[test]
fn ipv4_options_do_not_hide_the_ports() {
    let plain = Spec::default().frame();
    let expected = handle_of(&fleet(), &plain);
    for words in 1..=10_u8 {
        let mut frame = plain[..34].to_vec();
        frame.extend(std::iter::repeat_n(1_u8, usize::from(words) * 4));
        frame.extend(&plain[34..]);
        frame[14] = 0x45 + words;
        let total = (frame.len() - 14) as u16;
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        assert_eq!(handle_of(&fleet(), &frame), expected, "{words} words of options");
    }
}

#[test]
fn ipv6_extension_headers_are_followed_up_to_four() {
    let plain = Spec { v6: true, ..Spec::default() }.frame();
    let expected = handle_of(&fleet(), &plain);
    for count in 1..=6_usize {
        let mut frame = plain[..54].to_vec();
        // Hop-by-hop first, then destination options, with growing lengths.
        frame[20] = 0;
        for n in 0..count {
            let next = if n + 1 == count { 6 } else { 60 };
            frame.extend([next, n as u8, 1, 4, 0, 0, 0, 0]);
            frame.extend(std::iter::repeat_n(0, n * 8));
        }
        frame.extend(&plain[54..]);
        let payload = (frame.len() - 54) as u16;
        frame[18..20].copy_from_slice(&payload.to_be_bytes());
        let fleet = fleet();
        let decision = decide(&fleet, &frame);
        if count <= 4 {
            assert_eq!(
                decision.forward.expect("legal").backend.handle,
                expected,
                "{count} extension headers"
            );
        } else {
            assert_eq!(decision.reason, Reason::TooManyExtensions);
        }
        let mut cut = frame.clone();
        cut[18..20].copy_from_slice(&4_u16.to_be_bytes());
        assert_ne!(reason(&fleet, &cut), Reason::Forwarded, "an extension header beyond the packet");
    }
    let mut fragment = plain.clone();
    fragment[20] = 44;
    assert_eq!(reason(&fleet(), &fragment), Reason::Fragment);
}

#[test]
fn a_vip_address_without_the_service_drops_and_any_port_serves() {
    let mut fleet = fleet();
    let frame = Spec { port: 443, ..Spec::default() }.frame();
    assert_eq!(reason(&fleet, &frame), Reason::NoService);
    let any = lb_common::abi::VipKey::new(address(super::support::VIP4), [0, 0], 6);
    let entry = *fleet.vips.values().next().expect("the fleet has VIPs");
    fleet.vips.insert(any, entry);
    assert_eq!(reason(&fleet, &frame), Reason::Forwarded);
}

#[test]
fn our_own_packets_that_come_back_are_looped() {
    for (v6, source) in [(false, "10.8.11.2"), (true, "fd08:11::2")] {
        let frame = Spec { v6, source: Some(source), ..Spec::default() }.frame();
        assert_eq!(reason(&fleet(), &frame), Reason::Looped);
    }
}

#[test]
fn a_drained_or_sick_owner_gives_new_flows_to_the_standby() {
    let syn = Spec { syn: true, ..Spec::default() }.frame();
    let owner = handle_of(&fleet(), &syn);
    for lost in [backend_flags::READY, backend_flags::HEALTHY] {
        let mut fleet = fleet();
        let entry = fleet.backends.get_mut(&owner).expect("the owner exists");
        entry.flags &= !lost;
        let standby = handle_of(&fleet, &syn);
        assert_ne!(standby, owner);
    }
}

#[test]
fn without_any_ready_backend_new_flows_drop_and_old_ones_go_on_until_maintenance() {
    let mut fleet = fleet();
    for entry in fleet.backends.values_mut() {
        entry.flags &= !backend_flags::READY;
    }
    let old = Spec::default().frame();
    assert_eq!(reason(&fleet, &Spec { syn: true, ..Spec::default() }.frame()), Reason::NoReadyBackend);
    assert_eq!(reason(&fleet, &old), Reason::Forwarded);
    for entry in fleet.backends.values_mut() {
        entry.flags |= backend_flags::MAINT;
    }
    assert_eq!(reason(&fleet, &old), Reason::NoReadyBackend);
}

#[test]
fn missing_tables_and_ways_have_names() {
    let frame = Spec::default().frame();
    let mut empty = fleet();
    empty.tables.insert(0, vec![Chain::default(); 1 << super::support::ROWS_LOG2]);
    assert_eq!(reason(&empty, &frame), Reason::NoBackend);
    let mut missing = fleet();
    missing.tables.remove(&0);
    assert_eq!(reason(&missing, &frame), Reason::NoTable);
    let mut unresolved = fleet();
    for next_hop in unresolved.next_hops.values_mut() {
        next_hop.flags &= !next_hop_flags::USABLE;
    }
    assert_eq!(reason(&unresolved, &frame), Reason::NoNeighbour);
    unresolved.next_hops.clear();
    assert_eq!(reason(&unresolved, &frame), Reason::NoNeighbour);
}

#[test]
fn the_encapsulated_size_is_held_against_the_mtu_to_the_byte() {
    for (port, overhead) in [(8001, 32), (8002, 52), (8003, 20), (8004, 40)] {
        let payload = 1600 - overhead - 40;
        let fits = Spec { port, payload, ..Spec::default() };
        assert_eq!(reason(&fleet(), &fits.frame()), Reason::Forwarded);
        let big = Spec { payload: payload + 1, ..fits };
        assert_eq!(reason(&fleet(), &big.frame()), Reason::TooBig);
        let mut fragmentable = big.frame();
        fragmentable[20] &= !0x40;
        assert_eq!(reason(&fleet(), &fragmentable), Reason::TooBigNoDf);
    }
}

#[test]
fn only_reasons_that_carry_have_a_forward_and_only_they() {
    assert!(
        Reason::ALL.iter().all(|reason| (reason.fate() == Fate::Carry) == (*reason == Reason::Forwarded))
    );
}

#[test]
fn an_ipv4_mapped_destination_in_an_ipv6_header_is_no_vip_of_ours() {
    let mut frame = Spec { v6: true, ..Spec::default() }.frame();
    frame[38..54].copy_from_slice(address(super::support::VIP4).bytes());
    assert_eq!(reason(&fleet(), &frame), Reason::NotVip);
}
