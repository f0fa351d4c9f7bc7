//! What is written reads back as itself; what is not whole is refused by name.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{Member, pool, v4};
use crate::rows::{Checkpoint, CheckpointError, FORMAT, History, PoolSpec};

/// A pool of five that had six before, and prepares for seven.
static CHECKPOINT: LazyLock<Checkpoint> = LazyLock::new(|| {
    let spec = PoolSpec::new(9, 12, 20, pool(6, |number| 1 + number));
    let history = History::begin(spec).expect("a valid pool");
    let history = history.then(pool(5, |_| 2)).expect("a valid pool").history;
    Checkpoint { history, prepared: Some(pool(7, |_| 1)) }
});

/// The bytes with `at` changed to `value`, and a checksum that says so.
fn resealed(at: usize, value: u32) -> Vec<u8> {
    let mut bytes = CHECKPOINT.to_bytes();
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
    let content = bytes.len() - 8;
    let checksum = xxhash_rust::xxh64::xxh64(&bytes[..content], 0);
    bytes[content..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

#[test]
fn a_checkpoint_reads_back_as_itself() {
    for prepared in [None, CHECKPOINT.prepared.clone()] {
        let checkpoint = Checkpoint { prepared, ..CHECKPOINT.clone() };
        let read = Checkpoint::from_bytes(&checkpoint.to_bytes()).expect("reads");
        assert_eq!(read, checkpoint);
        assert_eq!(read.history.committed().digest(), CHECKPOINT.history.committed().digest());
        assert_eq!(read.history.owners_digest(), CHECKPOINT.history.owners_digest());
        // And it goes on alike.
        let members = vec![Member { address: v4(3), weight: 1 }, Member { address: v4(99), weight: 2 }];
        assert_eq!(read.history.then(members.clone()), CHECKPOINT.history.then(members));
    }
}

#[test]
fn a_newer_format_and_another_contract_are_refused_by_their_number() {
    let newer = Checkpoint::from_bytes(&resealed(8, FORMAT + 1));
    assert_eq!(newer, Err(CheckpointError::NewerFormat { found: FORMAT + 1 }));
    let other = Checkpoint::from_bytes(&resealed(12, 77));
    assert_eq!(other, Err(CheckpointError::OtherContract { found: 77 }));
    assert_eq!(Checkpoint::from_bytes(b"{\"version\": 1}"), Err(CheckpointError::Foreign));
    assert_eq!(Checkpoint::from_bytes(b""), Err(CheckpointError::Foreign));
}

proptest! {
    #[test]
    fn a_cut_or_changed_file_is_damaged(at in any::<prop::sample::Index>(), bit in 0..8_u32, cut: bool) {
        let mut bytes = CHECKPOINT.to_bytes();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        let expected = if at < 8 { CheckpointError::Foreign } else { CheckpointError::Damaged };
        prop_assert_eq!(Checkpoint::from_bytes(&bytes), Err(expected));
    }

    /// Whoever makes a checksum makes it right; nothing that is read may panic all the same.
    #[test]
    fn no_content_is_a_panic(at in 16..200_usize, value: u32) {
        if let Ok(read) = Checkpoint::from_bytes(&resealed(at, value)) {
            let chains = read.history.committed();
            prop_assert_eq!(chains.rows.len(), 4096);
            read.history.owners_digest();
        }
    }
}
