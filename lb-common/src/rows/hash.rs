//! The two hashes of the contract.

use xxhash_rust::xxh64::xxh64;

use crate::address::Address;

// The primes of the XXH64 specification.
const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// Bytes under a member hash: row and address.
const LENGTH: u64 = 4 + 16;

/// The part of a member hash that is the same in every row.
///
/// A table needs rows times members of these hashes, and the general XXH64, which finds out anew that its
/// input has 20 bytes, made the whole build three times as long.
#[derive(Clone, Copy)]
pub(super) struct MemberHash {
    /// Address bytes 0 to 3, in the upper half of the first lane; the row is the lower half.
    head: u64,
    /// Address bytes 4 to 11, ready to mix in.
    middle: u64,
    /// Address bytes 12 to 15, ready to mix in.
    tail: u64,
}

impl MemberHash {
    pub(super) fn new(address: &Address) -> Self {
        let [a, b, c, d, middle @ .., w, x, y, z] = *address.bytes();
        // XXH64 reads its lanes little-endian.
        Self {
            head: u64::from(u32::from_le_bytes([a, b, c, d])) << 32,
            middle: scramble(u64::from_le_bytes(middle)),
            tail: u64::from(u32::from_le_bytes([w, x, y, z])).wrapping_mul(PRIME_1),
        }
    }

    /// XXH64 of row (32 bits, big-endian) and address (16 bytes, network order), with the pool seed; the
    /// lowest bit is set, because 0 has no logarithm.
    #[inline]
    pub(super) fn in_row(&self, seed: u64, row: u32) -> u64 {
        let mut hash = seed.wrapping_add(PRIME_5).wrapping_add(LENGTH);
        for lane in [scramble(self.head | u64::from(row.swap_bytes())), self.middle] {
            hash = (hash ^ lane).rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
        }
        hash = (hash ^ self.tail).rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
        hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
        hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
        (hash ^ (hash >> 32)) | 1
    }
}

/// XXH64 of row (32 bits, big-endian) and the ASCII word `order`, with the pool seed: places the row in the
/// order of visits.
pub(super) fn order_hash(seed: u64, row: u32) -> u64 {
    let [a, b, c, d] = row.to_be_bytes();
    xxh64(&[a, b, c, d, b'o', b'r', b'd', b'e', b'r'], seed)
}

/// What XXH64 does to a lane of 8 bytes before it is mixed in.
#[inline]
fn scramble(lane: u64) -> u64 {
    lane.wrapping_mul(PRIME_2).rotate_left(31).wrapping_mul(PRIME_1)
}
