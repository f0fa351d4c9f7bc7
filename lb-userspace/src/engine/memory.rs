//! A datapath without a kernel: tables are built, nothing is forwarded.
//!
//! It answers "which backend would it be" on a machine that is no load balancer, and it is the engine's
//! partner in tests.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use lb_common::rows::{CONTRACT_VERSION, Member, Table, TableSpec, owners_digest};

use super::boundary::{
    Attachment, Counters, Dataplane, DataplaneError, MapMemory, OwnerShare, Published, TablePublished,
    TableView,
};
use super::paths::Paths;
use crate::model::{Model, Pool};

#[derive(Debug, Default)]
pub struct MemoryDataplane {
    tables: BTreeMap<String, PoolTable>,
    paths: Paths,
    counters: Counters,
}

/// The published table of one pool, with what it was built from.
#[derive(Debug)]
struct PoolTable {
    seed: u64,
    rows_log2: u8,
    slack_permille: u16,
    members: Vec<Member>,
    table: Table,
    digest: u64,
    build: Duration,
}

impl MemoryDataplane {
    /// The next hops it was last given.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }
}

impl Dataplane for MemoryDataplane {
    fn publish(&mut self, model: &Model) -> Result<Published, DataplaneError> {
        let mut changed = BTreeMap::new();
        for pool in model.pools().values() {
            if !self.tables.get(&pool.name).is_some_and(|table| table.is_of(pool)) {
                changed.insert(pool.name.clone(), PoolTable::build(pool)?);
            }
        }
        let tables = changed
            .iter()
            .map(|(pool, table)| TablePublished {
                pool: pool.clone(),
                build: table.build,
                publish: Duration::ZERO,
                moved_rows: table.moved_rows(self.tables.get(pool)),
            })
            .collect();
        self.tables.retain(|name, _| model.pools().contains_key(name));
        self.tables.append(&mut changed);
        Ok(Published { tables })
    }

    fn set_paths(&mut self, paths: &Paths) -> Result<(), DataplaneError> {
        self.paths.clone_from(paths);
        Ok(())
    }

    fn counters(&self) -> Result<Counters, DataplaneError> {
        Ok(self.counters.clone())
    }

    fn table(&self, pool: &str) -> Option<TableView> {
        self.tables.get(pool).map(|table| table.view(pool))
    }

    fn attachments(&self) -> Vec<Attachment> {
        Vec::new()
    }

    fn memory(&self) -> Vec<MapMemory> {
        Vec::new()
    }
}

impl PoolTable {
    fn build(pool: &Pool) -> Result<Self, DataplaneError> {
        let members = members(pool);
        let started = Instant::now();
        let spec = TableSpec {
            seed: pool.seed,
            rows_log2: pool.rows_log2,
            slack_permille: pool.slack_permille,
            members: &members,
        };
        let table = spec
            .build()
            .map_err(|error| DataplaneError::new("build the table of pool", &pool.name, error))?;
        let digest = owners_digest(&spec, &table);
        Ok(Self {
            seed: pool.seed,
            rows_log2: pool.rows_log2,
            slack_permille: pool.slack_permille,
            build: started.elapsed(),
            members,
            table,
            digest,
        })
    }

    /// Whether the pool's table would be this one.
    fn is_of(&self, pool: &Pool) -> bool {
        self.seed == pool.seed
            && self.rows_log2 == pool.rows_log2
            && self.slack_permille == pool.slack_permille
            && self.members == members(pool)
    }

    fn moved_rows(&self, before: Option<&Self>) -> u32 {
        let moved = before.map_or(self.table.rows.len(), |before| {
            before.table.moved_rows(&self.table, &before.members, &self.members)
        });
        moved.try_into().unwrap_or(u32::MAX)
    }

    fn view(&self, pool: &str) -> TableView {
        let rows = 1_u32 << self.rows_log2;
        let total: f64 = self.members.iter().map(|member| f64::from(member.weight)).sum();
        let mut owners: Vec<OwnerShare> = self
            .members
            .iter()
            .map(|member| OwnerShare {
                weight: member.weight,
                rows: 0,
                standby_rows: 0,
                ideal_rows: f64::from(rows) * f64::from(member.weight) / total,
            })
            .collect();
        for row in &self.table.rows {
            if let Some(owner) = owners.get_mut(usize::from(row.owner)) {
                owner.rows += 1;
            }
            // A pool of one has no standby: its number is out of range.
            if let Some(standby) = owners.get_mut(usize::from(row.standby)) {
                standby.standby_rows += 1;
            }
        }
        // Exact: the model refuses IPv4-mapped addresses as backends.
        let addresses =
            self.members.iter().map(|member| Ipv6Addr::from(*member.address.bytes()).to_canonical());
        TableView {
            pool: pool.to_owned(),
            rows,
            owners: addresses.zip(owners).collect(),
            owners_digest: self.digest,
            contract: CONTRACT_VERSION,
            build: self.build,
            publish: Duration::ZERO,
        }
    }
}

fn members(pool: &Pool) -> Vec<Member> {
    let member =
        |backend: &crate::model::Backend| Member { address: backend.address.into(), weight: backend.weight };
    pool.backends.values().map(member).collect()
}
