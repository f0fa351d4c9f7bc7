//! The maps of the load balancer, typed, and the writes that make them agree with an image.
//!
//! Values cross as byte arrays (`zerocopy` proves that the types have no padding), so nothing here is unsafe.

use std::collections::BTreeMap;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use ipnet::IpNet;
use lb_common::abi::{BackendEntry, Chain, Counter, NextHop, VipEntry, VipKey, limits, maps as names};
use lb_common::address::Address;
use lb_common::reason::{Fate, Reason};
use zerocopy::{FromBytes as _, Immutable, IntoBytes};

use crate::dataplane::image::{Image, Recycled};
use crate::engine::boundary::{Count, DataplaneError, MapMemory, ReasonCount, Verdict};

/// Kernel 5.10: inner arrays may differ in size if they and the template carry this flag.
const BPF_F_INNER_MAP: u32 = 1 << 12;

type AddressBytes = [u8; size_of::<Address>()];
type BackendBytes = [u8; size_of::<BackendEntry>()];
type ChainBytes = [u8; size_of::<Chain>()];
type CounterBytes = [u8; size_of::<Counter>()];
type NextHopBytes = [u8; size_of::<NextHop>()];
type VipKeyBytes = [u8; size_of::<VipKey>()];
type VipEntryBytes = [u8; size_of::<VipEntry>()];
type Rows = Array<MapData, ChainBytes>;

/// The maps that the daemon writes and reads.
pub(super) struct Maps {
    vip_addresses: HashMap<MapData, AddressBytes, u8>,
    vips: HashMap<MapData, VipKeyBytes, VipEntryBytes>,
    tables: ArrayOfMaps<MapData, Rows>,
    backends: Array<MapData, BackendBytes>,
    next_hops: Array<MapData, NextHopBytes>,
    tunnel_sources: LpmTrie<MapData, AddressBytes, u8>,
    reason_counters: PerCpuArray<MapData, CounterBytes>,
    vip_counters: PerCpuArray<MapData, CounterBytes>,
    backend_counters: PerCpuArray<MapData, CounterBytes>,
}

impl Maps {
    /// Takes the maps out of the loaded object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            vip_addresses: take(object, names::VIP_ADDRESSES)?,
            vips: take(object, names::VIPS)?,
            tables: take(object, names::TABLES)?,
            backends: take(object, names::BACKENDS)?,
            next_hops: take(object, names::NEXT_HOPS)?,
            tunnel_sources: take(object, names::TUNNEL_SOURCES)?,
            reason_counters: take(object, names::REASON_COUNTERS)?,
            vip_counters: take(object, names::VIP_COUNTERS)?,
            backend_counters: take(object, names::BACKEND_COUNTERS)?,
        })
    }

    /// Fills the loop guard. Called once, before anything is forwarded.
    pub(super) fn set_tunnel_sources(&mut self, prefixes: &[IpNet]) -> Result<(), DataplaneError> {
        for prefix in prefixes {
            let result = self.tunnel_sources.insert(&prefix_key(prefix), 1, 0);
            result.map_err(|error| failed("write", format!("the tunnel source {prefix}"), error))?;
        }
        Ok(())
    }

    /// Writes next hops that are new or differ.
    pub(super) fn write_next_hops(
        &mut self,
        before: &BTreeMap<u32, NextHop>,
        after: &BTreeMap<u32, NextHop>,
    ) -> Result<(), DataplaneError> {
        for (index, entry) in changed(before, after) {
            let result = self.next_hops.set(*index, bytes_of::<_, { size_of::<NextHop>() }>(entry), 0);
            result.map_err(|error| failed("write", format!("next hop {index}"), error))?;
        }
        Ok(())
    }

    /// Writes backends that are new or differ; those that went stay until [`Self::clear_backends`].
    pub(super) fn write_backends(
        &mut self,
        before: &BTreeMap<u32, BackendEntry>,
        after: &BTreeMap<u32, BackendEntry>,
    ) -> Result<(), DataplaneError> {
        for (handle, entry) in changed(before, after) {
            self.write_backend(*handle, entry)?;
        }
        Ok(())
    }

    /// Clears the entries of backends that went: no row points to them any more.
    pub(super) fn clear_backends(
        &mut self,
        before: &BTreeMap<u32, BackendEntry>,
        after: &BTreeMap<u32, BackendEntry>,
    ) -> Result<(), DataplaneError> {
        let none = BackendEntry::read_from_bytes(&[0; size_of::<BackendEntry>()]);
        let Ok(none) = none else { return Ok(()) };
        for handle in before.keys().filter(|handle| !after.contains_key(handle)) {
            self.write_backend(*handle, &none)?;
        }
        Ok(())
    }

    fn write_backend(&mut self, handle: u32, entry: &BackendEntry) -> Result<(), DataplaneError> {
        let result = self.backends.set(handle, bytes_of::<_, { size_of::<BackendEntry>() }>(entry), 0);
        result.map_err(|error| failed("write", format!("backend {}", entry.address), error))
    }

    /// Builds a table beside the live one and swaps it in with one update.
    pub(super) fn swap_table(&mut self, index: u32, chains: &[Chain]) -> Result<(), DataplaneError> {
        let failure =
            |operation| move |error: MapError| failed(operation, format!("row table {index}"), error);
        let rows = u32::try_from(chains.len()).unwrap_or(u32::MAX);
        let mut table = Rows::create(rows, BPF_F_INNER_MAP).map_err(failure("create"))?;
        for (row, chain) in (0..).zip(chains) {
            table.set(row, bytes_of::<_, { size_of::<Chain>() }>(chain), 0).map_err(failure("fill"))?;
        }
        self.tables.set(index, &table, 0).map_err(failure("swap"))
    }

    /// Makes services and VIP addresses those of `after`.
    pub(super) fn write_vips(&mut self, before: &Image, after: &Image) -> Result<(), DataplaneError> {
        let failure = |operation, key: VipKey| {
            move |error: MapError| failed(operation, format!("the VIP at {}", key.address), error)
        };
        for (key, entry) in changed(&before.vips, &after.vips) {
            let entry: [u8; size_of::<VipEntry>()] = bytes_of(entry);
            let result = self.vips.insert(bytes_of::<_, { size_of::<VipKey>() }>(key), entry, 0);
            result.map_err(failure("write", *key))?;
        }
        let (old, new) = (before.vip_addresses(), after.vip_addresses());
        for address in new.difference(&old) {
            let result = self.vip_addresses.insert(*address.bytes(), 1, 0);
            result.map_err(|error| failed("write", format!("the VIP address {address}"), error))?;
        }
        // The other way round when they go: a service without an address would be passed to the kernel, an address
        // without a service drops as `no_service`.
        for key in before.vips.keys().filter(|key| !after.vips.contains_key(key)) {
            gone(self.vips.remove(&bytes_of(key))).map_err(failure("remove", *key))?;
        }
        for address in old.difference(&new) {
            gone(self.vip_addresses.remove(address.bytes()))
                .map_err(|error| failed("remove", format!("the VIP address {address}"), error))?;
        }
        Ok(())
    }

    /// Starts counters anew whose number went to somebody else.
    pub(super) fn zero_counters(&mut self, recycled: &Recycled) -> Result<(), DataplaneError> {
        for index in &recycled.backends {
            zero(&mut self.backend_counters, *index)?;
        }
        for index in &recycled.vips {
            zero(&mut self.vip_counters, *index)?;
        }
        Ok(())
    }

    /// All reasons with their counts.
    pub(super) fn reasons(&self) -> Result<Vec<ReasonCount>, DataplaneError> {
        let count = |reason: &Reason| {
            let verdict = match reason.fate() {
                Fate::Pass => Verdict::Pass,
                Fate::Carry => Verdict::Forward,
                Fate::Drop => Verdict::Drop,
            };
            let count = sum(&self.reason_counters, reason.index())?;
            Ok(ReasonCount { reason: reason.name().to_owned(), verdict, count })
        };
        Reason::ALL.iter().map(count).collect()
    }

    pub(super) fn vip_count(&self, index: u32) -> Result<Count, DataplaneError> {
        sum(&self.vip_counters, index)
    }

    pub(super) fn backend_count(&self, handle: u32) -> Result<Count, DataplaneError> {
        sum(&self.backend_counters, handle)
    }
}

/// The memory of the maps as declared, and of one row table for each of `rows`.
pub(super) fn memory(rows: &[u64]) -> Vec<MapMemory> {
    let cpus = aya::util::nr_cpus().unwrap_or(1) as u64;
    let counter = size_of::<Counter>();
    let plain = |name: &str, entries: usize, bytes: usize| MapMemory {
        name: name.to_owned(),
        formula: format!("{entries} entries x {bytes} B"),
        bytes: (entries * bytes) as u64,
    };
    let per_cpu = |name: &str, entries: usize| MapMemory {
        name: name.to_owned(),
        formula: format!("{entries} entries x {counter} B x {cpus} CPUs"),
        bytes: (entries * counter) as u64 * cpus,
    };
    let all_rows: u64 = rows.iter().sum();
    let chain = size_of::<Chain>();
    vec![
        plain(names::VIP_ADDRESSES, limits::VIPS, size_of::<Address>() + 1),
        plain(names::VIPS, limits::VIPS, size_of::<VipKey>() + size_of::<VipEntry>()),
        plain(names::BACKENDS, limits::BACKENDS, size_of::<BackendEntry>()),
        plain(names::NEXT_HOPS, limits::NEXT_HOPS, size_of::<NextHop>()),
        MapMemory {
            name: names::TABLES.to_owned(),
            formula: format!("{all_rows} rows in {} pools x {chain} B", rows.len()),
            bytes: all_rows * chain as u64,
        },
        per_cpu(names::REASON_COUNTERS, Reason::COUNT),
        per_cpu(names::VIP_COUNTERS, limits::VIPS),
        per_cpu(names::BACKEND_COUNTERS, limits::BACKENDS),
    ]
}

/// The trie key of a prefix; IPv4 prefixes are 96 bits longer as IPv4-mapped ones.
pub(crate) fn prefix_key(prefix: &IpNet) -> Key<AddressBytes> {
    let bits = u32::from(prefix.prefix_len()) + if prefix.addr().is_ipv4() { 96 } else { 0 };
    Key::new(bits, *Address::from(prefix.network()).bytes())
}

/// Takes a map out of an object.
pub(crate) fn take<M>(object: &mut Ebpf, name: &'static str) -> Result<M, DataplaneError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = object
        .take_map(name)
        .ok_or_else(|| DataplaneError::new("find", name, "no such map in the object"))?;
    M::try_from(map).map_err(|error| failed("open", name, error))
}

/// A value as the bytes that the map holds. `N` is its size; the lengths are equal because zerocopy has no padding.
pub(crate) fn bytes_of<T: IntoBytes + Immutable, const N: usize>(value: &T) -> [u8; N] {
    const { assert!(size_of::<T>() == N) };
    let mut bytes = [0; N];
    bytes.copy_from_slice(value.as_bytes());
    bytes
}

/// One counter, all CPUs together.
pub(crate) fn sum(
    counters: &PerCpuArray<MapData, CounterBytes>,
    index: u32,
) -> Result<Count, DataplaneError> {
    let values =
        counters.get(&index, 0).map_err(|error| failed("read", format!("counter {index}"), error))?;
    let mut total = Count::default();
    for bytes in values.iter() {
        let counter: Counter = zerocopy::transmute!(*bytes);
        total.packets += counter.packets;
        total.bytes += counter.bytes;
    }
    Ok(total)
}

fn zero(counters: &mut PerCpuArray<MapData, CounterBytes>, index: u32) -> Result<(), DataplaneError> {
    let failure = |error: Box<dyn std::error::Error + Send + Sync>| {
        DataplaneError::new("reset", format!("counter {index}"), error)
    };
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| failure(error.into()))?;
    let values = PerCpuValues::try_from(vec![[0; size_of::<Counter>()]; cpus])
        .map_err(|error| failure(error.into()))?;
    counters.set(index, values, 0).map_err(|error| failure(error.into()))
}

/// Entries of `after` that `before` lacks or has otherwise.
fn changed<'a, K: Ord, V: PartialEq>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    after.iter().filter(|(key, entry)| before.get(key) != Some(entry))
}

/// Removing what is not there is no failure.
fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}

fn failed(operation: &'static str, object: impl Into<String>, error: MapError) -> DataplaneError {
    DataplaneError::new(operation, object, error)
}
