//! What the agent's verdict looks up: maps, and the sockets of this host.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_sock_tuple, tcphdr},
    btf_maps::lpm_trie::Key,
    helpers::{
        bpf_probe_read_kernel, bpf_sk_release, bpf_skc_lookup_tcp, bpf_skc_to_tcp_request_sock,
        bpf_skc_to_tcp_timewait_sock, bpf_tcp_check_syncookie,
    },
    programs::TcContext,
};
use lb_common::{
    abi::AgentConfig,
    address::Address,
    packet::Packet as _,
    parse::Flow,
    tables::{AgentTables, Holder, Sockets},
    wire::{ipv4, ipv6, l4},
};

use crate::{
    maps::{AGENT_CONFIG, LOCAL_ADDRESSES, TUNNEL_SOURCES, VIP_ADDRESSES},
    packet::TcPacket,
};

/// The maps, and the sockets of the network namespace that the packet arrived in.
pub(crate) struct KernelTables<'a> {
    ctx: &'a TcContext,
}

impl<'a> KernelTables<'a> {
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }
}

#[inline(always)]
fn config() -> AgentConfig {
    const UNSET: AgentConfig = AgentConfig { gue_port: [0; 2], zero: [0; 2], snt_isn: 0, rcv_nxt: 0 };
    AGENT_CONFIG.get(0).copied().unwrap_or(UNSET)
}

impl AgentTables for KernelTables<'_> {
    #[inline(always)]
    fn is_local(&self, address: &Address) -> bool {
        is_local(address)
    }

    #[inline(always)]
    fn is_vip_address(&self, address: &Address) -> bool {
        is_vip_address(address)
    }

    #[inline(always)]
    fn is_tunnel_source(&self, address: &Address) -> bool {
        is_tunnel_source(address)
    }

    #[inline(always)]
    fn gue_port(&self) -> [u8; 2] {
        config().gue_port
    }
}

// Functions of their own in the kernel too: inlined, each use of a key would take its own place on a stack of 512 bytes.

#[inline(never)]
fn is_local(address: &Address) -> bool {
    LOCAL_ADDRESSES.get_ptr(address).is_some()
}

#[inline(never)]
fn is_vip_address(address: &Address) -> bool {
    VIP_ADDRESSES.get_ptr(address).is_some()
}

#[inline(never)]
fn is_tunnel_source(address: &Address) -> bool {
    TUNNEL_SOURCES.get(&Key::new(128, *address)).is_some()
}

/// Socket states of the kernel's include/net/tcp_states.h.
mod state {
    pub(super) const TIME_WAIT: u32 = 6;
    pub(super) const LISTEN: u32 = 10;
    pub(super) const NEW_SYN_RECV: u32 = 12;
}

/// bpf_skc_lookup_tcp: the network namespace of the packet's device.
const CURRENT_NETNS: u64 = u64::MAX;

impl Sockets for KernelTables<'_> {
    #[inline(always)]
    fn holder(&self, flow: &Flow, l3: usize) -> Holder {
        let key = &flow.key;
        let at = Place { ip: l3 as u16, tcp: flow.segment.offset, is_v4: u16::from(flow.is_v4) };
        if flow.is_v4 {
            let tuple = V4Tuple {
                source: key.source.v4_bytes(),
                destination: key.destination.v4_bytes(),
                source_port: key.source_port,
                destination_port: key.destination_port,
            };
            Finding(find(self.ctx.skb.skb, (&raw const tuple).cast_mut().cast(), at)).holder()
        } else {
            let tuple = V6Tuple {
                source: *key.source.bytes(),
                destination: *key.destination.bytes(),
                source_port: key.source_port,
                destination_port: key.destination_port,
            };
            Finding(find(self.ctx.skb.skb, (&raw const tuple).cast_mut().cast(), at)).holder()
        }
    }
}

/// Where the inner headers are and of which family, in one register: a function in the kernel has five.
#[derive(Clone, Copy)]
struct Place {
    ip: u16,
    tcp: u16,
    is_v4: u16,
}

/// A [`Holder`] as one number, kind above and sequence number below: the verifier refuses a copy of the bytes that a variant
/// of the enum leaves undefined, and a number has none.
struct Finding(u64);

impl Finding {
    const NOBODY: u64 = 0;
    const CONNECTION: u64 = 1;
    const TIME_WAIT: u64 = 2;
    const TIME_WAIT_AT: u64 = 3;
    const HALF_OPEN: u64 = 4;
    const HALF_OPEN_AT: u64 = 5;
    const LISTENER: u64 = 6;
    const COOKIE: u64 = 7;

    /// One kind if the sequence number is known, another if not.
    #[inline(always)]
    fn with_number(known: u64, unknown: u64, number: Option<u32>) -> u64 {
        match number {
            Some(number) => known << 32 | u64::from(number),
            None => unknown << 32,
        }
    }

    #[inline(always)]
    fn holder(&self) -> Holder {
        let number = self.0 as u32;
        match self.0 >> 32 {
            Self::CONNECTION => Holder::Connection,
            Self::TIME_WAIT => Holder::TimeWait { expected: None },
            Self::TIME_WAIT_AT => Holder::TimeWait { expected: Some(number) },
            Self::HALF_OPEN => Holder::HalfOpen { sent: None },
            Self::HALF_OPEN_AT => Holder::HalfOpen { sent: Some(number) },
            Self::LISTENER => Holder::Listener { is_cookie: false },
            Self::COOKIE => Holder::Listener { is_cookie: true },
            _ => Holder::Nobody,
        }
    }
}

/// A function of its own in the kernel too: it needs a stack of its own. Gives what a [`Finding`] holds.
#[inline(never)]
fn find(skb: *mut __sk_buff, tuple: *mut bpf_sock_tuple, at: Place) -> u64 {
    let size = if at.is_v4 != 0 { size_of::<V4Tuple>() } else { size_of::<V6Tuple>() };
    // SAFETY: `tuple` points to `size` initialised bytes in the layout that the helper knows by this size.
    let socket = unsafe { bpf_skc_lookup_tcp(skb.cast(), tuple, size as u32, CURRENT_NETNS, 0) };
    if socket.is_null() {
        return Finding::NOBODY << 32;
    }
    // SAFETY: not null, and held by the reference that the lookup took.
    let state = unsafe { (*socket).state };
    let finding = match state {
        state::TIME_WAIT => Finding::with_number(Finding::TIME_WAIT_AT, Finding::TIME_WAIT, expected(socket)),
        state::NEW_SYN_RECV => Finding::with_number(Finding::HALF_OPEN_AT, Finding::HALF_OPEN, sent(socket)),
        state::LISTEN if is_cookie(skb, socket, at) => Finding::COOKIE << 32,
        state::LISTEN => Finding::LISTENER << 32,
        _ => Finding::CONNECTION << 32,
    };
    // SAFETY: the reference taken by the lookup is given back once, here, on every path.
    unsafe { bpf_sk_release(socket.cast()) };
    finding
}

/// The sequence number of the SYN-ACK that a request socket stands for.
#[inline(always)]
fn sent(socket: *mut bpf_sock) -> Option<u32> {
    // SAFETY: the socket is held; the helper checks its type and gives null otherwise.
    let request = unsafe { bpf_skc_to_tcp_request_sock(socket.cast()) };
    read_field(request.cast(), config().snt_isn)
}

/// The next sequence number that a time-wait socket expected.
#[inline(always)]
fn expected(socket: *mut bpf_sock) -> Option<u32> {
    // SAFETY: as in `sent`.
    let time_wait = unsafe { bpf_skc_to_tcp_timewait_sock(socket.cast()) };
    read_field(time_wait.cast(), config().rcv_nxt)
}

#[inline(always)]
fn is_cookie(skb: *mut __sk_buff, socket: *mut bpf_sock, at: Place) -> bool {
    let ctx = TcContext::new(skb);
    let packet = TcPacket::pulled(&ctx);
    let l3 = usize::from(at.ip);
    let Some(mut tcp) = packet.bytes::<{ l4::TCP_LEN }>(usize::from(at.tcp)).copied() else { return false };
    if at.is_v4 != 0 {
        let Some(mut ip) = packet.bytes::<{ ipv4::LEN }>(l3).copied() else { return false };
        check_cookie(socket, (&raw mut ip).cast(), ipv4::LEN, &mut tcp)
    } else {
        let Some(mut ip) = packet.bytes::<{ ipv6::LEN }>(l3).copied() else { return false };
        check_cookie(socket, (&raw mut ip).cast(), ipv6::LEN, &mut tcp)
    }
}

#[inline(always)]
fn check_cookie(socket: *mut bpf_sock, ip: *mut c_void, ip_len: usize, tcp: &mut [u8; l4::TCP_LEN]) -> bool {
    let tcp = tcp.as_mut_ptr().cast::<tcphdr>();
    // SAFETY: both headers are whole copies on the stack, and the socket is held.
    unsafe { bpf_tcp_check_syncookie(socket.cast(), ip, ip_len as u32, tcp, l4::TCP_LEN as u32) == 0 }
}

/// Four bytes at `offset` of a kernel object; `None` where the object or the offset is not known.
#[inline(always)]
fn read_field(object: *const c_void, offset: u32) -> Option<u32> {
    if object.is_null() || offset == 0 {
        return None;
    }
    let address = (object as u64).wrapping_add(u64::from(offset)) as *const u32;
    // SAFETY: the helper copies or fails, whatever the address is.
    unsafe { bpf_probe_read_kernel(address).ok() }
}

/// The kernel's `struct bpf_sock_tuple`, its IPv4 arm.
#[repr(C)]
struct V4Tuple {
    source: [u8; 4],
    destination: [u8; 4],
    source_port: [u8; 2],
    destination_port: [u8; 2],
}

/// The kernel's `struct bpf_sock_tuple`, its IPv6 arm.
#[repr(C)]
struct V6Tuple {
    source: [u8; 16],
    destination: [u8; 16],
    source_port: [u8; 2],
    destination_port: [u8; 2],
}
