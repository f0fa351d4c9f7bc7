//! Row tables: which backend a flow belongs to, computed alike on every load balancer.
//!
//! The space of flows is cut into a fixed number of *rows* (a power of two), and a table gives each row an
//! *owner* and a *standby*. Load balancers never talk about flows: they build the same table from the same
//! configuration, so any of them can take over a flow of any other. That is why everything here is integers
//! only, without clock, randomness or I/O.
//!
//! **Rank.** For one row, every member of the pool draws a number from a hash of the row and its own address.
//! The member with the best draw ranks first. A member's draw does not depend on who else is in the pool, so
//! when a member leaves, the others keep their order: only the rows where it came first see a new winner
//! (rendezvous hashing, "highest random weight"). Weights enter as `weight / -log2(draw)`, which makes the
//! chance of winning proportional to the weight.
//!
//! **Owner.** Chance alone overloads some members: with 100 members and 65536 rows the unluckiest gets 10 %
//! too much. So a member may own at most its exact share plus a slack (2 % by default). Rows are visited in a
//! fixed shuffled order, and each goes to its best-ranked member that still has room. A smaller slack
//! balances better; a larger one moves fewer rows on a change. Chance scatters by about
//! `sqrt(members / rows)` of a share: where that is more than the slack, many members are full, every change
//! moves all caps a little, and some rows move that need not. More rows cure that.
//!
//! **Standby.** The best-ranked member other than the owner, by rank alone: blind to room, health and
//! administrative state. It is where the owner's flows go when it fails, so it must not depend on anything
//! two load balancers may see differently.
//!
//! **History.** A table knows one membership. [`History`] folds the tables of all memberships that a pool had
//! into the chains that are published, so that flows of earlier epochs still find their member.
//!
//! # The contract
//!
//! Every load balancer of a fleet must compute the same table. [`CONTRACT_VERSION`] numbers these rules; any
//! change of result is a new number. A second implementation (`tests/rows_oracle.py`) is the source of the
//! test vectors.
//!
//! 1. *Member hash* of (row, member): XXH64, seeded with the pool seed, over 20 bytes: the row as 32 bits
//!    big-endian, then the member's address as 16 bytes in network order (IPv4 as IPv4-mapped IPv6). Its
//!    lowest bit is set to 1. Call it `h`.
//! 2. *Length*: `L = -log2(h / 2^64)` with 56 fraction bits. With `T[i] = floor(2^56 * log2(1 + i/1024))` for
//!    i = 0 to 1024, `e` the position of the highest set bit of `h`, `i` the 10 bits below it and `r` the 53
//!    bits below those (zeros where `h` has no more):
//!    `L = (64 - e) * 2^56 - T[i] - floor((T[i+1] - T[i]) * r / 2^53)`.
//! 3. *Rank*: a ranks before b if `weight_a * L_b > weight_b * L_a`, exactly; on a tie, the lower address (as
//!    16 bytes) is first.
//! 4. *Cap* of a member: `ceil(rows * weight * (1000 + slack) / (total weight * 1000))`, slack in per mille.
//! 5. *Order of visits*: rows by ascending (order hash, row). Order hash: XXH64, seeded with the pool seed,
//!    over 9 bytes: the row as 32 bits big-endian, then the ASCII word `order`.
//! 6. *Owner*: each row in that order goes to its best-ranked member that owns fewer rows than its cap.
//! 7. *Standby*: the best-ranked member other than the owner; none in a pool of one.
//! 8. *Owners digest*: see [`owners_digest`].
//! 9. *Chains and their digest*: see [`History`] and [`Chains::digest`].
//!
//! The order in which members are listed changes nothing but their numbers.

mod assign;
mod checkpoint;
mod digest;
mod hash;
mod history;
mod log2;
mod rank;
#[cfg(test)]
mod tests;

use alloc::{vec, vec::Vec};
use core::{fmt, ops::RangeInclusive};

pub use self::checkpoint::{Checkpoint, CheckpointError, FORMAT};
pub use self::digest::owners_digest;
pub use self::history::{CHAIN_LEN, Chains, Fold, History, PoolSpec};
use self::rank::{Contender, Score};
use crate::abi::limits;
use crate::address::Address;
pub use crate::flow::CONTRACT_VERSION;

/// In [`RowMembers`]: no member.
pub const NONE: u16 = u16::MAX;

/// Allowed values of [`TableSpec::rows_log2`]: 4096 to 1048576 rows.
pub const ROWS_LOG2: RangeInclusive<u8> = limits::MIN_ROWS_LOG2 as u8..=limits::MAX_ROWS_LOG2 as u8;

/// Most members in one pool: member numbers have 16 bits, and one of them is [`NONE`].
pub const MAX_MEMBERS: usize = 65534;

/// A backend in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its identity: the same address added again is the same member.
    pub address: Address,
    /// Share of the pool's flows, relative to the other members; 1 or more.
    pub weight: u16,
}

/// Everything that a row table depends on.
#[derive(Clone, Copy, Debug)]
pub struct TableSpec<'a> {
    /// Pool seed. The same on every load balancer, and kept from clients, so that nobody can aim flows at one
    /// backend.
    pub seed: u64,
    /// Base-2 logarithm of the row count, in [`ROWS_LOG2`].
    pub rows_log2: u8,
    /// How far a member may exceed its exact share of rows, in per mille (20 = 2 %).
    pub slack_permille: u16,
    /// The members, in any order; no address twice.
    pub members: &'a [Member],
}

/// Owner and standby of every row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// By row number; 2^`rows_log2` entries.
    pub rows: Vec<RowMembers>,
}

/// Who serves one row: indices into [`TableSpec::members`] as given, or [`NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowMembers {
    /// The member that gets the new flows of this row.
    pub owner: u16,
    /// The member that comes next; never the owner. [`NONE`] in a pool of one.
    pub standby: u16,
}

/// How far a table is from exact shares. An exact share is `rows * weight / total weight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// The most that a member owns above its share, in per mille of that share, rounded up.
    pub max_over_permille: u32,
    /// The most that a member lacks of its share, in per mille of that share, rounded up; 1000 = it owns no
    /// row.
    pub max_under_permille: u32,
}

/// Why a [`TableSpec`] has no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecError {
    /// `rows_log2` is outside [`ROWS_LOG2`].
    RowCount { rows_log2: u8 },
    /// The pool is empty.
    NoMembers,
    /// More than [`MAX_MEMBERS`].
    TooManyMembers { count: usize },
    /// A member has weight 0.
    ZeroWeight { address: Address },
    /// An address is listed more than once.
    DuplicateAddress { address: Address },
}

impl TableSpec<'_> {
    /// Builds the table: rows times members hashes.
    pub fn build(&self) -> Result<Table, SpecError> {
        self.check()?;
        Ok(Table { rows: assign::assign(self) })
    }

    /// All members by rank for `row`, best first, as indices into `members`: who would be next if those
    /// before could not serve.
    pub fn rank_order(&self, row: u32) -> Vec<u16> {
        let contenders = rank::contenders(self);
        let score = |contender: &Contender| Score::new(contender, self.seed, row);
        let mut ranked: Vec<_> =
            contenders.iter().map(|contender| (score(contender), contender.number)).collect();
        // Stable: a tie stays in the order of addresses.
        ranked.sort_by(|(a, _), (b, _)| b.beats(a).cmp(&a.beats(b)));
        ranked.into_iter().map(|(_, number)| number).collect()
    }

    fn rows(&self) -> u32 {
        1 << self.rows_log2
    }

    fn check(&self) -> Result<(), SpecError> {
        if !ROWS_LOG2.contains(&self.rows_log2) {
            return Err(SpecError::RowCount { rows_log2: self.rows_log2 });
        }
        if self.members.is_empty() {
            return Err(SpecError::NoMembers);
        }
        if self.members.len() > MAX_MEMBERS {
            return Err(SpecError::TooManyMembers { count: self.members.len() });
        }
        if let Some(member) = self.members.iter().find(|member| member.weight == 0) {
            return Err(SpecError::ZeroWeight { address: member.address });
        }
        let mut addresses: Vec<_> = self.members.iter().map(|member| member.address).collect();
        addresses.sort_unstable();
        match addresses.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(SpecError::DuplicateAddress { address: pair[0] }),
            None => Ok(()),
        }
    }
}

impl Table {
    /// Rows that each of `members` owns, in their order. `members` are those the table was built from.
    pub fn owners_per_member(&self, members: &[Member]) -> Vec<u32> {
        let mut owned = vec![0; members.len()];
        for row in &self.rows {
            if let Some(count) = owned.get_mut(usize::from(row.owner)) {
                *count += 1;
            }
        }
        owned
    }

    /// The worst deviations from the exact shares. `members` are those the table was built from.
    pub fn balance(&self, members: &[Member]) -> Balance {
        let total: u128 = members.iter().map(|member| u128::from(member.weight)).sum();
        let rows = self.rows.len() as u128;
        let mut balance = Balance::default();
        for (member, owned) in members.iter().zip(self.owners_per_member(members)) {
            // Both sides times the total weight, so that the share is a whole number.
            let (owned, share) = (u128::from(owned) * total, rows * u128::from(member.weight));
            let permille = (owned.abs_diff(share) * 1000).div_ceil(share);
            let permille = u32::try_from(permille).unwrap_or(u32::MAX);
            let worst =
                if owned > share { &mut balance.max_over_permille } else { &mut balance.max_under_permille };
            *worst = permille.max(*worst);
        }
        balance
    }

    /// Rows whose owner has another address in `other`. The members are those that each table was built from.
    ///
    /// Both tables must have the same number of rows; rows that only one of them has count as moved.
    pub fn moved_rows(&self, other: &Self, self_members: &[Member], other_members: &[Member]) -> usize {
        let address =
            |members: &[Member], row: &RowMembers| members.get(usize::from(row.owner)).map(|m| m.address);
        let moved = self
            .rows
            .iter()
            .zip(&other.rows)
            .filter(|(before, after)| address(self_members, before) != address(other_members, after))
            .count();
        moved + self.rows.len().abs_diff(other.rows.len())
    }
}

impl core::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot build the row table: ")?;
        match self {
            Self::RowCount { rows_log2 } => {
                let (least, most) = (1_u32 << ROWS_LOG2.start(), 1_u32 << ROWS_LOG2.end());
                write!(f, "2^{rows_log2} rows; set rows to a power of two from {least} to {most}")
            }
            Self::NoMembers => f.write_str("the pool has no member; add a backend to it"),
            Self::TooManyMembers { count } => {
                write!(
                    f,
                    "the pool has {count} members, at most {MAX_MEMBERS} are possible; split it into several pools"
                )
            }
            Self::ZeroWeight { address } => {
                write!(
                    f,
                    "{address} has weight 0; give it a weight of 1 or more, or drain it to stop new flows"
                )
            }
            Self::DuplicateAddress { address } => {
                write!(
                    f,
                    "{address} is in the pool more than once; keep one entry, with the sum of the weights"
                )
            }
        }
    }
}
