//! Packet capture on the interfaces of a namespace, in this process: it is listening when `start` returns.
//!
//! Capture on the router. What an XDP program drops or transmits on a load balancer never becomes visible to a
//! packet socket there.

mod seen;

pub use seen::{Ecn, FiveTuple, Flags, Format, Seen, Tunnel};

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::netns::Netns;
use crate::plan::{VIP4, VIP6};

/// Enough for all headers of a tunnelled packet; payload is only counted.
const SNAP: usize = 256;

/// The kernel counts a whole buffer page per small packet; a slow reader must not lose any.
const BUFFER: usize = 64 << 20;

/// PACKET_OUTGOING of packet(7): the interface sent the frame rather than received it.
const OUTGOING: u8 = 4;

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Packets>>,
}

impl Capture {
    /// Starts to capture all IP packets on these interfaces of a namespace.
    pub fn start(netns: &Netns, interfaces: &[&str]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let set_up = || {
            let names = interfaces.iter().map(|name| index(name)).collect::<Result<BTreeMap<_, _>>>()?;
            Ok((open()?, names))
        };
        let thread =
            netns.thread("capture", set_up, move |(socket, names)| read_all(&socket, &names, &told))?;
        Ok(Self { stop, thread })
    }

    /// Stops, after everything that has arrived is read. Fails if the kernel had to drop packets: an
    /// incomplete capture proves nothing.
    pub fn stop(self) -> Result<Packets> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| anyhow!("the capture thread panicked"))?
    }
}

/// Captured packets, in order of time.
#[derive(Clone, Debug, Default)]
pub struct Packets(pub Vec<Seen>);

impl Packets {
    /// Packets from clients to a VIP that left the router by this interface.
    pub fn to_vip<'a>(&'a self, interface: &'a str) -> impl Iterator<Item = &'a Seen> {
        self.0.iter().filter(move |seen| seen.outgoing && &*seen.interface == interface && seen.is_to_vip())
    }

    /// The flows that had packets leave the router by this interface.
    pub fn flows(&self, interface: &str) -> BTreeSet<FiveTuple> {
        self.to_vip(interface).map(Seen::five_tuple).collect()
    }

    /// The flows that had packets leave by both interfaces: those that a router split.
    pub fn crossing(&self, one: &str, other: &str) -> BTreeSet<FiveTuple> {
        self.flows(one).intersection(&self.flows(other)).copied().collect()
    }

    /// All packets of a flow on one interface, both directions.
    pub fn of_flow<'a>(&'a self, flow: &'a FiveTuple, interface: &'a str) -> impl Iterator<Item = &'a Seen> {
        self.0.iter().filter(move |seen| {
            let tuple = seen.five_tuple();
            &*seen.interface == interface && (tuple == *flow || tuple == flow.reversed())
        })
    }
}

impl Seen {
    /// Not tunnelled, and addressed to one of the lab's VIPs.
    pub fn is_to_vip(&self) -> bool {
        self.tunnel.is_none() && (self.dst == VIP4 || self.dst == VIP6)
    }
}

fn index(name: &str) -> Result<(usize, Arc<str>)> {
    let index = if_nametoindex(name).with_context(|| format!("no interface {name} to capture on"))?;
    Ok((usize::try_from(index).context("an interface index that does not fit")?, Arc::from(name)))
}

fn open() -> Result<OwnedFd> {
    let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .context("cannot open a packet socket (are you root?)")?;
    setsockopt(&fd, sockopt::RcvBufForce, &BUFFER).context("cannot enlarge the capture's buffer")?;
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true).context("cannot ask for time stamps")?;
    setsockopt(&fd, sockopt::RxqOvfl, &1).context("cannot ask for the number of lost packets")?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))
        .context("cannot set a receive timeout")?;
    Ok(fd)
}

fn read_all(socket: &OwnedFd, names: &BTreeMap<usize, Arc<str>>, stop: &AtomicBool) -> Result<Packets> {
    let mut packets = Packets::default();
    let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec, u32);
    let mut lost = 0;
    loop {
        let mut frame = [0; SNAP];
        let mut parts = [IoSliceMut::new(&mut frame)];
        let received = match recvmsg::<LinkAddr>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        ) {
            Ok(received) => received,
            Err(Errno::EAGAIN) if stop.load(Ordering::Relaxed) => break,
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => continue,
            Err(error) => return Err(error).context("cannot read from the packet socket"),
        };
        let mut time = Duration::ZERO;
        for message in received.cmsgs().context("cannot read a packet's time stamp")? {
            match message {
                ControlMessageOwned::ScmTimestampns(stamp) => time = stamp.into(),
                ControlMessageOwned::RxqOvfl(count) => lost = count,
                _ => {}
            }
        }
        let (length, from) = (received.bytes, received.address);
        let Some(from) = from else { continue };
        let Some(name) = names.get(&from.ifindex()) else {
            continue;
        };
        let outgoing = from.pkttype() == OUTGOING;
        packets.0.extend(Seen::parse(&frame[..length], time, name, outgoing));
    }
    if lost > 0 {
        bail!("the capture lost {lost} packets; it proves nothing");
    }
    Ok(packets)
}
