//! What is published of a pool: its chains, and what a person wants to know of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::{CHAIN_LEN, Chain};
use lb_common::address::Address;
use lb_common::rows::{Chains, Fold, History, Member};

use super::Change;

/// A table of chains. It never changes: a change of the pool makes another one.
#[derive(Debug)]
pub struct PoolTable {
    chains: Chains,
    /// The newest committed epoch.
    pub epoch: u64,
    /// The epoch that is prepared; `None`: the table is of a committed epoch.
    pub prepared: Option<Change>,
    /// Rows whose owner changes with the epoch that this publication prepares or, where nothing was prepared,
    /// commits; all rows of a pool that begins.
    pub moved_rows: u32,
    /// Digest of owners and standbys of the newest committed epoch.
    pub owners_digest: u64,
    /// Digest of the chains as published.
    pub chains_digest: u64,
    /// Rows with one, two, three and four members.
    pub lengths: [u32; CHAIN_LEN],
    /// Everybody in a chain or in the membership.
    pub members: BTreeMap<IpAddr, Shares>,
    /// Time to compute it.
    pub build: Duration,
}

/// What one member has of a table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    /// 0: it left the pool and is in chains only.
    pub weight: u16,
    /// Rows whose new flows it gets.
    pub rows: u32,
    /// Rows in which it is the newest standby.
    pub standby_rows: u32,
    /// Rows that have it in their chain.
    pub chain_rows: u32,
}

impl PoolTable {
    /// The table of a pool that begins.
    pub(super) fn first(history: &History, build: Duration) -> Self {
        let chains = history.committed();
        let rows = u32::try_from(chains.rows.len()).unwrap_or(u32::MAX);
        Self::new(chains, history, history.spec().members(), rows, build)
    }

    /// The table that prepares `next`.
    pub(super) fn preparing(history: &History, next: &Fold, build: Duration) -> Self {
        let members = next.history.spec().members();
        let chains = history.prepared(&next.history);
        let table = Self::new(chains, history, members, next.moved_rows, build);
        Self { prepared: Some(Change::of(next)), ..table }
    }

    /// The table after the commit of `next`.
    pub(super) fn committed(next: &Fold, build: Duration) -> Self {
        let members = next.history.spec().members();
        Self::new(next.history.committed(), &next.history, members, next.moved_rows, build)
    }

    fn new(chains: Chains, history: &History, members: &[Member], moved_rows: u32, build: Duration) -> Self {
        let mut lengths = [0; CHAIN_LEN];
        let mut shares = vec![Shares::default(); chains.members.len()];
        for row in &chains.rows {
            let in_chain = row.iter().map_while(|member| chains.members.get(usize::from(*member)));
            if let Some(count) = in_chain.count().checked_sub(1).and_then(|length| lengths.get_mut(length)) {
                *count += 1;
            }
            for (place, member) in row.iter().enumerate() {
                if let Some(shares) = shares.get_mut(usize::from(*member)) {
                    shares.rows += u32::from(place == 0);
                    shares.chain_rows += 1;
                }
            }
        }
        let mut by_address: BTreeMap<IpAddr, Shares> =
            chains.members.iter().map(|address| address.to_ip()).zip(shares).collect();
        for member in members {
            by_address.entry(member.address.to_ip()).or_default().weight = member.weight;
        }
        for (standby, rows) in history.standby_rows() {
            by_address.entry(standby.to_ip()).or_default().standby_rows = rows;
        }
        Self {
            epoch: history.epoch(),
            prepared: None,
            moved_rows,
            owners_digest: history.owners_digest(),
            chains_digest: chains.digest(),
            lengths,
            members: by_address,
            chains,
            build,
        }
    }

    /// The rows as the datapath reads them. `handle` gives a member's handle.
    pub fn rows(&self, handle: impl Fn(Address) -> u16) -> Vec<Chain> {
        let handles: Vec<u16> = self.chains.members.iter().map(|member| handle(*member)).collect();
        let of = |member: u16| handles.get(usize::from(member)).copied().unwrap_or(0);
        self.chains.rows.iter().map(|row| Chain(row.map(of))).collect()
    }

    /// Number of rows.
    pub fn row_count(&self) -> u32 {
        u32::try_from(self.chains.rows.len()).unwrap_or(u32::MAX)
    }

    /// Everybody in a chain.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.chains.members.iter().map(|member| member.to_ip())
    }

    /// The addresses in the chain of one row, in their order.
    pub fn chain(&self, row: usize) -> impl Iterator<Item = IpAddr> + '_ {
        self.chains.row(row).map(Address::to_ip)
    }
}
