//! One captured packet: what its headers say, tunnelled or not.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// The UDP port of GUE tunnels in the lab, where the text of a captured packet needs one.
const GUE_PORT: u16 = 6080;

/// A packet. For a tunnelled one the fields are those of the inner packet, and `tunnel` has the outer ones.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Since the epoch.
    pub time: Duration,
    pub interface: Arc<str>,
    /// The interface sent it; otherwise it received it.
    pub outgoing: bool,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// 0 where the protocol has no ports.
    pub sport: u16,
    pub dport: u16,
    /// IP protocol number of the transport header.
    pub protocol: u8,
    pub flags: Flags,
    pub ttl: u8,
    pub dscp: u8,
    pub ecn: Ecn,
    /// Bytes after the transport header, as the IP length says.
    pub payload_len: usize,
    pub tunnel: Option<Tunnel>,
}

/// The outer headers of a tunnelled packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub format: Format,
    pub src: IpAddr,
    pub dst: IpAddr,
    /// UDP source port; 0 for IPIP.
    pub sport: u16,
    pub ttl: u8,
    pub ecn: Ecn,
    /// GUE's optional fields and private data, in bytes.
    pub private_len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Gue,
    Ipip,
}

/// The flow key as the wire shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub sport: u16,
    pub dport: u16,
    pub protocol: u8,
}

impl FiveTuple {
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, ..self }
    }
}

impl Seen {
    /// Reads an Ethernet frame, which may be cut short after its headers. `None` for what is not IP.
    pub fn parse(frame: &[u8], time: Duration, interface: &Arc<str>, outgoing: bool) -> Option<Self> {
        let outer = Layers::of(&LaxSlicedPacket::from_ethernet(frame).ok()?)?;
        let (layers, tunnel) = match outer.inside() {
            Some((inner, tunnel)) => (inner, Some(tunnel)),
            None => (outer, None),
        };
        Some(Self {
            time,
            interface: Arc::clone(interface),
            outgoing,
            src: layers.src,
            dst: layers.dst,
            sport: layers.sport,
            dport: layers.dport,
            protocol: layers.protocol,
            flags: layers.flags,
            ttl: layers.ttl,
            dscp: layers.tos >> 2,
            ecn: Ecn::of_tos(layers.tos),
            payload_len: layers.payload_len,
            tunnel,
        })
    }

    pub fn five_tuple(&self) -> FiveTuple {
        FiveTuple {
            src: self.src,
            dst: self.dst,
            sport: self.sport,
            dport: self.dport,
            protocol: self.protocol,
        }
    }
}

impl fmt::Display for Seen {
    /// One line, as tcpdump would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs() % 86_400;
        let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let direction = if self.outgoing { "out" } else { "in" };
        let (src, dst) = (SocketAddr::new(self.src, self.sport), SocketAddr::new(self.dst, self.dport));
        write!(f, "{clock}.{:06} {} {direction:3} ", self.time.subsec_micros(), self.interface)?;
        if let Some(tunnel) = &self.tunnel {
            write!(f, "[{tunnel}] ")?;
        }
        write!(
            f,
            "{src} > {dst}: {}, {}, ttl {}, length {}",
            self.what(),
            self.ecn,
            self.ttl,
            self.payload_len
        )
    }
}

impl Seen {
    fn what(&self) -> String {
        match IpNumber(self.protocol) {
            IpNumber::TCP => format!("Flags [{}]", self.flags),
            IpNumber::UDP => "UDP".to_owned(),
            IpNumber::ICMP | IpNumber::IPV6_ICMP => "ICMP".to_owned(),
            IpNumber(number) => format!("protocol {number}"),
        }
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = if self.format == Format::Gue { "gue" } else { "ipip" };
        write!(f, "{format} {} > {}, {}, ttl {}", self.src, self.dst, self.ecn, self.ttl)
    }
}

/// The two low bits of the IPv4 TOS byte or the IPv6 traffic class (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ecn {
    NotEct,
    Ect1,
    Ect0,
    Ce,
}

impl Ecn {
    pub fn of_tos(tos: u8) -> Self {
        // RFC 3168 section 5: "The not-ECT codepoint '00'", "ECT(1) '01'", "ECT(0) '10'", "CE '11'".
        match tos & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::NotEct => "Not-ECT",
            Self::Ect1 => "ECT(1)",
            Self::Ect0 => "ECT(0)",
            Self::Ce => "CE",
        }
    }
}

impl fmt::Display for Ecn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// TCP flags, lowest bit first as in the header: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flags(pub u8);

impl Flags {
    pub fn fin(self) -> bool {
        self.0 & 0x01 != 0
    }

    pub fn syn(self) -> bool {
        self.0 & 0x02 != 0
    }

    pub fn rst(self) -> bool {
        self.0 & 0x04 != 0
    }

    pub fn ack(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// RFC 3168 section 6.1: the receiver saw CE; in a SYN, that it speaks ECN.
    pub fn ece(self) -> bool {
        self.0 & 0x40 != 0
    }
}

impl fmt::Display for Flags {
    /// tcpdump's letters, in tcpdump's order: `SEW`, `S.E`, `P.`, `R`; `none` without any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];
        let text: String =
            (0..8).filter(|bit| self.0 >> bit & 1 == 1).map(|bit: usize| LETTERS[bit]).collect();
        f.pad(if text.is_empty() { "none" } else { &text })
    }
}

/// One IP header and what follows it.
struct Layers<'a> {
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    ttl: u8,
    protocol: u8,
    sport: u16,
    dport: u16,
    flags: Flags,
    payload_len: usize,
    payload: &'a [u8],
}

/// An IP header of either family and the bytes that the capture has of its payload.
struct Network<'a> {
    src: IpAddr,
    dst: IpAddr,
    tos: u8,
    ttl: u8,
    protocol: u8,
    payload: &'a [u8],
    /// Bytes of payload by the header. The IP length is believed, not the slice: a capture may cut a frame short.
    len: usize,
}

impl<'a> Network<'a> {
    fn of(net: &LaxNetSlice<'a>) -> Option<Self> {
        match net {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                Some(Self {
                    src: header.source_addr().into(),
                    dst: header.destination_addr().into(),
                    tos: header.dcp().value() << 2 | header.ecn().value(),
                    ttl: header.ttl(),
                    protocol: ip.payload().ip_number.0,
                    payload: ip.payload().payload,
                    len: usize::from(header.total_len()).saturating_sub(header.slice().len()),
                })
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                let extensions = ip.extensions().slice().len();
                Some(Self {
                    src: header.source_addr().into(),
                    dst: header.destination_addr().into(),
                    tos: header.traffic_class(),
                    ttl: header.hop_limit(),
                    protocol: ip.payload().ip_number.0,
                    payload: ip.payload().payload,
                    len: usize::from(header.payload_length()).saturating_sub(extensions),
                })
            }
            LaxNetSlice::Arp(_) => None,
        }
    }
}

impl<'a> Layers<'a> {
    fn of(packet: &LaxSlicedPacket<'a>) -> Option<Self> {
        let net = Network::of(packet.net.as_ref()?)?;
        let (sport, dport, flags, header, payload) = match packet.transport.as_ref() {
            Some(TransportSlice::Tcp(tcp)) => {
                // The flags' byte of the header, whole: offset 13.
                let flags = Flags(tcp.slice()[13]);
                let header = tcp.header_slice().len();
                (tcp.source_port(), tcp.destination_port(), flags, header, tcp.payload())
            }
            Some(TransportSlice::Udp(udp)) => {
                (udp.source_port(), udp.destination_port(), Flags(0), 8, udp.payload())
            }
            _ => (0, 0, Flags(0), 0, net.payload),
        };
        Some(Self {
            src: net.src,
            dst: net.dst,
            tos: net.tos,
            ttl: net.ttl,
            protocol: net.protocol,
            sport,
            dport,
            flags,
            payload_len: net.len.saturating_sub(header),
            payload,
        })
    }

    /// The packet in the tunnel, if this is one.
    fn inside(&self) -> Option<(Self, Tunnel)> {
        let (format, private_len, inner) = match IpNumber(self.protocol) {
            IpNumber::IPV4 | IpNumber::IPV6 => (Format::Ipip, 0, self.payload),
            IpNumber::UDP if self.dport == GUE_PORT => {
                // GUE version 0: 2 bits version, 1 bit control, 5 bits length of the optional part in words.
                let first = *self.payload.first()?;
                if first >> 5 != 0 {
                    return None;
                }
                let private_len = usize::from(first & 0x1f) * 4;
                (Format::Gue, private_len, self.payload.get(4 + private_len..)?)
            }
            _ => return None,
        };
        let inner = Self::of(&LaxSlicedPacket::from_ip(inner).ok()?)?;
        let ecn = Ecn::of_tos(self.tos);
        let Self { src, dst, sport, ttl, .. } = *self;
        Some((inner, Tunnel { format, src, dst, sport, ttl, ecn, private_len }))
    }
}

#[cfg(test)]
mod tests {
    use etherparse::{IpFragOffset, Ipv4Header, PacketBuilder};

    use super::*;

    fn seen(frame: &[u8]) -> Seen {
        Seen::parse(frame, Duration::from_secs(3661), &Arc::from("l1"), true).expect("an IP packet")
    }

    fn client_data() -> Vec<u8> {
        let mut ip =
            Ipv4Header::new(0, 63, IpNumber::TCP, [10, 8, 0, 2], [203, 0, 113, 10]).expect("short enough");
        ip.ecn = etherparse::IpEcn::try_new(0b10).expect("two bits");
        ip.fragment_offset = IpFragOffset::ZERO;
        let mut packet = Vec::new();
        PacketBuilder::ip(etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()))
            .tcp(40000, 80, 1, 1000)
            .ack(5)
            .psh()
            .write(&mut packet, b"hello")
            .expect("a vector takes everything");
        packet
    }

    fn ethernet(kind: u16, packet: &[u8]) -> Vec<u8> {
        [&[2; 12], kind.to_be_bytes().as_slice(), packet].concat()
    }

    #[test]
    fn a_plain_packet_shows_its_ecn_bits_flags_and_ttl() {
        let seen = seen(&ethernet(0x0800, &client_data()));
        assert_eq!((seen.ecn, seen.ttl, seen.payload_len), (Ecn::Ect0, 63, 5));
        assert!(seen.flags.ack() && !seen.flags.rst() && seen.tunnel.is_none());
        let line = seen.to_string();
        assert!(
            line.contains("10.8.0.2:40000 > 203.0.113.10:80: Flags [P.], ECT(0), ttl 63, length 5"),
            "{line}"
        );
    }

    #[test]
    fn padding_and_a_cut_frame_do_not_change_the_payload_length() {
        let whole = ethernet(0x0800, &client_data());
        let padded = [whole.as_slice(), &[0; 20]].concat();
        assert_eq!(seen(&padded).payload_len, 5);
        assert_eq!(seen(&whole[..whole.len() - 3]).payload_len, 5);
    }

    #[test]
    fn a_tunnelled_packet_shows_inner_fields_and_outer_headers() {
        let inner = client_data();
        // GUE version 0, no private data, IPv4 inside.
        let gue = [&[0, 4, 0, 0], inner.as_slice()].concat();
        let mut outer = Vec::new();
        PacketBuilder::ipv6([0xfd; 16], [0xfe; 16], 64)
            .udp(50000, GUE_PORT)
            .write(&mut outer, &gue)
            .expect("a vector takes everything");
        let seen = seen(&ethernet(0x86dd, &outer));
        let tunnel = seen.tunnel.expect("a tunnel");
        assert_eq!(
            (tunnel.format, tunnel.sport, tunnel.ttl, tunnel.private_len),
            (Format::Gue, 50000, 64, 0)
        );
        assert_eq!((seen.dport, seen.ttl, seen.payload_len), (80, 63, 5));
    }

    #[test]
    fn ipip_is_a_tunnel_too() {
        let mut outer = Vec::new();
        PacketBuilder::ipv4([10, 8, 1, 2], [10, 8, 11, 2], 64)
            .write(&mut outer, IpNumber::IPV4, &client_data())
            .expect("a vector takes everything");
        let seen = seen(&ethernet(0x0800, &outer));
        assert_eq!(seen.tunnel.map(|tunnel| tunnel.format), Some(Format::Ipip));
        assert_eq!(seen.sport, 40000);
    }

    #[test]
    fn ecn_names_follow_rfc_3168() {
        let names: Vec<&str> = (0..4).map(|tos| Ecn::of_tos(tos).name()).collect();
        assert_eq!(names, ["Not-ECT", "ECT(1)", "ECT(0)", "CE"]);
    }

    #[test]
    fn flags_read_like_tcpdump() {
        let texts: Vec<String> = [0xc2, 0x52, 0x18, 0x04, 0].map(|flags| Flags(flags).to_string()).into();
        assert_eq!(texts, ["SEW", "S.E", "P.", "R", "none"]);
    }
}
