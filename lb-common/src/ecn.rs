//! The ECN field at the end of a tunnel (RFC 6040 section 4.2).

use crate::reason::AgentReason;

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

/// The inner header's new codepoint and the way out, from the two codepoints that arrived (RFC 6040 figure 4).
#[inline(always)]
pub fn decapsulate(inner: u8, outer: u8) -> (u8, AgentReason) {
    use AgentReason::{
        Accepted, AcceptedEct0OverEct1, AcceptedEct0OverNotEct, AcceptedEct1OverCe, AcceptedEct1OverNotEct,
        CeOverNotEct,
    };
    match (inner & MASK, outer & MASK) {
        (NOT_ECT, ECT0) => (NOT_ECT, AcceptedEct0OverNotEct),
        (NOT_ECT, ECT1) => (NOT_ECT, AcceptedEct1OverNotEct),
        // "If the inner ECN field is Not-ECT, the decapsulator MUST NOT propagate any other ECN codepoint
        // onwards. [...] if the outer is CE, the decapsulator MUST drop the packet."
        (NOT_ECT, CE) => (NOT_ECT, CeOverNotEct),
        (ECT0, ECT1) => (ECT1, Accepted),
        (ECT0 | ECT1, CE) => (CE, Accepted),
        (ECT1, ECT0) => (ECT1, AcceptedEct0OverEct1),
        (CE, ECT1) => (CE, AcceptedEct1OverCe),
        (same, _) => (same, Accepted),
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
        for (inner, outcomes) in figure {
            for (outer, expected) in [NOT_ECT, ECT0, ECT1, CE].into_iter().zip(outcomes) {
                let (codepoint, reason) = decapsulate(inner, outer);
                let outcome = (reason != AgentReason::CeOverNotEct).then_some(codepoint);
                assert_eq!(outcome, expected, "inner {} outer {}", name(inner), name(outer));
                let counted_apart = reason != AgentReason::Accepted;
                assert_eq!(counted_apart, unusual.contains(&(inner, outer)));
            }
        }
    }
}
