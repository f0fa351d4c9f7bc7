//! A small fleet in memory, and packets built by etherparse.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use lb_common::abi::{
    BackendEntry, Chain, NextHop, PrefixKey, VipEntry, VipKey, backend_flags, next_hop_flags,
};
use lb_common::address::Address;
use lb_common::decide::{self, Decision};
use lb_common::memory::MemoryTables;
use lb_common::packet::Frame;
use lb_common::reason::Reason;
use lb_common::wire::protocol;

pub(crate) const VIP4: &str = "203.0.113.10";
pub(crate) const VIP6: &str = "2001:db8:100::10";
pub(crate) const CLIENT4: &str = "198.51.100.7";
pub(crate) const CLIENT6: &str = "2001:db8:7::7";
pub(crate) const ROWS_LOG2: u32 = 12;
/// Handles of the four backends: GUE over IPv4, GUE over IPv6, IP in IP over IPv4, over IPv6.
pub(crate) const BACKENDS: [u16; 4] = [1, 2, 3, 4];
/// Services whose backends run the agent, over IPv4 and over IPv6: their rows hold four backends of one family.
pub(crate) const CHAINED: [(u16, [u16; 4]); 2] = [(9004, [11, 12, 13, 14]), (9006, [21, 22, 23, 24])];

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().expect("an address literal").into()
}

/// Four pools of one backend, one for each shape of tunnel, and VIPs on ports 8001 to 8004; port 80 is in the
/// first pool with a row for each backend in turn.
pub(crate) fn fleet() -> MemoryTables {
    let mut tables = MemoryTables::default();
    for (handle, (backend, is_gue)) in
        (1..).zip([("10.8.11.2", true), ("fd08:11::2", true), ("10.8.12.2", false), ("fd08:12::2", false)])
    {
        let source = if backend.contains(':') { "fd08:1::2" } else { "10.8.1.2" };
        let gue = if is_gue { backend_flags::GUE } else { 0 };
        let entry = BackendEntry {
            address: address(backend),
            source: address(source),
            next_hop: 1,
            flags: backend_flags::READY | backend_flags::HEALTHY | gue,
            gue_port: 6080_u16.to_be_bytes(),
            zero: [0; 6],
        };
        tables.backends.insert(handle, entry);
        tables.tables.insert(u32::from(handle), vec![Chain([handle, 0, 0, 0]); 1 << ROWS_LOG2]);
        add_service(&mut tables, 8000 + handle, u32::from(handle));
    }
    let mixed = (0..1_u16 << ROWS_LOG2).map(|row| Chain([1 + row % 4, 1 + (row + 1) % 4, 0, 0]));
    tables.tables.insert(0, mixed.collect());
    add_service(&mut tables, 80, 0);
    for (port, handles) in CHAINED {
        for handle in handles {
            let (v4, v6) = (format!("10.8.{handle}.2"), format!("fd08:{handle}::2"));
            let is_v6 = port == 9006;
            let flags =
                backend_flags::READY | backend_flags::HEALTHY | backend_flags::GUE | backend_flags::AGENT;
            let entry = BackendEntry {
                address: address(if is_v6 { &v6 } else { &v4 }),
                source: address(if is_v6 { "fd08:1::2" } else { "10.8.1.2" }),
                next_hop: 1,
                flags,
                gue_port: 6080_u16.to_be_bytes(),
                zero: [0; 6],
            };
            tables.backends.insert(handle, entry);
        }
        tables.tables.insert(u32::from(port), vec![Chain(handles); 1 << ROWS_LOG2]);
        add_service(&mut tables, port, u32::from(port));
    }
    let next_hop = NextHop {
        ifindex: 7,
        mtu: 1600,
        destination: [2, 0, 0, 0, 0, 1],
        source: [2, 0, 0, 0, 0, 2],
        flags: next_hop_flags::USABLE,
    };
    tables.next_hops.insert(1, next_hop);
    tables.tunnel_sources = vec![
        PrefixKey { bits: 96 + 16, address: address("10.8.0.0") },
        PrefixKey { bits: 16, address: address("fd08::") },
    ];
    tables
}

fn add_service(tables: &mut MemoryTables, port: u16, table: u32) {
    for vip in [VIP4, VIP6] {
        for number in [protocol::TCP, protocol::UDP] {
            let key = VipKey::new(address(vip), port.to_be_bytes(), number);
            let index = tables.vips.len() as u32;
            let entry = VipEntry { seed: 0x5eed, vip: index, table, rows_log2: ROWS_LOG2, zero: 0 };
            tables.vips.insert(key, entry);
        }
    }
}

pub(crate) fn decide<'t>(tables: &'t MemoryTables, frame: &[u8]) -> Decision<'t> {
    decide::decide(&Frame(frame), tables)
}

pub(crate) fn reason(tables: &MemoryTables, frame: &[u8]) -> Reason {
    decide(tables, frame).reason
}

/// What a test varies; the rest is an ordinary packet.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    pub(crate) source_port: u16,
    pub(crate) port: u16,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) flow_label: u32,
    pub(crate) vlans: usize,
    pub(crate) payload: usize,
    pub(crate) syn: bool,
    pub(crate) source: Option<&'static str>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            v6: false,
            udp: false,
            source_port: 40000,
            port: 80,
            tos: 0,
            ttl: 64,
            flow_label: 0,
            vlans: 0,
            payload: 100,
            syn: false,
            source: None,
        }
    }
}

impl Spec {
    pub(crate) fn frame(&self) -> Vec<u8> {
        let source = self.source.unwrap_or(if self.v6 { CLIENT6 } else { CLIENT4 });
        let destination = if self.v6 { VIP6 } else { VIP4 };
        let ip = ip_header(source, destination, self);
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let vlan = |id: u16| etherparse::VlanId::try_new(id).expect("a 12-bit id");
        let builder = match self.vlans {
            0 => ethernet.ip(ip),
            1 => ethernet.single_vlan(vlan(100)).ip(ip),
            _ => ethernet.double_vlan(vlan(100), vlan(200)).ip(ip),
        };
        let payload: Vec<u8> = (0..self.payload).map(|i| i as u8).collect();
        let mut frame = Vec::new();
        if self.udp {
            builder.udp(self.source_port, self.port).write(&mut frame, &payload)
        } else {
            let tcp = builder.tcp(self.source_port, self.port, 1000, 64000);
            let tcp = if self.syn { tcp.syn() } else { tcp.ack(5000) };
            tcp.write(&mut frame, &payload)
        }
        .expect("etherparse writes to a vector");
        frame
    }
}

fn ip_header(source: &str, destination: &str, spec: &Spec) -> etherparse::IpHeaders {
    use etherparse::{
        IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header,
    };
    match (address(source).to_ip(), address(destination).to_ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header =
                Ipv4Header::new(0, spec.ttl, IpNumber::TCP, source.octets(), destination.octets())
                    .expect("no payload yet");
            header.dscp = etherparse::IpDscp::try_new(spec.tos >> 2).expect("six bits");
            header.ecn = etherparse::IpEcn::try_new(spec.tos & 3).expect("two bits");
            header.dont_fragment = true;
            IpHeaders::Ipv4(header, Ipv4Extensions::default())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                traffic_class: spec.tos,
                flow_label: Ipv6FlowLabel::try_new(spec.flow_label & 0xf_ffff).expect("20 bits"),
                hop_limit: spec.ttl,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Ipv6Extensions::default())
        }
        pair => unreachable!("families differ: {pair:?}"),
    }
}
