//! The lab's address plan: every host is one veth away from the router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The anycast addresses the clients connect to.
pub const VIP4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 0x10);

/// The port of the lab's echo service.
pub const PORT: u16 = 80;

/// The client's link keeps the Internet's usual MTU; the tunnels' links have room for the outer headers, so a
/// full-sized client packet fits once it is encapsulated.
pub const CLIENT_MTU: u16 = 1500;
pub const TUNNEL_MTU: u16 = 1700;

/// One link between the router (`.1`, `::1`) and a host (`.2`, `::2`), by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link(pub u8);

impl Link {
    pub const CLIENT: Self = Self(0);

    /// `number` counts from 1.
    pub fn load_balancer(number: u8) -> Self {
        Self(number)
    }

    /// `number` counts from 1.
    pub fn backend(number: u8) -> Self {
        Self(10 + number)
    }

    pub fn router4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 8, self.0, 1)
    }

    pub fn router6(self) -> Ipv6Addr {
        self.v6(1)
    }

    pub fn host4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 8, self.0, 2)
    }

    pub fn host6(self) -> Ipv6Addr {
        self.v6(2)
    }

    /// Both prefixes of the link, as text: `10.8.11.0/24` and `fd08:11::/64`.
    pub fn prefixes(self) -> [String; 2] {
        [format!("10.8.{}.0/24", self.0), format!("{}/64", self.v6(0))]
    }

    fn v6(self, host: u16) -> Ipv6Addr {
        // The link's number is read as it is printed: 11 becomes the group `11`, which is 0x11.
        let number = u16::from(self.0);
        let group = (number / 100) << 8 | (number / 10 % 10) << 4 | (number % 10);
        Ipv6Addr::new(0xfd08, group, 0, 0, 0, 0, 0, host)
    }
}

/// Address family of a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn vip(self) -> IpAddr {
        match self {
            Self::V4 => VIP4.into(),
            Self::V6 => VIP6.into(),
        }
    }

    /// The echo service at the VIP of this family.
    pub fn service(self) -> SocketAddr {
        SocketAddr::new(self.vip(), PORT)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_number_reads_the_same_in_both_families() {
        assert_eq!(Link::backend(1).host4().to_string(), "10.8.11.2");
        assert_eq!(Link::backend(1).host6().to_string(), "fd08:11::2");
        assert_eq!(Link::load_balancer(2).router6().to_string(), "fd08:2::1");
        assert_eq!(Link::CLIENT.host6().to_string(), "fd08::2");
        assert_eq!(Link::backend(90).prefixes(), ["10.8.100.0/24", "fd08:100::/64"]);
    }

    #[test]
    fn links_do_not_share_a_prefix() {
        let all: std::collections::BTreeSet<_> =
            (0..=255).flat_map(|number| Link(number).prefixes()).collect();
        assert_eq!(all.len(), 512);
    }
}
