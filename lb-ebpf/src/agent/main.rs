//! The backend's agent: TC ingress on its uplink.
//!
//! TC and not XDP: the inner packet needs an skb anyway, and a second chance can be sent to any next hop from here.
//! All decisions are in `lb-common`; this program supplies bytes, maps and the action.
#![no_std]
#![no_main]

mod maps;
mod packet;
mod tables;

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6, BPF_F_ADJ_ROOM_FIXED_GSO,
        BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    btf_maps::PerCpuArray,
    helpers::bpf_redirect_neigh,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use lb_common::{
    agent::{self, Accept, Judgement, Onward, OuterRewrite, Tunnel, Verdict},
    ecn,
    reason::{AgentReason, Fate},
    wire::ether,
};

use crate::{packet::TcPacket, tables::KernelTables};

/// Lets the next program on the hook see the packet, then the stack (TCX_NEXT, the same as TC_ACT_UNSPEC).
const NEXT: i32 = -1;
/// Ends the packet (TC_ACT_SHOT).
const SHOT: i32 = 2;

#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the kernel's entry macro passes the context by value")]
fn bowline_agent(ctx: TcContext) -> i32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return NEXT };
    // SAFETY: the map hands out this CPU's own slot, and a program is not interrupted by itself.
    let scratch = unsafe { &mut *scratch };
    let skb = ctx.skb.skb;
    if open(skb, scratch) {
        weigh(skb, scratch);
    }
    act(skb, scratch)
}

/// What one step leaves for the next. In a map and not on the stack: all functions of a program share 512 bytes.
struct Scratch {
    tunnel: MaybeUninit<Tunnel>,
    deed: Deed,
    reason: AgentReason,
    /// Cell of RFC 6040's table to count; [`ecn::CELLS`] for none.
    ecn_cell: u32,
    accept: MaybeUninit<Accept>,
    onward: MaybeUninit<Onward>,
}

/// Which verdict was left.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Deed {
    Leave,
    Accept,
    Onward,
}

impl Scratch {
    /// Writes what the verdict has, variant by variant: the verifier refuses a copy of undefined bytes.
    #[inline(always)]
    fn leave_behind(&mut self, judgement: &Judgement) {
        self.ecn_cell = judgement.ecn_cell.unwrap_or(ecn::CELLS as u32);
        match judgement.verdict {
            Verdict::Leave(reason) => {
                self.deed = Deed::Leave;
                self.reason = reason;
            }
            Verdict::Accept(accept) => {
                self.deed = Deed::Accept;
                self.accept.write(accept);
            }
            Verdict::Onward(onward) => {
                self.deed = Deed::Onward;
                self.onward.write(onward);
            }
        }
    }
}

#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Reads the outer headers; whether there is something to [`weigh`].
#[inline(never)]
fn open(skb: *mut __sk_buff, scratch: &mut Scratch) -> bool {
    let ctx = TcContext::new(skb);
    match agent::open(&TcPacket::new(&ctx), &KernelTables::new(&ctx)) {
        Ok(tunnel) => {
            scratch.tunnel.write(tunnel);
            true
        }
        Err(reason) => {
            scratch.leave_behind(&Judgement::leave(reason));
            false
        }
    }
}

/// Reads the inner headers and asks the sockets.
#[inline(never)]
fn weigh(skb: *mut __sk_buff, scratch: &mut Scratch) {
    let ctx = TcContext::new(skb);
    // SAFETY: `open` wrote it and said so.
    let tunnel = unsafe { scratch.tunnel.assume_init_ref() };
    let judgement = agent::weigh(&TcPacket::pulled(&ctx), tunnel, &KernelTables::new(&ctx));
    scratch.leave_behind(&judgement);
}

/// Carries the judgement out and counts it.
#[inline(never)]
fn act(skb: *mut __sk_buff, scratch: &Scratch) -> i32 {
    let ctx = TcContext::new(skb);
    let bytes = u64::from(ctx.len());
    maps::count(&maps::ECN_CELLS, scratch.ecn_cell, bytes);
    let (reason, action) = match scratch.deed {
        // SAFETY: `leave_behind` wrote it together with the deed.
        Deed::Accept => decapsulate(&ctx, unsafe { scratch.accept.assume_init_ref() }),
        // SAFETY: as above.
        Deed::Onward => send_on(&ctx, unsafe { scratch.onward.assume_init_ref() }),
        Deed::Leave => (scratch.reason, action_of(scratch.reason)),
    };
    maps::count(&maps::REASON_COUNTERS, reason.index(), bytes);
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
    let family = if accept.inner.is_v4 { BPF_F_ADJ_ROOM_DECAP_L3_IPV4 } else { BPF_F_ADJ_ROOM_DECAP_L3_IPV6 };
    // FIXED_GSO keeps the segment size of a packet that GRO merged: its segments lose the same headers.
    let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | family);
    let stripped = ctx.adjust_room(-(i32::from(accept.strip)), BPF_ADJ_ROOM_MAC, flags);
    if stripped.is_err() || write_inner(ctx, accept).is_none() {
        return (AgentReason::DecapFailed, SHOT);
    }
    (accept.reason, NEXT)
}

/// Names the inner family in the link header, and writes the merged ECN field where it changed.
#[inline(always)]
fn write_inner(ctx: &TcContext, accept: &Accept) -> Option<()> {
    let l3 = usize::from(accept.l3);
    let recompute = u64::from(BPF_F_RECOMPUTE_CSUM);
    let ethertype = if accept.inner.is_v4 { ether::IPV4 } else { ether::IPV6 };
    ctx.store(l3 - 2, &ethertype.to_be_bytes(), 0).ok()?;
    if accept.inner.changed {
        ctx.store(l3, &accept.inner.start, recompute).ok()?;
    }
    if accept.inner.changed && accept.inner.is_v4 {
        ctx.store(l3 + 10, &accept.inner.checksum, recompute).ok()?;
    }
    Some(())
}

/// Gives the packet its second chance: the kernel resolves route and neighbour of the new destination.
#[inline(always)]
fn send_on(ctx: &TcContext, onward: &Onward) -> (AgentReason, i32) {
    let l3 = usize::from(onward.l3);
    let readdressed = match agent::readdress(&TcPacket::pulled(ctx), onward) {
        Some(OuterRewrite::V4(bytes)) => ctx.store(l3 + 10, &bytes, 0).is_ok(),
        Some(OuterRewrite::V6(bytes)) => ctx.store(l3 + 8, &bytes, 0).is_ok(),
        None => false,
    };
    if !readdressed || ctx.store(usize::from(onward.index_at), &onward.index, 0).is_err() {
        return (AgentReason::RewriteFailed, SHOT);
    }
    // SAFETY: the context is the one the kernel gave.
    let uplink = unsafe { (*ctx.skb.skb).ifindex };
    // SAFETY: no parameters are passed, so the pointer is not read.
    let action = unsafe { bpf_redirect_neigh(uplink, core::ptr::null_mut(), 0, 0) };
    (onward.reason, action as i32)
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never reached: the verifier refuses an endless loop, so a program with a reachable panic does not load.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
