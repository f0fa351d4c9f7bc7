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
pub struct Header(pub [u8; LEN]);

impl Header {
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

    /// A header without private data.
    #[inline(always)]
    pub fn emit(protocol: u8) -> [u8; LEN] {
        [0, protocol, 0, 0]
    }
}
