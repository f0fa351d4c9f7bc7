//! Rank of the members for one row: weighted rendezvous hashing.

use alloc::vec::Vec;

use super::{TableSpec, hash::MemberHash, log2};

/// A member made ready to be scored in many rows.
#[derive(Clone, Copy)]
pub(super) struct Contender {
    hash: MemberHash,
    weight: u16,
    /// Index in [`TableSpec::members`].
    pub(super) number: u16,
}

/// The members of a pool by ascending address.
///
/// A tie of ranks goes to the lower address, that is, to whoever stands further up in this list.
pub(super) fn contenders(spec: &TableSpec<'_>) -> Vec<Contender> {
    let mut members: Vec<_> = (0..).zip(spec.members).collect();
    members.sort_unstable_by_key(|(_, member)| member.address);
    let ready = |(number, member): (u16, &super::Member)| Contender {
        hash: MemberHash::new(&member.address),
        weight: member.weight,
        number,
    };
    members.into_iter().map(ready).collect()
}

/// What a contender has to show for one row.
///
/// The score is `weight / length`; it is never divided out, only compared.
#[derive(Clone, Copy)]
pub(super) struct Score {
    /// `-log2(hash / 2^64)` with 56 fraction bits, at least 1.
    pub(super) length: u64,
    weight: u16,
}

impl Score {
    #[inline]
    pub(super) fn new(contender: &Contender, seed: u64, row: u32) -> Self {
        Self { length: log2::length(contender.hash.in_row(seed, row)), weight: contender.weight }
    }

    /// Whether this is the better score. Of two equal scores neither is.
    #[inline]
    pub(super) fn beats(&self, other: &Self) -> bool {
        // weight_a / length_a > weight_b / length_b, cross-multiplied. 16 by 63 bits: no overflow in 128.
        u128::from(self.weight) * u128::from(other.length)
            > u128::from(other.weight) * u128::from(self.length)
    }
}
