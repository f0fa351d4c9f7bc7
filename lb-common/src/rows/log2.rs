//! Logarithms for the rank of a member, in integers.
//!
//! Floating point logarithms differ in their last bits between libraries, and two load balancers that differ
//! in one bit can differ in the owner of a row. Here every step is an integer operation with a defined
//! result.

/// Bits after the point in every logarithm of this module.
pub(super) const FRACTION_BITS: u32 = 56;

/// Bits of the mantissa that choose the table entry.
const INDEX_BITS: u32 = 10;
/// Bits of the mantissa, after its leading one and the index, that place a value between two entries.
const REST_BITS: u32 = 63 - INDEX_BITS;
const INTERVALS: usize = 1 << INDEX_BITS;

/// `-log2(hash / 2^64)` with 56 fraction bits: how far a hash is from the best possible one.
///
/// `hash` must not be 0. The result is 1 to 64 * 2^56, so it fits 63 bits, and a larger hash never gives a
/// larger result.
///
/// The logarithm is linear between the entries of a table. A chord of log2 lies below the curve, so the
/// result is never too small, and it is too large by less than 2^-22. It also keeps its relative precision
/// for hashes close to 2^64, where it decides between the best members of a pool: the last chord ends exactly
/// at 0. Written in units of 2^-56, with `x` the exact value: `x <= result < x + x / 4094 + 2`.
pub(super) const fn length(hash: u64) -> u64 {
    let leading = hash.leading_zeros();
    // The leading one falls off: it is the 1 in 1 + i/1024.
    let mantissa = (hash << leading) << 1;
    let index = (mantissa >> (u64::BITS - INDEX_BITS)) as usize;
    let rest = (mantissa << INDEX_BITS) >> (u64::BITS - REST_BITS);
    let (low, high) = (LOG2[index], LOG2[index + 1]);
    // Rounded down, so the value at the end of an interval never passes the next entry: monotone across
    // intervals.
    let climbed = ((high - low) as u128 * rest as u128) >> REST_BITS;
    ((leading as u64 + 1) << FRACTION_BITS) - low - climbed as u64
}

/// `floor(2^56 * log2(1 + i/1024))` for i = 0 to 1024.
pub(super) static LOG2: [u64; INTERVALS + 1] = table();

const fn table() -> [u64; INTERVALS + 1] {
    let mut table = [0; INTERVALS + 1];
    let mut i = 0;
    while i < INTERVALS {
        table[i] = log2((1 << 127) + ((i as u128) << (127 - INDEX_BITS)));
        i += 1;
    }
    table[INTERVALS] = 1 << FRACTION_BITS;
    table
}

/// `floor(2^56 * log2(x))` for 1 <= x < 2, where `x` has 127 fraction bits.
///
/// One bit per squaring: if x^2 >= 2 the next bit of the logarithm is 1 and x^2 is halved. Each squaring
/// loses less than 2^-124, and a loss in step k weighs 2^-k, so all together stay far below the 57th bit of
/// every entry.
const fn log2(mut x: u128) -> u64 {
    let mut bits = 0;
    let mut step = 0;
    while step < FRACTION_BITS {
        // x^2 with 126 fraction bits, the product of the two low halves left out.
        let (high, low) = (x >> 64, x & u64::MAX as u128);
        let square = (high * high).wrapping_add((high * low) >> 63);
        bits <<= 1;
        if square >> 127 == 1 {
            bits |= 1;
            x = square;
        } else {
            x = square << 1;
        }
        step += 1;
    }
    bits
}
