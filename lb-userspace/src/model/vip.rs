//! VIPs and their text form.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A service: address, protocol and port, served by a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vip {
    pub name: String,
    pub address: IpAddr,
    pub protocol: Protocol,
    /// Host byte order; 0 is every port of the address and protocol.
    pub port: u16,
    pub pool: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// What packets of a VIP are recognised by. Text form: `203.0.113.10:80/tcp`, `[2001:db8::1]:80/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub address: IpAddr,
    pub protocol: Protocol,
    /// Host byte order; 0 is every port.
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{text}` is not ADDRESS:PORT/PROTOCOL: {why}; write 203.0.113.10:80/tcp or [2001:db8::1]:80/udp")]
pub struct EndpointError {
    pub text: String,
    pub why: &'static str,
}

impl Vip {
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { address: self.address, protocol: self.protocol, port: self.port }
    }
}

impl Protocol {
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The protocol number of the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Protocol {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == text).ok_or(())
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:{}/{}", self.port, self.protocol),
            IpAddr::V6(address) => write!(f, "[{address}]:{}/{}", self.port, self.protocol),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = |why| EndpointError { text: text.to_owned(), why };
        let (place, protocol) = text.rsplit_once('/').ok_or_else(|| wrong("the protocol is missing"))?;
        let protocol = protocol.parse().map_err(|()| wrong("the protocol must be tcp or udp"))?;
        let (address, port) = place.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let address = match address.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .and_then(|inside| inside.parse::<Ipv6Addr>().ok())
                .map(IpAddr::V6)
                .ok_or_else(|| wrong("the part in brackets must be an IPv6 address"))?,
            None if address.contains(':') => return Err(wrong("an IPv6 address needs brackets")),
            None => IpAddr::V4(address.parse().ok().ok_or_else(|| wrong("the address does not parse"))?),
        };
        // `u16::from_str` would also take `+80`.
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong("the port must be a number from 0 to 65535"));
        }
        let port = port.parse().ok().ok_or_else(|| wrong("the port must be a number from 0 to 65535"))?;
        Ok(Self { address, protocol, port })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_of_wrong_text_is_refused_with_its_reason() {
        for (text, why) in [
            ("203.0.113.10:80", "protocol is missing"),
            ("203.0.113.10:80/sctp", "tcp or udp"),
            ("203.0.113.10/tcp", "port is missing"),
            ("203.0.113.300:80/tcp", "does not parse"),
            ("2001:db8::1:80/tcp", "needs brackets"),
            ("[203.0.113.10]:80/tcp", "IPv6"),
            ("[2001:db8::1:80/tcp", "IPv6"),
            ("203.0.113.10:65536/tcp", "0 to 65535"),
            ("203.0.113.10:+80/tcp", "0 to 65535"),
            ("203.0.113.10:/tcp", "0 to 65535"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text);
            assert!(error.to_string().contains(why), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn the_text_form_reads_back_as_itself(address: IpAddr, port: u16, tcp: bool) {
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            let endpoint = Endpoint { address, protocol, port };
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }
    }
}
