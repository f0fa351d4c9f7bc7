//! The load balancer's maps, in the order in which a packet meets them.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    macros::btf_map,
};
use lb_common::{
    abi::{BackendEntry, Chain, Counter, NextHop, VipEntry, VipKey, limits},
    address::Address,
    reason::Reason,
    tables::Tables,
};

/// Kernel 5.10: inner arrays may differ in size from the template if they all carry this flag.
const BPF_F_INNER_MAP: usize = 1 << 12;
/// Tries must not be preallocated.
const BPF_F_NO_PREALLOC: usize = 1;

#[btf_map]
pub(crate) static VIP_ADDRESSES: HashMap<Address, u8, { limits::VIPS }> = HashMap::new();

#[btf_map]
pub(crate) static TUNNEL_SOURCES: LpmTrie<Address, u8, { limits::TUNNEL_SOURCES }, BPF_F_NO_PREALLOC> =
    LpmTrie::new();

#[btf_map]
pub(crate) static VIPS: HashMap<VipKey, VipEntry, { limits::VIPS }> = HashMap::new();

type Rows = Array<Chain, { 1 << limits::MIN_ROWS_LOG2 }, BPF_F_INNER_MAP>;

#[btf_map]
pub(crate) static TABLES: ArrayOfMaps<Rows, { limits::TABLES }> = ArrayOfMaps::new();

#[btf_map]
pub(crate) static BACKENDS: Array<BackendEntry, { limits::BACKENDS }> = Array::new();

#[btf_map]
pub(crate) static NEXT_HOPS: Array<NextHop, { limits::NEXT_HOPS }> = Array::new();

#[btf_map]
pub(crate) static REASON_COUNTERS: PerCpuArray<Counter, { Reason::COUNT }> = PerCpuArray::new();

#[btf_map]
pub(crate) static VIP_COUNTERS: PerCpuArray<Counter, { limits::VIPS }> = PerCpuArray::new();

#[btf_map]
pub(crate) static BACKEND_COUNTERS: PerCpuArray<Counter, { limits::BACKENDS }> = PerCpuArray::new();

/// Counts one packet of `bytes` bytes on this CPU; gives how many that makes.
#[inline(always)]
pub(crate) fn count<const N: usize>(counters: &PerCpuArray<Counter, N>, index: u32, bytes: u64) -> u64 {
    let Some(counter) = counters.get_ptr_mut(index) else {
        return 0;
    };
    // SAFETY: the map hands out this CPU's own slot, and a program is not interrupted by itself.
    let counter = unsafe { &mut *counter };
    counter.packets += 1;
    counter.bytes += bytes;
    counter.packets
}

/// The maps above, as what decisions look up.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn is_vip_address(&self, address: &Address) -> bool {
        VIP_ADDRESSES.get_ptr(address).is_some()
    }

    #[inline(always)]
    fn vip(&self, key: &VipKey) -> Option<&VipEntry> {
        // SAFETY: only the daemon writes this map; an entry that it removes is not reused before this program ends.
        unsafe { VIPS.get(key) }
    }

    #[inline(always)]
    fn is_tunnel_source(&self, address: &Address) -> bool {
        TUNNEL_SOURCES.get(&Key::new(128, *address)).is_some()
    }

    #[inline(always)]
    fn chain(&self, table: u32, row: u32) -> Option<Chain> {
        TABLES.get_value(table, &row).copied()
    }

    #[inline(always)]
    fn backend(&self, handle: u16) -> Option<&BackendEntry> {
        BACKENDS.get(u32::from(handle))
    }

    #[inline(always)]
    fn next_hop(&self, index: u32) -> Option<&NextHop> {
        NEXT_HOPS.get(index)
    }
}
