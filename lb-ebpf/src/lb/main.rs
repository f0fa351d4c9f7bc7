//! The load balancer: XDP on the edge host's uplink.
//!
//! All decisions are in `lb-common`; this program supplies bytes, maps and the action.
#![no_std]
#![no_main]

mod event;
mod maps;
mod packet;

use aya_ebpf::{bindings::xdp_action, helpers::bpf_redirect, macros::xdp, programs::XdpContext};
use lb_common::{
    decide::{self, Forward},
    encap,
    packet::Packet as _,
    reason::{Fate, Reason},
};

use crate::{maps::KernelTables, packet::XdpPacket};

#[xdp]
#[expect(clippy::needless_pass_by_value, reason = "the kernel's entry macro passes the context by value")]
fn bowline_lb(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    let bytes = packet.len() as u64;
    let decision = decide::decide(&packet, &KernelTables);
    let (reason, action) = match &decision.forward {
        Some(forward) => send(&mut packet, forward, bytes),
        None => (decision.reason, action_of(decision.reason)),
    };
    let seen = maps::count(&maps::REASON_COUNTERS, reason.index(), bytes);
    if reason.fate() == Fate::Drop {
        event::dropped(&ctx, reason, seen);
    }
    if let Some(vip) = decision.vip {
        maps::count(&maps::VIP_COUNTERS, vip, bytes);
    }
    action
}

#[inline(always)]
fn send(packet: &mut XdpPacket<'_>, forward: &Forward<'_>, bytes: u64) -> (Reason, u32) {
    if let Err(reason) = encap::encapsulate(packet, forward) {
        return (reason, xdp_action::XDP_DROP);
    }
    maps::count(&maps::BACKEND_COUNTERS, u32::from(forward.backend.handle), bytes);
    let action = if forward.next_hop.ifindex == packet.ingress_ifindex() {
        xdp_action::XDP_TX
    } else {
        // SAFETY: the helper takes numbers only.
        unsafe { bpf_redirect(forward.next_hop.ifindex, 0).cast_unsigned() as u32 }
    };
    (Reason::Forwarded, action)
}

#[inline(always)]
fn action_of(reason: Reason) -> u32 {
    match reason.fate() {
        Fate::Pass => xdp_action::XDP_PASS,
        Fate::Carry | Fate::Drop => xdp_action::XDP_DROP,
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses an endless loop, so a program with a reachable panic does not load.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
