//! What the maps should hold, computed without touching them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::{BackendEntry, NextHop, VipEntry, VipKey, backend_flags, limits, next_hop_flags};
use lb_common::address::Address;
use lb_common::wire::protocol;

use super::registry::Registry;
use crate::engine::boundary::DataplaneError;
use crate::engine::paths::{Path, PathState, Paths};
use crate::epochs::{Leaving, PoolTable, Tables};
use crate::model::{AdminState, Encapsulation, Model, Pool, Protocol, Vip};

/// A backend of a pool: the same address in two pools is two members with two handles.
pub(super) type MemberName = (String, IpAddr);

/// The next hop of backends without a usable way. Its entry is never usable.
const NO_NEXT_HOP: u32 = 0;

/// The contents of the maps, rows apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) next_hops: BTreeMap<u32, NextHop>,
    pub(super) backends: BTreeMap<u32, BackendEntry>,
    pub(super) vips: BTreeMap<VipKey, VipEntry>,
}

impl Image {
    /// Addresses of all VIPs.
    pub(super) fn vip_addresses(&self) -> BTreeSet<Address> {
        self.vips.keys().map(|key| key.address).collect()
    }
}

/// The numbers that names have in the maps.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) backends: Registry<MemberName>,
    pub(super) vips: Registry<String>,
    pub(super) tables: Registry<String>,
    next_hops: Registry<(u32, IpAddr)>,
}

/// Counters whose number went to somebody else.
#[derive(Debug, Default)]
pub(super) struct Recycled {
    pub(super) backends: Vec<u32>,
    pub(super) vips: Vec<u32>,
}

impl Numbers {
    pub(super) fn new() -> Self {
        Self {
            // Handle 0 is "none" in a chain; next hop 0 is "no way".
            backends: Registry::new(1, limits::BACKENDS as u32),
            vips: Registry::new(0, limits::VIPS as u32),
            tables: Registry::new(0, limits::TABLES as u32),
            next_hops: Registry::new(NO_NEXT_HOP + 1, limits::NEXT_HOPS as u32),
        }
    }

    /// Makes sure that everything in `model` and everybody in the chains of `tables` has its number. `live` are the
    /// tables that the datapath still reads: nobody in them loses a handle.
    pub(super) fn assign(
        &mut self,
        model: &Model,
        tables: &Tables,
        live: &Tables,
    ) -> Result<Recycled, DataplaneError> {
        let members = model.pools().values().flat_map(|pool| {
            pool.backends.keys().map(|address| (pool.name.clone(), *address)).collect::<Vec<_>>()
        });
        let full = |what: &'static str, limit: usize| {
            DataplaneError::new("place", what, format!("the datapath has room for {limit}"))
                .with_hint("remove some that are not used")
        };
        let members: BTreeSet<MemberName> =
            members.chain(members_of_chains(tables)).chain(members_of_chains(live)).collect();
        let backends = self.backends.assign(&members);
        let vips = self.vips.assign(&model.vips().keys().cloned().collect());
        let tables = self.tables.assign(&model.pools().keys().cloned().collect());
        tables.ok_or_else(|| full("the pools", limits::TABLES))?;
        Ok(Recycled {
            backends: backends.ok_or_else(|| full("the backends", limits::BACKENDS - 1))?,
            vips: vips.ok_or_else(|| full("the VIPs", limits::VIPS))?,
        })
    }

    /// The image of `model` and those who are `leaving` it with `paths` to the backends. `sources` are the configured outer source
    /// addresses.
    pub(super) fn image(
        &mut self,
        model: &Model,
        leaving: &Leaving,
        paths: &Paths,
        sources: &[IpAddr],
    ) -> Result<Image, DataplaneError> {
        let mut ways = model.backend_addresses();
        ways.extend(leaving.values().flat_map(BTreeMap::keys));
        let ways: BTreeMap<IpAddr, &Path> =
            ways.iter().filter_map(|at| Some((*at, up(paths.get(at)?)?))).collect();
        let gateways = ways.values().map(|path| (path.ifindex, path.next_hop)).collect();
        if self.next_hops.assign(&gateways).is_none() {
            return Err(DataplaneError::new("place", "the next hops", "the datapath has no room for more"));
        }
        let mut image = Image::default();
        for path in ways.values() {
            image.next_hops.insert(self.next_hop(path), next_hop_entry(path));
        }
        for pool in model.pools().values() {
            let leaving = leaving.get(&pool.name).into_iter().flatten();
            let leaving = leaving.map(|(address, admin)| (*address, *admin));
            let members = pool.backends.values().map(|backend| (backend.address, backend.admin));
            // Whom this load balancer cannot reach takes no new flows from it; the others of the row do, and send on
            // what is his. Where it reaches nobody who is ready there is no better choice, and `no_neighbour` says why.
            let mut ready = pool.backends.values().filter(|backend| backend.admin == AdminState::Ready);
            let reaches_some = ready.any(|backend| ways.contains_key(&backend.address));
            for (address, admin) in members.chain(leaving) {
                let path = ways.get(&address).copied();
                let handle = self.backends.get(&(pool.name.clone(), address)).unwrap_or(0);
                let next_hop = path.map_or(NO_NEXT_HOP, |path| self.next_hop(path));
                let mut entry = backend_entry(pool, address, admin, path, next_hop, sources);
                if path.is_none() && reaches_some {
                    entry.flags &= !backend_flags::READY;
                }
                image.backends.insert(handle, entry);
            }
        }
        for vip in model.vips().values() {
            if let Some(pool) = model.pools().get(&vip.pool) {
                image.vips.insert(vip_key(vip), self.vip_entry(vip, pool));
            }
        }
        Ok(image)
    }

    fn next_hop(&self, path: &Path) -> u32 {
        self.next_hops.get(&(path.ifindex, path.next_hop)).unwrap_or(NO_NEXT_HOP)
    }

    fn vip_entry(&self, vip: &Vip, pool: &Pool) -> VipEntry {
        VipEntry {
            seed: pool.seed,
            vip: self.vips.get(&vip.name).unwrap_or(0),
            table: self.tables.get(&pool.name).unwrap_or(0),
            rows_log2: u32::from(pool.rows_log2),
            zero: 0,
        }
    }
}

fn members_of_chains(tables: &Tables) -> impl Iterator<Item = MemberName> + '_ {
    let of_pool = |(pool, table): (&String, &Arc<PoolTable>)| {
        table.addresses().map(|address| (pool.clone(), address)).collect::<Vec<_>>()
    };
    tables.iter().flat_map(of_pool)
}

fn up(state: &PathState) -> Option<&Path> {
    match state {
        PathState::Up(path) => Some(path),
        PathState::Down { .. } => None,
    }
}

fn next_hop_entry(path: &Path) -> NextHop {
    NextHop {
        ifindex: path.ifindex,
        mtu: path.mtu,
        destination: path.mac,
        source: path.source_mac,
        flags: next_hop_flags::USABLE,
    }
}

fn backend_entry(
    pool: &Pool,
    address: IpAddr,
    admin: AdminState,
    path: Option<&Path>,
    next_hop: u32,
    sources: &[IpAddr],
) -> BackendEntry {
    let configured = sources.iter().find(|source| source.is_ipv4() == address.is_ipv4()).copied();
    // Without a path no packet is sent, so the stand-in never reaches a wire.
    let source = configured.or_else(|| path.map(|path| path.source)).unwrap_or(address);
    // Health checks come later; until then everything counts as healthy.
    let mut flags = backend_flags::HEALTHY;
    match admin {
        AdminState::Ready => flags |= backend_flags::READY,
        AdminState::Drain => {}
        AdminState::Maint => flags |= backend_flags::MAINT,
    }
    if pool.encapsulation == Encapsulation::Gue {
        flags |= backend_flags::GUE;
    }
    if pool.agent {
        flags |= backend_flags::AGENT;
    }
    BackendEntry {
        address: address.into(),
        source: source.into(),
        next_hop,
        flags,
        gue_port: pool.gue_port.to_be_bytes(),
        zero: [0; 6],
    }
}

fn vip_key(vip: &Vip) -> VipKey {
    let number = match vip.protocol {
        Protocol::Tcp => protocol::TCP,
        Protocol::Udp => protocol::UDP,
    };
    VipKey::new(vip.address.into(), vip.port.to_be_bytes(), number)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::epochs::Epochs;
    use crate::model::{Backend, Fleet};

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 8, 11, last])
    }

    /// Pool web with these backends.
    fn model(seed: u64, members: &[u8]) -> Model {
        let mut pool = Pool { seed, rows_log2: 12, ..Pool::named("web") };
        for last in members {
            pool.insert(Backend::new(address(*last), 1)).expect("a fine backend");
        }
        let mut model = Model::new(Fleet::default());
        model.insert_pool(pool).expect("a fine pool");
        model
    }

    fn begin(model: &Model) -> Epochs {
        Epochs::start(Duration::ZERO, BTreeMap::new(), model, Instant::now()).expect("starts").epochs
    }

    fn handle(numbers: &Numbers, last: u8) -> u32 {
        numbers.backends.get(&("web".to_owned(), address(last))).expect("a handle")
    }

    fn way() -> PathState {
        PathState::Up(Path {
            ifindex: 2,
            interface: "eth0".to_owned(),
            next_hop: address(254),
            mac: [2; 6],
            source_mac: [2; 6],
            mtu: 1600,
            source: address(200),
        })
    }

    #[test]
    fn a_member_that_left_keeps_handle_entry_and_way_and_takes_no_new_flow() {
        let (before, after) = (model(1, &[1, 2]), model(1, &[2, 3]));
        let epochs = begin(&before);
        let mut numbers = Numbers::new();
        numbers.assign(&before, &epochs.tables(), &Tables::new()).expect("room");
        let of_left = handle(&numbers, 1);
        let next = epochs.advance(&after, Instant::now()).expect("advances").epochs;
        numbers.assign(&after, &next.tables(), &epochs.tables()).expect("room");
        assert_eq!(handle(&numbers, 1), of_left);
        let paths = [1, 2, 3].map(|last| (address(last), way())).into();
        let image = numbers.image(&after, &next.leaving(&after), &paths, &[]).expect("an image");
        let left = image.backends[&of_left];
        assert!(left.is_reachable() && !left.takes_new_flows());
        assert_ne!(left.next_hop, NO_NEXT_HOP);
        assert!(image.backends[&handle(&numbers, 3)].takes_new_flows());
        // No row points to an entry that is not there.
        let table = &next.tables()["web"];
        let rows = table.rows(|address| match address.to_ip() {
            IpAddr::V4(v4) => handle(&numbers, v4.octets()[3]) as u16,
            IpAddr::V6(_) => 0,
        });
        let mut of_the_left = 0;
        for chain in rows {
            let handles: Vec<_> = chain.0.into_iter().filter(|handle| *handle != 0).collect();
            assert!(handles.iter().all(|handle| image.backends.contains_key(&u32::from(*handle))));
            of_the_left += u32::from(handles.contains(&(of_left as u16)));
        }
        assert_eq!(of_the_left, table.members[&address(1)].chain_rows);
    }

    #[test]
    fn whom_this_load_balancer_cannot_reach_takes_no_new_flows_unless_it_reaches_nobody() {
        let model = model(1, &[1, 2]);
        let epochs = begin(&model);
        let mut numbers = Numbers::new();
        numbers.assign(&model, &epochs.tables(), &Tables::new()).expect("room");
        let mut takes_new = |up: &[u8]| {
            let paths = up.iter().map(|last| (address(*last), way())).collect();
            let image = numbers.image(&model, &Leaving::new(), &paths, &[]).expect("an image");
            let taking = |last| {
                let entry = image.backends[&handle(&numbers, last)];
                assert!(entry.is_reachable(), "others may reach it: it stays a hop of its chains");
                entry.takes_new_flows()
            };
            [1, 2].map(taking)
        };
        assert_eq!(takes_new(&[1, 2]), [true, true]);
        assert_eq!(takes_new(&[2]), [false, true]);
        assert_eq!(takes_new(&[]), [true, true]);
    }

    #[test]
    fn no_handle_changes_hands_while_the_live_table_holds_it() {
        // Another seed: the new chains know nobody of the old ones.
        let (before, after) = (model(1, &[1, 2]), model(2, &[3, 4]));
        let (epochs, next) = (begin(&before), begin(&after));
        let three_handles = || {
            let mut numbers = Numbers { backends: Registry::new(1, 4), ..Numbers::new() };
            numbers.assign(&before, &epochs.tables(), &Tables::new()).expect("room for two");
            numbers
        };
        let mut numbers = three_handles();
        let refused = numbers.assign(&after, &next.tables(), &epochs.tables());
        assert!(refused.expect_err("no room for four").to_string().contains("backends"));
        // When nobody reads the old table any more, the same two find room.
        let recycled = three_handles().assign(&after, &next.tables(), &Tables::new()).expect("room");
        assert_eq!(recycled.backends.len(), 1);
    }
}
