//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are kept in 64 bits and folded at the end; no kernel helper is called. Words are in network order.

/// Adds the big-endian 16-bit words of `bytes` (an even number) to `sum`.
#[inline(always)]
pub fn add<const N: usize>(sum: u64, bytes: &[u8; N]) -> u64 {
    const { assert!(N.is_multiple_of(2), "a header is a whole number of 16-bit words") };
    let mut sum = sum;
    let mut i = 0;
    while i < N {
        sum += u64::from(u16::from_be_bytes([bytes[i], bytes[i + 1]]));
        i += 2;
    }
    sum
}

/// Folds the carries and takes the one's complement: the value for the checksum field.
#[inline(always)]
pub fn finish(sum: u64) -> u16 {
    // Four folds bring any 64-bit sum below 2^16.
    let mut sum = sum;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The checksum after one 16-bit word that it covers changed from `old` to `new`.
///
/// RFC 1624 section 3: "HC' = ~(~HC + ~m + m')".
#[inline(always)]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    finish(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_section_3_comes_out() {
        // Its sum is ddf2 before the complement.
        assert_eq!(finish(add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), !0xddf2);
    }

    proptest! {
        #[test]
        fn a_header_with_its_checksum_sums_to_zero(mut header: [u8; 20]) {
            header[10..12].fill(0);
            let sum = finish(add(0, &header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            prop_assert_eq!(finish(add(0, &header)), 0);
        }

        #[test]
        fn an_update_equals_a_full_sum(mut header: [u8; 20], tos: u8) {
            // A header of zeros has two representations of its sum; no IPv4 header is one.
            header[0] = 0x45;
            header[10..12].fill(0);
            let before = finish(add(0, &header));
            let old = u16::from_be_bytes([header[0], header[1]]);
            header[1] = tos;
            let new = u16::from_be_bytes([header[0], header[1]]);
            prop_assert_eq!(update(before, old, new), finish(add(0, &header)));
        }
    }
}
