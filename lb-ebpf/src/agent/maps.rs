//! The agent's maps.

use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    macros::btf_map,
};
use lb_common::{
    abi::{AgentConfig, Counter, limits},
    address::Address,
    reason::AgentReason,
    tables::AgentTables,
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

/// Counts one packet of `bytes` bytes on this CPU.
#[inline(always)]
pub(crate) fn count(reason: AgentReason, bytes: u64) {
    let Some(counter) = REASON_COUNTERS.get_ptr_mut(reason.index()) else {
        return;
    };
    // SAFETY: the map hands out this CPU's own slot, and a program is not interrupted by itself.
    let counter = unsafe { &mut *counter };
    counter.packets += 1;
    counter.bytes += bytes;
}

/// The maps above, as what the verdict looks up.
pub(crate) struct KernelTables;

impl AgentTables for KernelTables {
    #[inline(always)]
    fn is_local(&self, address: &Address) -> bool {
        LOCAL_ADDRESSES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn is_vip_address(&self, address: &Address) -> bool {
        VIP_ADDRESSES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn is_tunnel_source(&self, address: &Address) -> bool {
        TUNNEL_SOURCES.get(&Key::new(128, *address)).is_some()
    }

    #[inline(always)]
    fn gue_port(&self) -> [u8; 2] {
        AGENT_CONFIG.get(0).map_or([0, 0], |config| config.gue_port)
    }
}
