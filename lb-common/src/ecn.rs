//! The ECN field at the end of a tunnel (RFC 6040 section 4.2).

/// The two bits of the TOS byte or traffic class that are ECN.
pub const MASK: u8 = 0b11;

/// The sender does not speak ECN.
pub const NOT_ECT: u8 = 0b00;
/// RFC 3168 section 5: the codepoint 01 is ECT(1).
pub const ECT1: u8 = 0b01;
/// RFC 3168 section 5: the codepoint 10 is ECT(0).
pub const ECT0: u8 = 0b10;
/// Congestion experienced.
pub const CE: u8 = 0b11;

/// The name of a codepoint as in RFC 3168.
pub const fn name(codepoint: u8) -> &'static str {
    match codepoint & MASK {
        NOT_ECT => "Not-ECT",
        ECT1 => "ECT(1)",
        ECT0 => "ECT(0)",
        _ => "CE",
    }
}

/// Cells of the table below.
pub const CELLS: usize = 16;

/// Index of a cell: the arriving inner codepoint, then the outer one.
#[inline(always)]
pub const fn cell(inner: u8, outer: u8) -> u32 {
    (((inner & MASK) << 2) | (outer & MASK)) as u32
}

/// Whether RFC 6040 figure 4 marks the cell: nobody should send this, so somebody on the path is broken.
pub const fn is_unusual(inner: u8, outer: u8) -> bool {
    matches!((inner & MASK, outer & MASK), (NOT_ECT, ECT0 | ECT1 | CE) | (ECT1, ECT0) | (CE, ECT1))
}

/// The inner header's new codepoint, from the two that arrived (RFC 6040 figure 4); `None`: drop.
#[inline(always)]
pub fn decapsulate(inner: u8, outer: u8) -> Option<u8> {
    match (inner & MASK, outer & MASK) {
        // "If the inner ECN field is Not-ECT, the decapsulator MUST NOT propagate any other ECN codepoint
        // onwards. [...] if the outer is CE, the decapsulator MUST drop the packet."
        (NOT_ECT, CE) => None,
        (ECT0, ECT1) => Some(ECT1),
        (ECT0 | ECT1, CE) => Some(CE),
        (same, _) => Some(same),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sixteen_cells_are_those_of_rfc_6040_figure_4() {
        // Rows: arriving inner; columns: arriving outer Not-ECT, ECT(0), ECT(1), CE. None is <drop>.
        let figure = [
            (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
            (ECT0, [Some(ECT0), Some(ECT0), Some(ECT1), Some(CE)]),
            (ECT1, [Some(ECT1), Some(ECT1), Some(ECT1), Some(CE)]),
            (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
        ];
        let unusual = [(NOT_ECT, ECT0), (NOT_ECT, ECT1), (NOT_ECT, CE), (ECT1, ECT0), (CE, ECT1)];
        let mut cells = std::collections::BTreeSet::new();
        for (inner, outcomes) in figure {
            for (outer, expected) in [NOT_ECT, ECT0, ECT1, CE].into_iter().zip(outcomes) {
                assert_eq!(
                    decapsulate(inner, outer),
                    expected,
                    "inner {} outer {}",
                    name(inner),
                    name(outer)
                );
                assert_eq!(is_unusual(inner, outer), unusual.contains(&(inner, outer)));
                cells.insert(cell(inner, outer));
            }
        }
        assert_eq!(cells.into_iter().collect::<Vec<_>>(), (0..16).collect::<Vec<u32>>());
    }
}
