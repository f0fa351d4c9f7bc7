//! What a row remembers: the fold of a pool's epochs into chains.
//!
//! An *epoch* is one version of a pool's membership. A flow lives on the member that owned its row when the flow
//! began, so a row keeps the members of earlier epochs behind its owner, and a packet that the owner does not know
//! goes along this *chain*. With `owner(e)` and `standby(e)` from the table of epoch e:
//!
//! ```text
//! chain(0) = owner(0), standby(0)
//! chain(e) = owner(e), chain(e-1), standby(e)        each member once, at its first place, cut at four
//! ```
//!
//! `chain(e-1)` still has its standby: while its owner was drained, that is where new flows went. Owners enter in
//! front and standbys at the end, so the further back a member stands, the less likely it holds a flow. Where there
//! are more than four, the last one that is not the new standby falls out. The new owner and the new standby always
//! stay.
//!
//! # Two phases
//!
//! A change is published twice, so that load balancers that apply it a little apart never disagree about a flow.
//! Until the commit each row holds the *prepared* chain: the members of `chain(e)`, those of `chain(e-1)` first and
//! in their old order. What that gives, for the old chain S, the prepared chain P and the committed chain C:
//!
//! - *P and C hold the same members.* Wherever a flow begins on a load balancer in one phase, a load balancer in
//!   the other phase has that member in its chain, whatever is drained or down.
//! - *P begins with the members of S in the order of S.* The first member of P that takes new flows is the one of S,
//!   as long as the change did not push it out. So a load balancer that has not heard of the change and one that
//!   prepares it send new flows to the same member, also where the old owner is drained. (With the next owner
//!   directly behind the old one, a drained old owner would begin flows on a member that S does not have.)
//! - *No change pushes out the old owner*: it is second in `chain(e)`, and the cut takes from the third on. Neither do
//!   two changes in a row, so a load balancer that prepares e + 1 still agrees with one that prepares e.
//!
//! What can still break a flow is a row without room: a member that falls out of the chain takes its flows along.
//! [`Fold`] counts them before anything is published.

use alloc::{collections::BTreeMap, vec, vec::Vec};
use core::iter;

use xxhash_rust::xxh64::Xxh64;

use super::{CONTRACT_VERSION, Member, NONE, RowMembers, SpecError, Table, TableSpec, owners_digest};
pub use crate::abi::CHAIN_LEN;
use crate::address::Address;

/// All that a pool's chains depend on: its newest epoch and what earlier ones left behind.
///
/// The same epochs in the same order give an equal history on every machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    pub(super) epoch: u64,
    pub(super) spec: PoolSpec,
    /// Everybody in a chain, by ascending address. Rows hold indices into it.
    pub(super) addresses: Vec<Address>,
    pub(super) rows: Vec<Remembered>,
}

/// One row of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    /// The newest owner first; [`NONE`] behind the last.
    pub(super) chain: [u16; CHAIN_LEN],
    /// The newest standby; [`NONE`] in a pool of one.
    pub(super) standby: u16,
}

/// A [`TableSpec`] that owns its members and has them by ascending address, so that equal pools are equal values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSpec {
    pub(super) seed: u64,
    pub(super) rows_log2: u8,
    pub(super) slack_permille: u16,
    pub(super) members: Vec<Member>,
}

/// A history with one more epoch, and what that epoch does to the flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The history after the epoch.
    pub history: History,
    /// Rows whose owner changes.
    pub moved_rows: u32,
    /// Rows that have no room for the epoch: at least one member falls out of their chain.
    pub full_rows: u32,
    /// In how many rows each member falls out. The flows that it holds there break.
    pub pushed_out: BTreeMap<Address, u32>,
}

/// The chains of all rows as they are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chains {
    /// Everybody who is in a chain, by ascending address.
    pub members: Vec<Address>,
    /// By row: indices into `members`, first who gets new flows; [`NONE`] behind the last.
    pub rows: Vec<[u16; CHAIN_LEN]>,
}

impl History {
    /// The first epoch of a pool, number 1.
    pub fn begin(spec: PoolSpec) -> Result<Self, SpecError> {
        let table = spec.as_table_spec().build()?;
        let row = |row: &RowMembers| Remembered {
            chain: fold(row.owner, [NONE; CHAIN_LEN], row.standby).kept,
            standby: row.standby,
        };
        // Both are by ascending address, so the table's numbers are the history's.
        let rows = table.rows.iter().map(row).collect();
        Ok(Self { epoch: 1, addresses: spec.addresses().collect(), spec, rows }.without_unused())
    }

    /// The history after one more epoch, with `members` in any order. Rows, seed and slack stay as they are.
    pub fn then(&self, members: Vec<Member>) -> Result<Fold, SpecError> {
        let spec = PoolSpec::new(self.spec.seed, self.spec.rows_log2, self.spec.slack_permille, members);
        let table = spec.as_table_spec().build()?;
        let mut addresses: Vec<_> = self.addresses.iter().copied().chain(spec.addresses()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.len() > super::MAX_MEMBERS {
            return Err(SpecError::TooManyMembers { count: addresses.len() });
        }
        let of_old = numbers_in(&addresses, &self.addresses);
        let of_new = numbers_in(&addresses, spec.members.iter().map(|member| &member.address));
        let (mut moved_rows, mut full_rows) = (0, 0);
        let mut pushed_out = vec![0_u32; addresses.len()];
        let mut rows = Vec::with_capacity(self.rows.len());
        for (before, row) in self.rows.iter().zip(&table.rows) {
            let (owner, standby) = (renumber(&of_new, row.owner), renumber(&of_new, row.standby));
            let before = before.chain.map(|member| renumber(&of_old, member));
            let folded = fold(owner, before, standby);
            moved_rows += u32::from(before[0] != owner);
            full_rows += u32::from(folded.fallen[0] != NONE);
            for fallen in folded.fallen.into_iter().filter(|member| *member != NONE) {
                pushed_out[usize::from(fallen)] += 1;
            }
            rows.push(Remembered { chain: folded.kept, standby });
        }
        let pushed_out = addresses.iter().copied().zip(pushed_out).filter(|(_, rows)| *rows > 0).collect();
        let history = Self { epoch: self.epoch + 1, spec, addresses, rows }.without_unused();
        Ok(Fold { history, moved_rows, full_rows, pushed_out })
    }

    /// The history without a member in the chains in which it is neither the newest owner nor the newest standby, and
    /// the number of those rows. For a member that holds no flow of the pool any more; logged by the caller, because
    /// all load balancers must retire the same members.
    #[must_use]
    pub fn retire(mut self, member: Address) -> (Self, u32) {
        let number = numbers_in(&self.addresses, [&member])[0];
        let mut retired = 0;
        for row in &mut self.rows {
            let stays = row.chain[0] == number || row.standby == number;
            if number != NONE && !stays && row.chain.contains(&number) {
                row.chain = compact(row.chain.into_iter().filter(|other| *other != number));
                retired += 1;
            }
        }
        (self.without_unused(), retired)
    }

    /// Counts up by one with each epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The newest epoch's pool.
    pub fn spec(&self) -> &PoolSpec {
        &self.spec
    }

    /// The chains of load balancers that have committed the newest epoch.
    pub fn committed(&self) -> Chains {
        Chains { members: self.addresses.clone(), rows: self.rows.iter().map(|row| row.chain).collect() }
    }

    /// The chains of load balancers that prepare `next`, the history after one more epoch: its members, ours first
    /// and in our order.
    pub fn prepared(&self, next: &Self) -> Chains {
        let of_ours = numbers_in(&next.addresses, &self.addresses);
        let row = |(ours, next): (&Remembered, &Remembered)| {
            let ours = ours.chain.map(|member| renumber(&of_ours, member));
            let kept = ours.into_iter().filter(|member| *member != NONE && next.chain.contains(member));
            compact(kept.chain(next.chain.into_iter().filter(|member| !ours.contains(member))))
        };
        Chains { members: next.addresses.clone(), rows: self.rows.iter().zip(&next.rows).map(row).collect() }
    }

    /// In how many rows each member is the newest standby; those who are in none are missing.
    pub fn standby_rows(&self) -> BTreeMap<Address, u32> {
        let mut rows = BTreeMap::new();
        let standbys = self.rows.iter().filter_map(|row| self.addresses.get(usize::from(row.standby)));
        for standby in standbys {
            *rows.entry(*standby).or_insert(0) += 1;
        }
        rows
    }

    /// How many rows each member owns; those who own none are missing.
    pub fn owned_rows(&self) -> BTreeMap<Address, u32> {
        let mut rows = BTreeMap::new();
        let owners = self.rows.iter().filter_map(|row| self.addresses.get(usize::from(row.chain[0])));
        for owner in owners {
            *rows.entry(*owner).or_insert(0) += 1;
        }
        rows
    }

    /// See [`owners_digest`]: of the newest epoch, whatever came before it.
    pub fn owners_digest(&self) -> u64 {
        let number = |member: u16| {
            let address = self.addresses.get(usize::from(member));
            let found = address.map(|at| self.spec.members.binary_search_by_key(at, |member| member.address));
            found.and_then(Result::ok).map_or(NONE, |number| number as u16)
        };
        let numbers: Vec<_> = (0..self.addresses.len() as u16).map(number).collect();
        let row = |row: &Remembered| RowMembers {
            owner: renumber(&numbers, row.chain[0]),
            standby: renumber(&numbers, row.standby),
        };
        let table = Table { rows: self.rows.iter().map(row).collect() };
        owners_digest(&self.spec.as_table_spec(), &table)
    }

    /// Forgets the addresses that are in no chain, so that equal histories are equal values.
    fn without_unused(mut self) -> Self {
        let mut used = vec![false; self.addresses.len()];
        for member in self.rows.iter().flat_map(|row| row.chain).filter(|member| *member != NONE) {
            used[usize::from(member)] = true;
        }
        let addresses: Vec<_> =
            self.addresses.iter().zip(used).filter(|(_, used)| *used).map(|(address, _)| *address).collect();
        let numbers = numbers_in(&addresses, &self.addresses);
        for row in &mut self.rows {
            row.chain = row.chain.map(|member| renumber(&numbers, member));
            row.standby = renumber(&numbers, row.standby);
        }
        self.addresses = addresses;
        self
    }
}

impl PoolSpec {
    /// See [`TableSpec`] for the fields; `members` in any order.
    pub fn new(seed: u64, rows_log2: u8, slack_permille: u16, mut members: Vec<Member>) -> Self {
        members.sort_unstable_by_key(|member| member.address);
        Self { seed, rows_log2, slack_permille, members }
    }

    /// By ascending address.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether a member has this address.
    pub fn has(&self, address: Address) -> bool {
        self.members.binary_search_by_key(&address, |member| member.address).is_ok()
    }

    /// Whether the two differ in members only: the history of one can go on with the other.
    pub fn continues(&self, other: &Self) -> bool {
        (self.seed, self.rows_log2, self.slack_permille)
            == (other.seed, other.rows_log2, other.slack_permille)
    }

    fn as_table_spec(&self) -> TableSpec<'_> {
        TableSpec {
            seed: self.seed,
            rows_log2: self.rows_log2,
            slack_permille: self.slack_permille,
            members: &self.members,
        }
    }

    fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        self.members.iter().map(|member| member.address)
    }
}

impl Chains {
    /// Load balancers with equal digests send every packet to the same members: they are interchangeable.
    ///
    /// XXH64 with seed 0 over [`CONTRACT_VERSION`] (32 bits, big-endian), then the four addresses of each row (16
    /// bytes each, network order; zeros behind the last).
    pub fn digest(&self) -> u64 {
        let mut hasher = Xxh64::new(0);
        hasher.update(&CONTRACT_VERSION.to_be_bytes());
        for member in self.rows.iter().flatten() {
            let address = self.members.get(usize::from(*member)).map(|address| *address.bytes());
            hasher.update(&address.unwrap_or([0; 16]));
        }
        hasher.digest()
    }

    /// The addresses of one row in their order.
    pub fn row(&self, row: usize) -> impl Iterator<Item = Address> + '_ {
        let members = self.rows.get(row).into_iter().flatten();
        members.map_while(|member| self.members.get(usize::from(*member)).copied())
    }
}

/// The chain of a row after one epoch.
struct Folded {
    kept: [u16; CHAIN_LEN],
    fallen: [u16; 2],
}

/// `owner`, `before`, `standby`, each once; from the back falls what has no room and is not the standby.
fn fold(owner: u16, before: [u16; CHAIN_LEN], standby: u16) -> Folded {
    let mut list = [NONE; CHAIN_LEN + 2];
    let mut len = 0;
    for member in iter::once(owner).chain(before).chain(iter::once(standby)) {
        if member != NONE && !list[..len].contains(&member) {
            list[len] = member;
            len += 1;
        }
    }
    let mut fallen = [NONE; 2];
    while len > CHAIN_LEN {
        // At least the fourth place: the owner is never the victim, nor whoever stands directly behind it.
        let victim = if list[len - 1] == standby { len - 2 } else { len - 1 };
        fallen[len - CHAIN_LEN - 1] = list[victim];
        list.copy_within(victim + 1.., victim);
        len -= 1;
        list[len] = NONE;
    }
    Folded { kept: compact(list), fallen }
}

/// The first four members, [`NONE`] behind the last.
fn compact(members: impl IntoIterator<Item = u16>) -> [u16; CHAIN_LEN] {
    let mut chain = [NONE; CHAIN_LEN];
    let members = members.into_iter().filter(|member| *member != NONE);
    for (place, member) in chain.iter_mut().zip(members) {
        *place = member;
    }
    chain
}

/// For each of `list`, which ascends: its index in `addresses`, which ascends too and may lack some of them.
fn numbers_in<'a>(addresses: &[Address], list: impl IntoIterator<Item = &'a Address>) -> Vec<u16> {
    let number = |address| addresses.binary_search(address).map_or(NONE, |number| number as u16);
    list.into_iter().map(number).collect()
}

/// [`NONE`] stays what it is.
fn renumber(numbers: &[u16], member: u16) -> u16 {
    numbers.get(usize::from(member)).copied().unwrap_or(NONE)
}
