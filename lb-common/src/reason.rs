//! The named ways out of the datapath.
//!
//! One word per way: it is the counter, the metric label, the CLI word and the row of the manual.

/// What happens to a packet that leaves for some reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The host's network stack gets it, untouched.
    Pass,
    /// It is sent on, or (on a backend) decapsulated.
    Carry,
    /// It ends here.
    Drop,
}

impl Fate {
    /// The CLI's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Carry => "forward",
            Self::Drop => "drop",
        }
    }
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($variant:ident, $word:literal, $fate:ident, $help:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum $name { $(#[doc = $help] $variant),+ }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word for people and for metric labels.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// One sentence for the manual.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help),+ }
            }

            /// What becomes of the packet.
            #[inline(always)]
            pub const fn fate(self) -> Fate {
                match self { $(Self::$variant => Fate::$fate),+ }
            }

            /// Index of its counter.
            #[inline(always)]
            pub const fn index(self) -> u32 {
                self as u32
            }
        }
    };
}

reasons! {
    /// Why a packet left the load balancer's XDP program.
    Reason {
        Forwarded, "forwarded", Carry, "Encapsulated and sent to a backend.";
        NotIp, "not_ip", Pass, "Neither IPv4 nor IPv6 (ARP, LLDP, more than two VLAN tags).";
        TooShort, "too_short", Pass, "The frame ends before a destination address; not known to be ours.";
        NotVip, "not_vip", Pass, "The destination is not the address of a VIP.";
        BadVersion, "bad_version", Drop, "To a VIP, but the IP version contradicts the EtherType.";
        BadHeaderLength, "bad_header_length", Drop, "To a VIP, but the IPv4 header length is below 20 or beyond the packet.";
        BadTotalLength, "bad_total_length", Drop, "To a VIP, but the IP length is zero, too small or beyond the frame.";
        BadExtension, "bad_extension", Drop, "To a VIP, but an IPv6 extension header ends beyond the packet.";
        TooManyExtensions, "too_many_extensions", Drop, "To a VIP, behind more than four IPv6 extension headers.";
        Fragment, "fragment", Drop, "A fragment to a VIP.";
        BadTcpHeader, "bad_tcp_header", Drop, "To a VIP, but the TCP header is cut off or its length is wrong.";
        BadUdpHeader, "bad_udp_header", Drop, "To a VIP, but the UDP header is cut off or its length is wrong.";
        Icmp, "icmp", Drop, "ICMP or ICMPv6 to a VIP.";
        NoService, "no_service", Drop, "To the address of a VIP, but no VIP has this protocol and port.";
        Looped, "looped", Drop, "To a VIP from an address inside tunnel_sources: a backend without the VIP sent it back.";
        NoTable, "no_table", Drop, "The pool of the VIP has no row table yet.";
        NoBackend, "no_backend", Drop, "The row is empty: the pool has no backends.";
        NoReadyBackend, "no_ready_backend", Drop, "No backend of the row may take this packet.";
        NoNeighbour, "no_neighbour", Drop, "The way to the backend is not known: no route, or its gateway does not answer.";
        TooBig, "too_big", Drop, "Too big for the path to the backend once encapsulated.";
        TooBigNoDf, "too_big_no_df", Drop, "The same, and the sender allows fragmentation.";
        NoHeadroom, "no_headroom", Drop, "The driver left no room in front of the frame for the outer header.";
    }
}

reasons! {
    /// Why a packet left the backend's agent program.
    AgentReason {
        Accepted, "accepted", Carry, "Decapsulated and given to the local stack: it opens a connection, or is not TCP.";
        AcceptedEstablished, "accepted_established", Carry, "The same; a socket of this host holds the connection.";
        AcceptedHalfOpen, "accepted_half_open", Carry, "The same; it completes a handshake that this host answered.";
        AcceptedTimeWait, "accepted_time_wait", Carry, "The same; the connection was closed here a moment ago.";
        AcceptedCookie, "accepted_cookie", Carry, "The same; it returns a SYN cookie that this host sent.";
        SecondChanceNoSocket, "second_chance_no_socket", Carry, "Sent to the next backend of its chain: no socket here holds the connection.";
        SecondChanceHalfOpen, "second_chance_half_open", Carry, "The same; a half-open connection here belongs to a stray SYN, not to this packet.";
        SecondChanceTimeWait, "second_chance_time_wait", Carry, "The same; new data of a reused address and port, for a connection that ended here.";
        EndOfChainNoSocket, "end_of_chain_no_socket", Carry, "Given to the local stack, which resets it: no backend of the chain holds the connection.";
        EndOfChainHalfOpen, "end_of_chain_half_open", Carry, "The same; only a half-open connection of a stray SYN was found.";
        NotTunnel, "not_tunnel", Pass, "Not a tunnel packet.";
        NotLocal, "not_local", Pass, "A tunnel packet for another host.";
        UntrustedSource, "untrusted_source", Drop, "The outer source is outside tunnel_sources.";
        BadOuter, "bad_outer", Drop, "The outer header is cut off, fragmented, or its length is wrong.";
        BadGue, "bad_gue", Drop, "Not GUE version 0 data carrying IPv4 or IPv6, or its header is cut off.";
        BadChain, "bad_chain", Drop, "GUE private data of another kind than a chain, or a chain whose lengths or counts are wrong.";
        UntrustedHop, "untrusted_hop", Drop, "A backend named in the chain is outside tunnel_sources.";
        OwnHop, "own_hop", Drop, "The chain names this host again: following it would loop.";
        BadInner, "bad_inner", Drop, "The inner packet is cut off or its version or length is wrong.";
        NotOurVip, "not_our_vip", Drop, "The inner destination is not a VIP of this backend.";
        BadInnerSource, "bad_inner_source", Drop, "The inner source is loopback, multicast, unspecified or a VIP.";
        CeOverNotEct, "ce_over_not_ect", Drop, "Outer CE on an inner Not-ECT packet: congestion that the sender could not hear of (RFC 6040 section 4.2).";
        DecapFailed, "decap_failed", Drop, "The kernel refused to remove the outer header.";
        RewriteFailed, "rewrite_failed", Drop, "The kernel refused to rewrite the outer header for a second chance.";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_word(name: &str) -> bool {
        !name.is_empty() && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    }

    #[test]
    fn every_reason_has_a_counter_of_its_own_and_a_word_fit_for_a_metric_label() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index() as usize, index);
            assert!(is_word(reason.name()), "{reason:?}");
            assert!(Reason::ALL.iter().filter(|other| other.name() == reason.name()).count() == 1);
        }
        for (index, reason) in AgentReason::ALL.iter().enumerate() {
            assert_eq!(reason.index() as usize, index);
            assert!(is_word(reason.name()), "{reason:?}");
            assert!(AgentReason::ALL.iter().filter(|other| other.name() == reason.name()).count() == 1);
        }
    }
}
