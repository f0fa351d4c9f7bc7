//! One address type for both families.

use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address as 16 bytes in network order; IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2).
///
/// This is the form in map keys, in the flow key and in the rank of a member, so it is part of the fleet's contract.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Address([u8; 16]);

const V4_MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl Address {
    /// From 16 bytes in network order.
    #[inline(always)]
    pub const fn from_v6_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From four bytes in network order.
    #[inline(always)]
    pub const fn from_v4_bytes([a, b, c, d]: [u8; 4]) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The 16 bytes in network order.
    #[inline(always)]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        self.0[..12] == V4_MAPPED
    }

    /// The four IPv4 bytes in network order; meaningful only where [`Self::is_v4`] holds.
    #[inline(always)]
    pub const fn v4_bytes(&self) -> [u8; 4] {
        [self.0[12], self.0[13], self.0[14], self.0[15]]
    }

    /// Whether a host may send from this address: not loopback, not multicast, not unspecified.
    #[inline(always)]
    pub fn is_unicast_of_a_host(&self) -> bool {
        if self.is_v4() {
            // RFC 1122 section 3.2.1.3: 0/8 and 127/8 never appear on the wire; 224/3 is multicast and reserved.
            !matches!(self.0[12], 0 | 127 | 224..)
        } else {
            // RFC 4291 section 2.4: ::, ::1 and ff00::/8.
            self.0[0] != 0xff && (self.0[..15] != [0; 15] || self.0[15] > 1)
        }
    }

    /// As the standard library's type, IPv4 unmapped.
    pub fn to_ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => v6.into(),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Self {
        Self::from_v4_bytes(ip.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Self {
        Self(ip.octets())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
