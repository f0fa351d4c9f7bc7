//! The backend's agent: TC ingress on its uplink.
//!
//! TC and not XDP: the inner packet needs an skb anyway, and a second chance can be sent to any next hop from here.
//! All decisions are in `lb-common`; this program supplies bytes, maps and the action.
#![no_std]
#![no_main]

mod maps;
mod packet;

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    macros::classifier,
    programs::TcContext,
};
use lb_common::{
    agent::{self, Accept, InnerHead, Verdict},
    packet::Packet as _,
    reason::{AgentReason, Fate},
    wire::ether,
};

use crate::{maps::KernelTables, packet::TcPacket};

/// Lets the next program on the hook see the packet, then the stack (TCX_NEXT, the same as TC_ACT_UNSPEC).
const NEXT: i32 = -1;
/// Ends the packet (TC_ACT_SHOT).
const SHOT: i32 = 2;

#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the kernel's entry macro passes the context by value")]
fn bowline_agent(ctx: TcContext) -> i32 {
    let packet = TcPacket::new(&ctx);
    let bytes = packet.len() as u64;
    let (reason, action) = match agent::judge(&packet, &KernelTables) {
        Verdict::Accept(accept) => decapsulate(&ctx, &accept),
        Verdict::Leave(reason) => (reason, action_of(reason)),
    };
    maps::count(reason, bytes);
    action
}

#[inline(always)]
fn action_of(reason: AgentReason) -> i32 {
    match reason.fate() {
        Fate::Pass => NEXT,
        Fate::Carry | Fate::Drop => SHOT,
    }
}

/// Removes the outer headers; the inner packet then continues up the stack as if it had come alone.
#[inline(always)]
fn decapsulate(ctx: &TcContext, accept: &Accept) -> (AgentReason, i32) {
    let family = match accept.inner {
        InnerHead::V4 { .. } => BPF_F_ADJ_ROOM_DECAP_L3_IPV4,
        InnerHead::V6 { .. } => BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
    };
    // FIXED_GSO keeps the segment size of a packet that GRO merged: its segments lose the same headers.
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | family);
    let stripped = ctx.adjust_room(-(accept.strip.cast_signed() as i32), BPF_ADJ_ROOM_MAC, flags);
    if stripped.is_err() || write_inner(ctx, accept).is_none() {
        return (AgentReason::DecapFailed, SHOT);
    }
    (accept.reason, NEXT)
}

/// Names the inner family in the link header, and writes the merged ECN field where it changed.
#[inline(always)]
fn write_inner(ctx: &TcContext, accept: &Accept) -> Option<()> {
    let l3 = accept.l3;
    let recompute = u64::from(BPF_F_RECOMPUTE_CSUM);
    match accept.inner {
        InnerHead::V4 { start, checksum, changed } => {
            ctx.store(l3 - 2, &ether::IPV4.to_be_bytes(), 0).ok()?;
            if changed {
                ctx.store(l3, &start, recompute).ok()?;
                ctx.store(l3 + 10, &checksum, recompute).ok()?;
            }
        }
        InnerHead::V6 { start, changed } => {
            ctx.store(l3 - 2, &ether::IPV6.to_be_bytes(), 0).ok()?;
            if changed {
                ctx.store(l3, &start, recompute).ok()?;
            }
        }
    }
    Some(())
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses an endless loop, so a program with a reachable panic does not load.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
