//! The parts of TCP (RFC 9293) and UDP (RFC 768) that a load balancer looks at.

/// Bytes of a TCP header without options.
pub const TCP_LEN: usize = 20;
/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// The fixed part of a TCP header, unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'p>(pub &'p [u8; TCP_LEN]);

impl Tcp<'_> {
    /// Header length in bytes by the data offset field: 0 to 60.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[12] >> 4) * 4
    }

    /// Source and destination port, network order.
    #[inline(always)]
    pub fn ports(&self) -> ([u8; 2], [u8; 2]) {
        ([self.0[0], self.0[1]], [self.0[2], self.0[3]])
    }

    /// Sequence number.
    #[inline(always)]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Acknowledgement number; counts only where [`Self::has_ack`].
    #[inline(always)]
    pub fn acknowledgement(&self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// Whether the ACK flag is set.
    #[inline(always)]
    pub fn has_ack(&self) -> bool {
        self.0[13] & ACK != 0
    }

    /// Whether this segment asks for a new connection: SYN without ACK.
    #[inline(always)]
    pub fn opens(&self) -> bool {
        self.0[13] & (SYN | ACK) == SYN
    }
}

/// A UDP header, unchecked.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'p>(pub &'p [u8; UDP_LEN]);

impl Udp<'_> {
    /// Source and destination port, network order.
    #[inline(always)]
    pub fn ports(&self) -> ([u8; 2], [u8; 2]) {
        ([self.0[0], self.0[1]], [self.0[2], self.0[3]])
    }

    /// Length in bytes, this header included.
    #[inline(always)]
    pub fn len(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Whether the datagram has no payload.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        usize::from(self.len()) <= UDP_LEN
    }
}

/// A UDP header with checksum zero.
///
/// RFC 768 allows it over IPv4. RFC 6935 section 5 allows it over IPv6 for tunnels: the inner packet has a
/// checksum of its own.
#[inline(always)]
pub fn emit_udp(source_port: u16, destination_port: [u8; 2], len: u16) -> [u8; UDP_LEN] {
    let [s0, s1] = source_port.to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    [s0, s1, destination_port[0], destination_port[1], l0, l1, 0, 0]
}
