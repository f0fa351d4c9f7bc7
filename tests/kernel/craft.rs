//! A fleet in memory and generated packets: valid, mutated, truncated.

use std::net::IpAddr;

use lb_common::abi::{
    BackendEntry, Chain, NextHop, PrefixKey, VipEntry, VipKey, backend_flags, next_hop_flags,
};
use lb_common::address::Address;
use lb_common::memory::{MemoryAgentTables, MemoryTables};
use lb_common::wire::protocol;

pub(crate) const VIP4: &str = "203.0.113.10";
pub(crate) const VIP6: &str = "2001:db8:100::10";
pub(crate) const ROWS_LOG2: u32 = 12;
/// The interface that BPF_PROG_TEST_RUN claims a frame came from: the loopback interface, whose index is 1.
pub(crate) const INGRESS: u32 = 1;
pub(crate) const OTHER_INTERFACE: u32 = 2;

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address literal").into()
}

/// Backends of all four tunnel shapes and several states; one way back out, one through another interface, one
/// that is small, one that is unknown.
pub(crate) fn fleet() -> MemoryTables {
    let mut tables = MemoryTables {
        tunnel_sources: vec![
            PrefixKey { bits: 96 + 16, address: address("10.8.0.0") },
            PrefixKey { bits: 16, address: address("fd08::") },
        ],
        ..MemoryTables::default()
    };
    add_backends(&mut tables);
    for (index, ifindex, mtu) in [(1, INGRESS, 1600), (2, OTHER_INTERFACE, 1600), (3, INGRESS, 200)] {
        let (destination, source) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let next_hop = NextHop { ifindex, mtu, destination, source, flags: next_hop_flags::USABLE };
        tables.next_hops.insert(index, next_hop);
    }
    let chain = |row: u16| match row % 16 {
        15 => Chain::default(),
        // Chains of pools with agents, of two to four members.
        13 => Chain([9, 10, 11, 12]),
        12 => Chain([13, 14, 15, 16]),
        11 => Chain([10, 9, 0, 0]),
        10 => Chain([15, 13, 14, 0]),
        // One that drains and one in maintenance: nobody for new flows.
        14 => Chain([5, 7, 0, 0]),
        row => Chain([1 + row % 8, 1 + (row + 3) % 8, if row > 8 { 1 + (row + 5) % 8 } else { 0 }, 0]),
    };
    tables.tables.insert(0, (0..1 << ROWS_LOG2).map(chain).collect());
    // A larger table than the template declares; table 9, which a service names, is missing.
    tables.tables.insert(5, (0..1_u32 << 13).map(|row| chain(row as u16)).collect());
    add_services(&mut tables);
    tables
}

fn add_backends(tables: &mut MemoryTables) {
    let ready = backend_flags::READY | backend_flags::HEALTHY;
    let chained = ready | backend_flags::GUE | backend_flags::AGENT;
    let backends = [
        ("10.8.11.2", ready | backend_flags::GUE, 1),
        ("fd08:11::2", ready | backend_flags::GUE, 2),
        ("10.8.12.2", ready, 2),
        ("fd08:12::2", ready, 1),
        ("10.8.13.2", backend_flags::HEALTHY | backend_flags::GUE, 1),
        ("10.8.14.2", ready | backend_flags::GUE, 3),
        ("10.8.15.2", backend_flags::MAINT, 1),
        ("10.8.16.2", ready | backend_flags::GUE, 0),
        ("10.8.11.2", chained, 1),
        ("10.8.17.2", chained & !backend_flags::READY, 1),
        ("10.8.18.2", chained, 1),
        ("10.8.19.2", chained, 2),
        ("fd08:11::2", chained, 1),
        ("fd08:17::2", chained, 1),
        ("fd08:18::2", chained & !backend_flags::READY, 2),
        ("fd08:19::2", chained, 1),
    ];
    for (handle, (backend, flags, next_hop)) in (1..).zip(backends) {
        let source = if backend.contains(':') { "fd08:1::2" } else { "10.8.1.2" };
        let entry = BackendEntry {
            address: address(backend),
            source: address(source),
            next_hop,
            flags,
            gue_port: 6080_u16.to_be_bytes(),
            zero: [0; 6],
        };
        tables.backends.insert(handle, entry);
    }
}

/// Two services of 2^12 and 2^13 rows, one whose table is missing, one for every port.
fn add_services(tables: &mut MemoryTables) {
    let services = [
        (80_u16, protocol::TCP, 0, 12),
        (53, protocol::UDP, 5, 13),
        (81, protocol::TCP, 9, 12),
        (0, protocol::UDP, 0, 12),
    ];
    for vip in [VIP4, VIP6] {
        for (port, number, table, rows_log2) in services {
            let index = tables.vips.len() as u32;
            let key = VipKey::new(address(vip), port.to_be_bytes(), number);
            tables.vips.insert(key, VipEntry { seed: 0x5eed_0f0f, vip: index, table, rows_log2, zero: 0 });
        }
    }
}

pub(crate) fn backend_host() -> MemoryAgentTables {
    MemoryAgentTables {
        local: ["10.8.11.2", "fd08:11::2", "10.8.12.2", "fd08:12::2"].map(address).into(),
        vips: [VIP4, VIP6].map(address).into(),
        tunnel_sources: fleet().tunnel_sources,
        gue_port: 6080_u16.to_be_bytes(),
        // The test-run happens where no socket listens on a VIP.
        sockets: std::collections::BTreeMap::new(),
    }
}

/// SplitMix64: small, good enough to choose packets, and the same packets every time.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A frame that is mostly sound and mostly for a VIP.
pub(crate) fn frame(random: &mut Random) -> Vec<u8> {
    let v6 = random.chance(50);
    let vlans = random.one_of(&[0, 0, 0, 1, 2, 3]);
    let mut frame = vec![0x02, 0, 0, 0, 0, 9, 0x02, 0, 0, 0, 0, 8];
    for _ in 0..vlans {
        frame.extend([0x81, 0x00, 0x00, 0x64]);
    }
    frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    let l4 = upper_layer(random, v6);
    if v6 {
        ipv6(&mut frame, random, &l4);
    } else {
        ipv4(&mut frame, random, &l4);
    }
    if random.chance(20) {
        frame.extend(std::iter::repeat_n(0, random.below(30)));
    }
    frame
}

/// Damages a frame: changes some bytes, cuts it off, or both. Never below the Ethernet header, which the kernel's
/// test-run insists on.
pub(crate) fn damage(frame: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(4) {
        // Headers are where damage matters.
        let at = random.below(frame.len().min(100));
        frame[at] = random.next() as u8;
    }
    if random.chance(5) && frame[12..14] == [0x08, 0x00] {
        frame[14] = 0x40 | random.below(16) as u8;
    }
    if random.chance(30) {
        let len = 14 + random.below(frame.len() - 14);
        frame.truncate(len);
    }
}

struct UpperLayer {
    protocol: u8,
    bytes: Vec<u8>,
}

fn upper_layer(random: &mut Random, v6: bool) -> UpperLayer {
    let payload = random.one_of(&[0, 1, 10, 100, 150, 1000, 1400, 1520, 1560]);
    let source_port = (1024 + random.below(2000) as u16).to_be_bytes();
    if random.chance(60) {
        let port = random.one_of(&[80_u16, 80, 80, 81, 443]).to_be_bytes();
        let flags = random.one_of(&[0x02, 0x10, 0x18, 0x12, 0x04, 0x11, 0xc2]);
        let words = random.one_of(&[5_u8, 5, 8, 15]);
        let mut bytes =
            [&source_port[..], &port, &[0; 8], &[words << 4, flags, 0xff, 0xff, 0, 0, 0, 0]].concat();
        bytes.extend(std::iter::repeat_n(1, usize::from(words - 5) * 4 + payload));
        UpperLayer { protocol: protocol::TCP, bytes }
    } else if random.chance(85) {
        let port = random.one_of(&[53_u16, 53, 5353, 6080]).to_be_bytes();
        let len = (8 + payload) as u16;
        let mut bytes = [&source_port[..], &port, &len.to_be_bytes(), &[0, 0]].concat();
        bytes.extend(std::iter::repeat_n(2, payload));
        UpperLayer { protocol: protocol::UDP, bytes }
    } else {
        let number = random.one_of(&[if v6 { protocol::ICMPV6 } else { protocol::ICMP }, 132, 50, 4, 41]);
        UpperLayer { protocol: number, bytes: vec![3; 8 + payload] }
    }
}

fn ipv4(frame: &mut Vec<u8>, random: &mut Random, l4: &UpperLayer) {
    let options = random.one_of(&[0_u8, 0, 0, 1, 10]);
    let header_len = 20 + usize::from(options) * 4;
    let total = (header_len + l4.bytes.len()) as u16;
    let flags = random.one_of(&[0x40_u8, 0x40, 0x40, 0x00, 0x20]);
    let source = random.one_of(&["198.51.100.7", "198.51.100.8", "192.0.2.1", "10.8.11.2"]);
    let destination = random.one_of(&[VIP4, VIP4, VIP4, VIP4, "198.51.100.1"]);
    frame.extend([0x45 + options, random.next() as u8]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 0, flags, 0, random.next() as u8, l4.protocol, 0, 0]);
    frame.extend(address(source).v4_bytes());
    frame.extend(address(destination).v4_bytes());
    frame.extend(std::iter::repeat_n(1, usize::from(options) * 4));
    frame.extend(&l4.bytes);
}

fn ipv6(frame: &mut Vec<u8>, random: &mut Random, l4: &UpperLayer) {
    let extensions = random.one_of(&[0, 0, 0, 1, 3, 4, 5]);
    let kinds: Vec<u8> =
        (0..extensions).map(|n| if n == 0 { 0 } else { random.one_of(&[60, 43, 60, 60, 44]) }).collect();
    let mut chain = Vec::new();
    for n in 0..extensions {
        let next = kinds.get(n + 1).copied().unwrap_or(l4.protocol);
        let units = random.one_of(&[0_u8, 0, 1, 3]);
        chain.extend([next, units]);
        chain.extend(std::iter::repeat_n(0, usize::from(units) * 8 + 6));
    }
    let first = kinds.first().copied().unwrap_or(l4.protocol);
    let source = random.one_of(&["2001:db8:7::7", "2001:db8:7::8", "fd08:11::2"]);
    let destination = random.one_of(&[VIP6, VIP6, VIP6, VIP6, "2001:db8:7::1"]);
    let label = random.next() as u32;
    frame.extend((0x6000_0000 | (label & 0x0fff_ffff)).to_be_bytes());
    frame.extend(((chain.len() + l4.bytes.len()) as u16).to_be_bytes());
    frame.extend([first, random.next() as u8]);
    frame.extend(address(source).bytes());
    frame.extend(address(destination).bytes());
    frame.extend(chain);
    frame.extend(&l4.bytes);
}
