//! From a frame to the flow that it belongs to.
//!
//! Two steps, because what is not for a VIP must pass untouched whatever it is: [`network`] finds the addresses
//! of anything that has some; [`flow`] insists on soundness and is asked only for packets to a VIP.

use crate::{
    address::Address,
    flow::FlowKey,
    packet::Packet,
    reason::Reason,
    wire::{ether, ipv4, ipv6, l4, protocol},
};

/// A frame's network header, its fixed part unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Network<'p> {
    /// Offset of the network header.
    pub l3: usize,
    /// The header.
    pub header: Header<'p>,
}

/// A header of either family.
#[derive(Clone, Copy, Debug)]
pub enum Header<'p> {
    /// IPv4, options not included.
    V4(ipv4::Header<'p>),
    /// IPv6, extension headers not included.
    V6(ipv6::Header<'p>),
}

impl Network<'_> {
    /// Destination address.
    #[inline(always)]
    pub fn destination(&self) -> Address {
        match &self.header {
            Header::V4(header) => header.destination(),
            Header::V6(header) => header.destination(),
        }
    }

    /// Whether an IPv6 header names an IPv4-mapped address, which stands for IPv4 in our keys only.
    ///
    /// RFC 4942 section 2.2: such addresses must not appear on the wire.
    #[inline(always)]
    pub fn is_mapped(&self) -> bool {
        match &self.header {
            Header::V4(_) => false,
            Header::V6(header) => header.source().is_v4() || header.destination().is_v4(),
        }
    }

    /// Source address.
    #[inline(always)]
    pub fn source(&self) -> Address {
        match &self.header {
            Header::V4(header) => header.source(),
            Header::V6(header) => header.source(),
        }
    }
}

/// Finds the network header; the reason is one that passes.
#[inline(always)]
pub fn network<P: Packet>(packet: &P) -> Result<Network<'_>, Reason> {
    let link = ether::read(packet).ok_or(Reason::TooShort)?;
    let header = match link.ethertype {
        ether::IPV4 => Header::V4(ipv4::Header(packet.bytes(link.l3).ok_or(Reason::TooShort)?)),
        ether::IPV6 => Header::V6(ipv6::Header(packet.bytes(link.l3).ok_or(Reason::TooShort)?)),
        _ => return Err(Reason::NotIp),
    };
    Ok(Network { l3: link.l3, header })
}

/// A sound packet of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The 5-tuple.
    pub key: FlowKey,
    /// Whether it asks for a new connection (TCP SYN).
    pub opens: bool,
    /// Bytes of the IP packet, by its own length field.
    pub len: u16,
    /// DSCP and ECN.
    pub tos: u8,
    /// Whether it is IPv4.
    pub is_v4: bool,
    /// Whether routers may fragment it.
    pub may_fragment: bool,
    /// What TCP says of the segment; meaningless for other protocols.
    pub segment: Segment,
}

/// The fields of a TCP segment that tell whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Whether the acknowledgement number counts.
    pub has_ack: bool,
    /// Bytes of data.
    pub data: u16,
    /// Offset of the TCP header in the frame.
    pub offset: u16,
}

/// Where the upper layer is, after the network header proved sound.
struct Upper {
    protocol: u8,
    offset: usize,
    /// Offset of the first byte behind the IP packet; what follows in the frame is Ethernet padding.
    end: usize,
}

/// Reads the flow of a packet to a VIP; the reason is one that drops.
#[inline(always)]
pub fn flow<P: Packet>(packet: &P, network: &Network<'_>) -> Result<Flow, Reason> {
    let upper = match &network.header {
        Header::V4(header) => upper_of_v4(packet, network.l3, header)?,
        Header::V6(header) => upper_of_v6(packet, network.l3, header)?,
    };
    let Ports { source: source_port, destination: destination_port, opens, segment } = match upper.protocol {
        protocol::TCP => tcp(packet, &upper)?,
        protocol::UDP => udp(packet, &upper)?,
        protocol::ICMP | protocol::ICMPV6 => return Err(Reason::Icmp),
        _ => return Err(Reason::NoService),
    };
    let (tos, is_v4, may_fragment) = match &network.header {
        Header::V4(header) => (header.tos(), true, !header.dont_fragment()),
        Header::V6(header) => (header.traffic_class(), false, false),
    };
    Ok(Flow {
        key: FlowKey {
            source: network.source(),
            destination: network.destination(),
            source_port,
            destination_port,
            protocol: upper.protocol,
            zero: [0; 3],
        },
        opens,
        len: (upper.end - network.l3) as u16,
        tos,
        is_v4,
        may_fragment,
        segment,
    })
}

#[inline(always)]
fn upper_of_v4<P: Packet>(packet: &P, l3: usize, header: &ipv4::Header<'_>) -> Result<Upper, Reason> {
    if header.version() != 4 {
        return Err(Reason::BadVersion);
    }
    let header_len = header.header_len();
    if header_len < ipv4::LEN {
        return Err(Reason::BadHeaderLength);
    }
    let end = l3 + usize::from(header.total_len());
    if end > packet.len() || usize::from(header.total_len()) < ipv4::LEN {
        return Err(Reason::BadTotalLength);
    }
    if l3 + header_len > end {
        return Err(Reason::BadHeaderLength);
    }
    if header.is_fragment() {
        return Err(Reason::Fragment);
    }
    Ok(Upper { protocol: header.protocol(), offset: l3 + header_len, end })
}

#[inline(always)]
fn upper_of_v6<P: Packet>(packet: &P, l3: usize, header: &ipv6::Header<'_>) -> Result<Upper, Reason> {
    if header.version() != 6 {
        return Err(Reason::BadVersion);
    }
    let payload = usize::from(header.payload_len());
    let end = l3 + ipv6::LEN + payload;
    // A payload length of zero is a jumbogram (RFC 2675) or nothing at all; a 16-bit length cannot carry
    // either, nor a packet that fills it together with its own header.
    if payload == 0 || payload > usize::from(u16::MAX) - ipv6::LEN || end > packet.len() {
        return Err(Reason::BadTotalLength);
    }
    let (protocol, offset) = ipv6::skip_extensions(packet, header.next_header(), l3 + ipv6::LEN)?;
    if offset > end {
        return Err(Reason::BadExtension);
    }
    Ok(Upper { protocol, offset, end })
}

/// What the upper layer says.
struct Ports {
    source: [u8; 2],
    destination: [u8; 2],
    opens: bool,
    segment: Segment,
}

#[inline(always)]
fn tcp<P: Packet>(packet: &P, upper: &Upper) -> Result<Ports, Reason> {
    if upper.offset + l4::TCP_LEN > upper.end {
        return Err(Reason::BadTcpHeader);
    }
    let header = l4::Tcp(packet.bytes(upper.offset).ok_or(Reason::BadTcpHeader)?);
    // RFC 9293 section 3.1: the data offset counts the header's 32-bit words; the header has at least five.
    if header.header_len() < l4::TCP_LEN || upper.offset + header.header_len() > upper.end {
        return Err(Reason::BadTcpHeader);
    }
    let (source, destination) = header.ports();
    let segment = Segment {
        sequence: header.sequence(),
        acknowledgement: header.acknowledgement(),
        has_ack: header.has_ack(),
        data: (upper.end - upper.offset - header.header_len()) as u16,
        offset: upper.offset as u16,
    };
    Ok(Ports { source, destination, opens: header.opens(), segment })
}

#[inline(always)]
fn udp<P: Packet>(packet: &P, upper: &Upper) -> Result<Ports, Reason> {
    if upper.offset + l4::UDP_LEN > upper.end {
        return Err(Reason::BadUdpHeader);
    }
    let header = l4::Udp(packet.bytes(upper.offset).ok_or(Reason::BadUdpHeader)?);
    // RFC 768: the length counts this header; "the minimum value of the length is eight".
    if usize::from(header.len()) < l4::UDP_LEN || upper.offset + usize::from(header.len()) > upper.end {
        return Err(Reason::BadUdpHeader);
    }
    let (source, destination) = header.ports();
    Ok(Ports { source, destination, opens: false, segment: Segment::default() })
}
