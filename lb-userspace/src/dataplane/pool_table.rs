//! A pool's row table, and when it must be built anew.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_common::abi::Chain;
use lb_common::address::Address;
use lb_common::flow::CONTRACT_VERSION;
use lb_common::rows::{self, Member, SpecError, Table, TableSpec};

use crate::engine::boundary::{OwnerShare, TableView};
use crate::model::Pool;

/// A built table with everything that it depends on.
#[derive(Debug, Clone)]
pub(super) struct PoolTable {
    seed: u64,
    rows_log2: u8,
    slack_permille: u16,
    members: Vec<Member>,
    table: Table,
    digest: u64,
    /// Time that the build took.
    pub(super) build: Duration,
}

impl PoolTable {
    /// Builds the table of a pool. Admin state is not an input: it never touches rows.
    pub(super) fn build(pool: &Pool) -> Result<Self, SpecError> {
        let started = Instant::now();
        let members = members_of(pool);
        let spec = TableSpec {
            seed: pool.seed,
            rows_log2: pool.rows_log2,
            slack_permille: pool.slack_permille,
            members: &members,
        };
        let table = spec.build()?;
        let digest = rows::owners_digest(&spec, &table);
        Ok(Self {
            seed: pool.seed,
            rows_log2: pool.rows_log2,
            slack_permille: pool.slack_permille,
            members,
            table,
            digest,
            build: started.elapsed(),
        })
    }

    /// Whether the table of `pool` would be this one.
    pub(super) fn is_of(&self, pool: &Pool) -> bool {
        self.seed == pool.seed
            && self.rows_log2 == pool.rows_log2
            && self.slack_permille == pool.slack_permille
            && self.members == members_of(pool)
    }

    /// Rows with another owner than in `before`; all rows where there was no table.
    pub(super) fn moved_rows(&self, before: Option<&Self>) -> u32 {
        let moved = match before {
            Some(before) => before.table.moved_rows(&self.table, &before.members, &self.members),
            None => self.table.rows.len(),
        };
        u32::try_from(moved).unwrap_or(u32::MAX)
    }

    /// The rows as the datapath reads them: owner, then standby. `handle` gives a member's handle.
    pub(super) fn chains(&self, handle: impl Fn(Address) -> u16) -> Vec<Chain> {
        let handles: Vec<u16> = self.members.iter().map(|member| handle(member.address)).collect();
        let of = |member: u16| handles.get(usize::from(member)).copied().unwrap_or(0);
        self.table.rows.iter().map(|row| Chain([of(row.owner), of(row.standby), 0, 0])).collect()
    }

    /// The table for people.
    pub(super) fn view(&self, pool: &str, publish: Duration) -> TableView {
        let total: f64 = self.members.iter().map(|member| f64::from(member.weight)).sum();
        let rows = self.table.rows.len();
        let mut owners: BTreeMap<IpAddr, OwnerShare> = BTreeMap::new();
        let mut standbys = vec![0_u32; self.members.len()];
        for row in &self.table.rows {
            if let Some(count) = standbys.get_mut(usize::from(row.standby)) {
                *count += 1;
            }
        }
        let owned = self.table.owners_per_member(&self.members);
        for ((member, rows_owned), standby_rows) in self.members.iter().zip(owned).zip(standbys) {
            let share = OwnerShare {
                weight: member.weight,
                rows: rows_owned,
                standby_rows,
                ideal_rows: rows as f64 * f64::from(member.weight) / total,
            };
            owners.insert(member.address.to_ip(), share);
        }
        TableView {
            pool: pool.to_owned(),
            rows: u32::try_from(rows).unwrap_or(u32::MAX),
            owners,
            owners_digest: self.digest,
            contract: CONTRACT_VERSION,
            build: self.build,
            publish,
        }
    }
}

fn members_of(pool: &Pool) -> Vec<Member> {
    let member = |(address, weight): (&IpAddr, u16)| Member { address: (*address).into(), weight };
    pool.backends.iter().map(|(address, backend)| member((address, backend.weight))).collect()
}
