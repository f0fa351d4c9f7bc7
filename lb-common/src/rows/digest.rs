//! One number for a whole row table.

use xxhash_rust::xxh64::Xxh64;

use super::{CONTRACT_VERSION, Table, TableSpec};

/// Digest of owners and standbys: equal on two load balancers when, and in practice only when, their tables
/// are equal.
///
/// It depends on configuration only, not on the order of members nor on the changes that led to them, so
/// undoing a change brings the earlier digest back. `table` must be built from `spec`.
///
/// XXH64 with seed 0 over, integers big-endian: [`CONTRACT_VERSION`] (32 bits), pool seed (64), log2 of the
/// row count (8), slack in per mille (16); then for each row the owner's address and the standby's (16 bytes
/// each, network order; zeros where there is none).
pub fn owners_digest(spec: &TableSpec<'_>, table: &Table) -> u64 {
    let mut hasher = Xxh64::new(0);
    hasher.update(&CONTRACT_VERSION.to_be_bytes());
    hasher.update(&spec.seed.to_be_bytes());
    hasher.update(&[spec.rows_log2]);
    hasher.update(&spec.slack_permille.to_be_bytes());
    for row in &table.rows {
        for member in [row.owner, row.standby] {
            let address = spec.members.get(usize::from(member)).map(|member| *member.address.bytes());
            hasher.update(&address.unwrap_or([0; 16]));
        }
    }
    hasher.digest()
}
