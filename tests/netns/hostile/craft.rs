//! Packets to the VIPs that are wrong in one way each, and the reason that the wrong deserves.

use std::net::{Ipv4Addr, Ipv6Addr};

use lb_common::reason::Reason;
use lb_tests::plan::{Link, PORT, VIP4, VIP6};

/// Where the senders claim to be.
pub(super) const NOWHERE4: &str = "198.51.100.0/24";
pub(super) const NOWHERE6: &str = "2001:db8:7::/64";
const SENDER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const SENDER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);

const TCP: u8 = 6;
const UDP: u8 = 17;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// A frame and what the load balancer must call it.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) reason: Reason,
    pub(super) bytes: Vec<u8>,
}

/// The whole set. `ethernet` is destination and source of every frame.
pub(super) fn frames(ethernet: [u8; 12]) -> Vec<Frame> {
    let mut set = Set { ethernet, frames: Vec::new() };
    set.sound();
    set.cut_off();
    set.ipv4_headers();
    set.ipv6_headers();
    set.extensions();
    set.upper_layers();
    set.frames
}

struct Set {
    ethernet: [u8; 12],
    frames: Vec<Frame>,
}

impl Set {
    fn add(&mut self, reason: Reason, packet: &[u8]) {
        let ethertype =
            if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
        self.add_as(reason, ethertype, packet);
    }

    fn add_as(&mut self, reason: Reason, ethertype: [u8; 2], packet: &[u8]) {
        let bytes = [&self.ethernet, ethertype.as_slice(), packet].concat();
        self.frames.push(Frame { reason, bytes });
    }

    /// A sound packet with one byte changed.
    fn spoil(&mut self, reason: Reason, packet: &[u8], at: usize, value: u8) {
        let mut packet = packet.to_vec();
        // The EtherType stays that of the sound packet.
        let ethertype = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        packet[at] = value;
        self.add_as(reason, ethertype, &packet);
    }

    /// That the others are refused for what is wrong with them.
    fn sound(&mut self) {
        for packet in [v4(TCP, &tcp()), v4(UDP, &udp()), v6(TCP, &tcp()), v6(UDP, &udp())] {
            self.add(Reason::Forwarded, &packet);
        }
        // Padding behind the packet, as short Ethernet frames have it.
        self.add(Reason::Forwarded, &[v4(TCP, &tcp()), vec![0; 6]].concat());
        // Options of the IPv4 header: one and ten words of no-operation.
        for words in [1, 10] {
            self.add(Reason::Forwarded, &v4_with_options(words));
        }
    }

    fn cut_off(&mut self) {
        for (packet, header) in [(v4(TCP, &tcp()), IPV4), (v6(TCP, &tcp()), IPV6)] {
            let ethertype = if header == IPV4 { [8, 0] } else { [0x86, 0xdd] };
            for len in 0..packet.len() {
                // Without a destination address nobody can say that it is for a VIP.
                let reason = if len < header { Reason::TooShort } else { Reason::BadTotalLength };
                self.add_as(reason, ethertype, &packet[..len]);
            }
        }
    }

    fn ipv4_headers(&mut self) {
        let packet = v4(TCP, &tcp());
        for version in (0..16).filter(|version| *version != 4) {
            self.spoil(Reason::BadVersion, &packet, 0, version << 4 | 5);
        }
        for words in (0..16).filter(|words| *words != 5) {
            // Up to ten words end inside the packet, where too little is left for TCP.
            let reason =
                if (6..=10).contains(&words) { Reason::BadTcpHeader } else { Reason::BadHeaderLength };
            self.spoil(reason, &packet, 0, 4 << 4 | words);
        }
        for total in (0..=255).filter(|total| *total != 40) {
            let reason =
                if (20..40).contains(&total) { Reason::BadTcpHeader } else { Reason::BadTotalLength };
            self.spoil(reason, &packet, 3, total);
        }
        // More fragments; a later fragment.
        self.spoil(Reason::Fragment, &packet, 6, 0x20);
        self.spoil(Reason::Fragment, &packet, 7, 0x01);
        for number in [47, 50, 132] {
            self.add(Reason::NoService, &v4(number, &tcp()));
        }
        self.add(Reason::Icmp, &v4(1, &tcp()));
        let mut looped = packet;
        looped[12..16].copy_from_slice(&Link::backend(1).host4().octets());
        self.add(Reason::Looped, &looped);
    }

    fn ipv6_headers(&mut self) {
        let packet = v6(TCP, &tcp());
        for version in (0..16).filter(|version| *version != 6) {
            self.spoil(Reason::BadVersion, &packet, 0, version << 4);
        }
        for payload in (0..=255).filter(|payload| *payload != 20) {
            let reason =
                if (1..20).contains(&payload) { Reason::BadTcpHeader } else { Reason::BadTotalLength };
            self.spoil(reason, &packet, 5, payload);
        }
        // 59 is "no next header".
        for number in [47, 50, 59, 132] {
            self.add(Reason::NoService, &v6(number, &tcp()));
        }
        self.add(Reason::Icmp, &v6(58, &tcp()));
        let mut looped = packet;
        looped[8..24].copy_from_slice(&Link::backend(1).host6().octets());
        self.add(Reason::Looped, &looped);
    }

    fn extensions(&mut self) {
        for count in 1..=8 {
            let reason = if count <= 4 { Reason::Forwarded } else { Reason::TooManyExtensions };
            self.add(reason, &with_extensions(count, 0));
        }
        // A fragment header, whole packet or not.
        for offset_and_more in [0, 1, 0x80] {
            let header = [TCP, 0, 0, offset_and_more, 0, 0, 0, 1];
            self.add(Reason::Fragment, &v6(44, &[header.as_slice(), &tcp()].concat()));
        }
        // One whose length, in units of eight bytes, leads beyond the packet.
        for units in [4, 20, 255] {
            self.add(Reason::BadExtension, &with_extensions(1, units));
        }
    }

    fn upper_layers(&mut self) {
        for words in (0..16).filter(|words| *words != 5) {
            let mut header = tcp();
            header[12] = words << 4;
            self.add(Reason::BadTcpHeader, &v4(TCP, &header));
            self.add(Reason::BadTcpHeader, &v6(TCP, &header));
        }
        for len in (0..=255).filter(|len| !(8..=12).contains(len)) {
            let mut header = udp();
            header[5] = len;
            self.add(Reason::BadUdpHeader, &v4(UDP, &header));
            self.add(Reason::BadUdpHeader, &v6(UDP, &header));
        }
        let mut elsewhere = tcp();
        elsewhere[3] = 81;
        self.add(Reason::NoService, &v4(TCP, &elsewhere));
        self.add(Reason::NoService, &v6(TCP, &elsewhere));
    }
}

/// A TCP header without options: an ACK, to which a backend answers a RST at most.
fn tcp() -> Vec<u8> {
    let mut header = vec![0; 20];
    header[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    header[2..4].copy_from_slice(&PORT.to_be_bytes());
    (header[12], header[13]) = (5 << 4, 0x10);
    header
}

/// A datagram of four bytes.
fn udp() -> Vec<u8> {
    let mut datagram = vec![0; 12];
    datagram[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    datagram[2..4].copy_from_slice(&PORT.to_be_bytes());
    datagram[5] = 12;
    datagram
}

fn v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; IPV4];
    header[0] = 0x45;
    header[3] = (IPV4 + payload.len()) as u8;
    // Don't fragment; time to live.
    (header[6], header[8], header[9]) = (0x40, 64, protocol);
    header[12..16].copy_from_slice(&SENDER4.octets());
    header[16..20].copy_from_slice(&VIP4.octets());
    [header, payload.to_vec()].concat()
}

fn v4_with_options(words: u8) -> Vec<u8> {
    let mut packet = v4(TCP, &tcp());
    packet[0] += words;
    packet[3] += 4 * words;
    let rest = packet.split_off(IPV4);
    packet.resize(IPV4 + 4 * usize::from(words), 1);
    [packet, rest].concat()
}

fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; IPV6];
    header[0] = 0x60;
    header[5] = payload.len() as u8;
    (header[6], header[7]) = (next_header, 64);
    header[8..24].copy_from_slice(&SENDER6.octets());
    header[24..40].copy_from_slice(&VIP6.octets());
    [header, payload.to_vec()].concat()
}

/// TCP behind destination options, each of eight bytes that claim to be `units` times eight more.
fn with_extensions(count: usize, units: u8) -> Vec<u8> {
    const DESTINATION_OPTIONS: u8 = 60;
    let mut payload = Vec::new();
    for number in 1..=count {
        let next = if number == count { TCP } else { DESTINATION_OPTIONS };
        // One PadN option of four bytes fills it.
        payload.extend([next, units, 1, 4, 0, 0, 0, 0]);
    }
    payload.extend(tcp());
    v6(DESTINATION_OPTIONS, &payload)
}
