//! Whose packet is it: this backend's, or another's of the chain (DESIGN section 5, steps 1 to 6).

use super::{inner::Inner, tunnel::Tunnel};
use crate::{
    address::Address,
    parse::Segment,
    reason::AgentReason,
    tables::{Holder, Sockets},
    wire::protocol,
};

/// Where an acceptable packet goes.
pub(super) enum Chance {
    /// Up the local stack.
    Accept(AgentReason),
    /// To the next backend of the chain.
    Onward(AgentReason, Address),
}

/// Decides by what the packet is and by the sockets of this host.
#[inline(always)]
pub(super) fn of<S: Sockets>(inner: &Inner, tunnel: &Tunnel, sockets: &S) -> Chance {
    let Some(flow) = &inner.flow else {
        return Chance::Accept(AgentReason::Accepted);
    };
    // Step 1: whoever gets a SYN is the new connection's backend.
    if flow.key.protocol != protocol::TCP || flow.opens {
        return Chance::Accept(AgentReason::Accepted);
    }
    let holder = sockets.holder(flow, usize::from(tunnel.inner_at));
    let miss = match claim(holder, &flow.segment) {
        Ok(reason) => return Chance::Accept(reason),
        Err(miss) => miss,
    };
    match (tunnel.next_hop(), miss) {
        (Some(hop), Miss::NoSocket) => Chance::Onward(AgentReason::SecondChanceNoSocket, hop),
        (Some(hop), Miss::HalfOpen) => Chance::Onward(AgentReason::SecondChanceHalfOpen, hop),
        (Some(hop), Miss::TimeWait) => Chance::Onward(AgentReason::SecondChanceTimeWait, hop),
        (None, Miss::NoSocket) => Chance::Accept(AgentReason::EndOfChainNoSocket),
        (None, Miss::HalfOpen) => Chance::Accept(AgentReason::EndOfChainHalfOpen),
        // Nobody else holds it either; the stack knows what a time-wait socket answers.
        (None, Miss::TimeWait) => Chance::Accept(AgentReason::AcceptedTimeWait),
    }
}

/// Why a segment is not this host's.
enum Miss {
    NoSocket,
    HalfOpen,
    TimeWait,
}

/// Whether the holder claims the segment.
#[inline(always)]
fn claim(holder: Holder, segment: &Segment) -> Result<AgentReason, Miss> {
    match holder {
        Holder::Connection => Ok(AgentReason::AcceptedEstablished),
        // A reused address and port: data beyond what ended here belongs to a connection that lives elsewhere.
        // The expected number counts the FIN, so "beyond" includes the number itself.
        Holder::TimeWait { expected: Some(expected) }
            if segment.data > 0 && segment.sequence.wrapping_sub(expected).cast_signed() >= 0 =>
        {
            Err(Miss::TimeWait)
        }
        Holder::TimeWait { .. } => Ok(AgentReason::AcceptedTimeWait),
        // RFC 9293 section 3.10.7.4, SYN-RECEIVED: the acceptable ACK is of our SYN. A half-open connection that a
        // stray SYN left here has another initial number than the one that the client knows.
        Holder::HalfOpen { sent: Some(sent) }
            if !segment.has_ack || segment.acknowledgement != sent.wrapping_add(1) =>
        {
            Err(Miss::HalfOpen)
        }
        Holder::HalfOpen { .. } => Ok(AgentReason::AcceptedHalfOpen),
        Holder::Listener { is_cookie: true } => Ok(AgentReason::AcceptedCookie),
        Holder::Listener { is_cookie: false } | Holder::Nobody => Err(Miss::NoSocket),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(sequence: u32, acknowledgement: u32, data: u16) -> Segment {
        Segment { sequence, acknowledgement, has_ack: true, data, offset: 0 }
    }

    fn accepted(holder: Holder, segment: Segment) -> Option<AgentReason> {
        claim(holder, &segment).ok()
    }

    #[test]
    fn a_half_open_connection_claims_only_the_acknowledgement_of_its_own_syn_ack() {
        let half_open = Holder::HalfOpen { sent: Some(u32::MAX) };
        assert_eq!(accepted(half_open, segment(1, 0, 0)), Some(AgentReason::AcceptedHalfOpen), "wraps");
        assert_eq!(accepted(half_open, segment(1, 1, 0)), None);
        assert_eq!(accepted(half_open, Segment { has_ack: false, ..segment(1, 0, 0) }), None);
        let unknown = Holder::HalfOpen { sent: None };
        assert_eq!(accepted(unknown, segment(1, 7, 0)), Some(AgentReason::AcceptedHalfOpen));
    }

    #[test]
    fn a_time_wait_socket_leaves_new_data_to_others_and_keeps_the_rest() {
        let closed = Holder::TimeWait { expected: Some(1000) };
        for (sequence, data, keeps) in
            [(999, 1, true), (1000, 0, true), (1000, 1, false), (1001, 5, false), (999, 0, true)]
        {
            let kept = accepted(closed, segment(sequence, 0, data)).is_some();
            assert_eq!(kept, keeps, "sequence {sequence}, {data} bytes");
        }
        let wrapped = Holder::TimeWait { expected: Some(u32::MAX) };
        assert_eq!(accepted(wrapped, segment(5, 0, 1)), None);
    }

    #[test]
    fn a_listener_claims_cookies_and_nobody_claims_nothing() {
        let any = segment(1, 1, 0);
        assert_eq!(accepted(Holder::Listener { is_cookie: true }, any), Some(AgentReason::AcceptedCookie));
        assert_eq!(accepted(Holder::Listener { is_cookie: false }, any), None);
        assert_eq!(accepted(Holder::Nobody, any), None);
        assert_eq!(accepted(Holder::Connection, any), Some(AgentReason::AcceptedEstablished));
    }
}
