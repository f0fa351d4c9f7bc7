//! Generic UDP Encapsulation, version 0 (draft-ietf-intarea-gue section 3).
//!
//! ```text
//!  0                   1                   2                   3
//! | 0 |C|   Hlen  |  Proto/ctype  |             Flags             |
//! |              private data, Hlen * 4 bytes                     |
//! ```

/// Bytes of the header without private data.
pub const LEN: usize = 4;

/// The port that the fleet uses unless configured otherwise.
pub const DEFAULT_PORT: u16 = 6080;

const VERSION: u8 = 0b1100_0000;
const CONTROL: u8 = 0b0010_0000;
const HLEN: u8 = 0b0001_1111;

/// The four fixed bytes, unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Header<'p>(pub &'p [u8; LEN]);

impl Header<'_> {
    /// Whether this is version 0 data without flags, which is all that the fleet sends.
    #[inline(always)]
    pub fn is_plain_data(&self) -> bool {
        self.0[0] & (VERSION | CONTROL) == 0 && self.0[2] == 0 && self.0[3] == 0
    }

    /// Protocol of the payload: 4 or 41.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        self.0[1]
    }

    /// Bytes of private data behind the fixed header: 0 to 124.
    #[inline(always)]
    pub fn private_len(&self) -> usize {
        usize::from(self.0[0] & HLEN) * 4
    }
}

/// A header in front of `private_len` bytes of private data, a multiple of four below 128.
#[inline(always)]
pub fn emit(protocol: u8, private_len: usize) -> [u8; LEN] {
    [(private_len / 4) as u8 & HLEN, protocol, 0, 0]
}

/// The chain in the private data: the layout that GLB Director published for IPv4 hops, and ours for IPv6 ones.
///
/// ```text
/// |      type (16 bits)           | next hop index| hop count     |
/// |              hops, 4 or 16 bytes each                         |
/// ```
pub mod chain {
    /// Bytes in front of the hops.
    pub const LEN: usize = 4;
    /// Type of a chain of IPv4 hops.
    pub const V4: u16 = 0;
    /// Type of a chain of IPv6 hops.
    pub const V6: u16 = 1;
    /// Offset of the next hop's index.
    pub const INDEX: usize = 2;

    /// Bytes of one hop.
    #[inline(always)]
    pub const fn hop_len(is_v4: bool) -> usize {
        if is_v4 { 4 } else { 16 }
    }

    /// Bytes of private data for `count` hops; none for a chain of one.
    #[inline(always)]
    pub const fn private_len(is_v4: bool, count: u8) -> usize {
        if count == 0 { 0 } else { LEN + hop_len(is_v4) * count as usize }
    }

    /// The four bytes in front of the hops, as a load balancer sends them: the first hop is next.
    #[inline(always)]
    pub const fn emit(is_v4: bool, count: u8) -> [u8; LEN] {
        let kind = if is_v4 { V4 } else { V6 }.to_be_bytes();
        [kind[0], kind[1], 0, count]
    }
}
