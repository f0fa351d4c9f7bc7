//! The agent's maps.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    abi::{AgentConfig, Counter, limits},
    address::Address,
    ecn,
    reason::AgentReason,
};

/// Tries must not be preallocated.
const BPF_F_NO_PREALLOC: usize = 1;

#[btf_map]
pub(crate) static AGENT_CONFIG: Array<AgentConfig, 1> = Array::new();

#[btf_map]
pub(crate) static LOCAL_ADDRESSES: HashMap<Address, u8, { limits::LOCAL_ADDRESSES }> = HashMap::new();

#[btf_map]
pub(crate) static TUNNEL_SOURCES: LpmTrie<Address, u8, { limits::TUNNEL_SOURCES }, BPF_F_NO_PREALLOC> =
    LpmTrie::new();

#[btf_map]
pub(crate) static VIP_ADDRESSES: HashMap<Address, u8, { limits::VIPS }> = HashMap::new();

#[btf_map]
pub(crate) static REASON_COUNTERS: PerCpuArray<Counter, { AgentReason::COUNT }> = PerCpuArray::new();

#[btf_map]
pub(crate) static ECN_CELLS: PerCpuArray<Counter, { ecn::CELLS }> = PerCpuArray::new();

/// Counts one packet of `bytes` bytes on this CPU.
#[inline(always)]
pub(crate) fn count<const N: usize>(counters: &PerCpuArray<Counter, N>, index: u32, bytes: u64) {
    let Some(counter) = counters.get_ptr_mut(index) else { return };
    // SAFETY: the map hands out this CPU's own slot, and a program is not interrupted by itself.
    let counter = unsafe { &mut *counter };
    counter.packets += 1;
    counter.bytes += bytes;
}
