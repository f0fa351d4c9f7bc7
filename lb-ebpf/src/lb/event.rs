//! Rare events for the daemon's log: drops that an operator must do something about.
//!
//! Off unless the daemon sets the log level at load; then the verifier removes these lines. On, a reason is told when
//! its count on a CPU reaches a power of two: the first time at once, a flood in twenty lines. No clock is read.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::warn;
use lb_common::reason::Reason;

/// Tells of a drop, the `seen`th of its reason on this CPU.
#[inline(always)]
pub(crate) fn dropped(ctx: &XdpContext, reason: Reason, seen: u64) {
    if !seen.is_power_of_two() {
        return;
    }
    match reason {
        Reason::NoNeighbour => warn!(ctx, "no_neighbour: no way to the backend, packet {} on this CPU", seen),
        Reason::NoReadyBackend => {
            warn!(ctx, "no_ready_backend: nobody takes the packet, {} on this CPU", seen);
        }
        Reason::NoTable => warn!(ctx, "no_table: the pool has no rows yet, packet {} on this CPU", seen),
        Reason::NoHeadroom => {
            warn!(ctx, "no_headroom: no room for the outer header, packet {} on this CPU", seen);
        }
        Reason::TooBig => warn!(ctx, "too_big: beyond the MTU to the backend, packet {} on this CPU", seen),
        Reason::Looped => warn!(ctx, "looped: a backend sent its packet back, {} on this CPU", seen),
        _ => {}
    }
}
