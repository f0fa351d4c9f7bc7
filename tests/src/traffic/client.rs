//! Clients: connections that are opened, used, held open, used again, and asked what became of them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::socket::Socket;
use crate::netns::Netns;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub const BOTH: [Self; 2] = [Self::Tcp, Self::Udp];

    /// IP protocol number.
    pub fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// As the configuration and the CLI write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub transport: Transport,
    pub connections: usize,
    /// Messages (and answers) per connection.
    pub messages: usize,
    /// Bytes of each message, its newline included. For UDP at most what fits one datagram with the name.
    pub bytes: usize,
    /// Between two messages of a connection.
    pub pause: Duration,
    /// For the handshake, and for each answer.
    pub timeout: Duration,
    /// Connections at work at the same time.
    pub parallel: usize,
    /// Connection `i` comes from this port plus `i`; `None` lets the kernel choose.
    pub first_port: Option<u16>,
}

impl Plan {
    /// `connections` TCP connections of three short messages each.
    pub fn tcp(connections: usize) -> Self {
        Self {
            transport: Transport::Tcp,
            connections,
            messages: 3,
            bytes: 32,
            pause: Duration::ZERO,
            timeout: Duration::from_secs(2),
            parallel: 16,
            first_port: None,
        }
    }

    /// `sockets` UDP sockets of three short messages each.
    pub fn udp(sockets: usize) -> Self {
        Self { transport: Transport::Udp, ..Self::tcp(sockets) }
    }
}

/// Where in its life a flow broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Handshake,
    /// The message with this number, from 1.
    Message(usize),
}

/// How a flow broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Break {
    /// A RST (TCP), or "port unreachable" (UDP).
    Reset,
    /// Nothing came in time.
    Timeout,
    /// The server closed a connection that the client had not.
    Closed,
    /// Another server answered than before.
    Moved {
        from: String,
        to: String,
    },
    /// The answer was not the message.
    Garbled,
    Other(ErrorKind),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    pub phase: Phase,
    pub how: Break,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            Break::Reset => write!(f, "reset")?,
            Break::Timeout => write!(f, "timed out")?,
            Break::Closed => write!(f, "closed by the server")?,
            Break::Moved { from, to } => write!(f, "answered by {to} after {from}")?,
            Break::Garbled => write!(f, "garbled")?,
            Break::Other(kind) => write!(f, "{kind}")?,
        }
        match self.phase {
            Phase::Handshake => write!(f, " in the handshake"),
            Phase::Message(number) => write!(f, " at message {number}"),
        }
    }
}

/// One connection (or UDP socket) from the client's side.
#[derive(Debug)]
pub struct Flow {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Who answered the first message.
    pub server: Option<String>,
    /// Messages answered so far.
    pub messages: usize,
    pub broken: Option<Broken>,
    socket: Option<Socket>,
}

impl Flow {
    pub fn lives(&self) -> bool {
        self.broken.is_none()
    }

    /// Sends one message of `bytes` bytes and waits for its answer. Does nothing for a broken flow.
    pub fn exchange(&mut self, bytes: usize) {
        let Some(socket) = self.socket.as_mut().filter(|_| self.broken.is_none()) else {
            return;
        };
        let message = message(self.messages, bytes);
        let judged = socket.exchange(&message).map_err(|error| broken_by(&error)).and_then(|answer| {
            let name = answer.strip_suffix(message.as_slice()).and_then(|name| name.strip_suffix(b" "));
            let name = name.map(|name| String::from_utf8_lossy(name).into_owned()).ok_or(Break::Garbled)?;
            match &self.server {
                Some(before) if *before != name => Err(Break::Moved { from: before.clone(), to: name }),
                _ => Ok(name),
            }
        });
        match judged {
            Ok(name) => {
                self.server = Some(name);
                self.messages += 1;
            }
            Err(how) => {
                self.broken = Some(Broken { phase: Phase::Message(self.messages + 1), how });
                self.socket = None;
            }
        }
    }

    fn open(plan: &Plan, number: usize, remote: SocketAddr) -> Result<Self> {
        let port = match plan.first_port {
            Some(first) => {
                u16::try_from(usize::from(first) + number).context("a source port beyond 65535")?
            }
            None => 0,
        };
        let any: IpAddr =
            if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let mut flow = Self {
            local: SocketAddr::new(any, port),
            remote,
            server: None,
            messages: 0,
            broken: None,
            socket: None,
        };
        match Socket::open_patiently(plan, flow.local, remote)? {
            Ok((socket, local)) => {
                flow.local = local;
                flow.socket = Some(socket);
            }
            Err(error) => {
                flow.broken = Some(Broken { phase: Phase::Handshake, how: broken_by(&error) });
            }
        }
        Ok(flow)
    }
}

/// Flows of one kind, with the questions one has about them.
#[derive(Debug, Default)]
pub struct Flows(pub Vec<Flow>);

impl Flows {
    /// Opens the flows of a plan inside a namespace, exchanges the plan's messages on each, and leaves those
    /// that live open.
    pub fn open(netns: &Netns, remote: SocketAddr, plan: &Plan) -> Result<Self> {
        let share = |worker: usize| -> Result<Vec<(usize, Flow)>> {
            let mine = (worker..plan.connections).step_by(plan.parallel.max(1));
            mine.map(|number| Ok((number, talk(plan, number, remote)?))).collect()
        };
        let mut flows = netns.run(|| {
            thread::scope(|scope| {
                let share = &share;
                let workers: Vec<_> =
                    (0..plan.parallel.max(1)).map(|worker| scope.spawn(move || share(worker))).collect();
                let parts: Result<Vec<_>> = workers
                    .into_iter()
                    .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect();
                parts.map(|parts| parts.into_iter().flatten().collect::<Vec<_>>())
            })
        })??;
        flows.sort_by_key(|(number, _)| *number);
        Ok(Self(flows.into_iter().map(|(_, flow)| flow).collect()))
    }

    /// Exchanges one more message on every flow that lives. Returns how many broke by it.
    pub fn exchange(&mut self, bytes: usize) -> usize {
        let before = self.lived();
        let chunk = self.0.len().div_ceil(16).max(1);
        thread::scope(|scope| {
            for flows in self.0.chunks_mut(chunk) {
                scope.spawn(move || flows.iter_mut().for_each(|flow| flow.exchange(bytes)));
            }
        });
        before - self.lived()
    }

    /// Exchanges messages on all flows again and again, in the background, until told to stop.
    pub fn keep_busy(self, bytes: usize, pause: Duration) -> KeptBusy {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let mut flows = self;
        let thread = thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                flows.exchange(bytes);
                thread::sleep(pause);
            }
            flows
        });
        KeptBusy { stop, thread }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn lived(&self) -> usize {
        self.0.iter().filter(|flow| flow.lives()).count()
    }

    pub fn broken(&self) -> impl Iterator<Item = (&Flow, &Broken)> {
        self.0.iter().filter_map(|flow| flow.broken.as_ref().map(|broken| (flow, broken)))
    }

    pub fn reset(&self) -> usize {
        self.broken().filter(|(_, broken)| broken.how == Break::Reset).count()
    }

    /// Flows per server that answered their first message.
    pub fn by_server(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for server in self.0.iter().filter_map(|flow| flow.server.clone()) {
            *counts.entry(server).or_default() += 1;
        }
        counts
    }
}

/// Flows at work in the background.
#[derive(Debug)]
pub struct KeptBusy {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Flows>,
}

impl KeptBusy {
    pub fn stop(self) -> Result<Flows> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| anyhow!("the thread that kept the flows busy panicked"))
    }
}

/// Opens the flows of a plan, exchanges its messages, closes them.
pub fn run_connections(netns: &Netns, remote: SocketAddr, plan: &Plan) -> Result<Flows> {
    let mut flows = Flows::open(netns, remote, plan)?;
    flows.0.iter_mut().for_each(|flow| flow.socket = None);
    Ok(flows)
}

fn talk(plan: &Plan, number: usize, remote: SocketAddr) -> Result<Flow> {
    let mut flow = Flow::open(plan, number, remote)?;
    for message in 0..plan.messages {
        if message > 0 && flow.lives() {
            thread::sleep(plan.pause);
        }
        flow.exchange(plan.bytes);
    }
    Ok(flow)
}

/// A line whose bytes depend on their place, so that an answer with parts missing or exchanged is seen.
fn message(number: usize, bytes: usize) -> Vec<u8> {
    let mut message = format!("message {number} ").into_bytes();
    // A prime period, so that no segment size repeats it.
    let filler = (message.len()..bytes.max(message.len() + 1)).map(|at| b'!' + (at % 89) as u8);
    message.extend(filler);
    if let Some(last) = message.last_mut() {
        *last = b'\n';
    }
    message
}

fn broken_by(error: &io::Error) -> Break {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused | ErrorKind::BrokenPipe => Break::Reset,
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Break::Timeout,
        ErrorKind::UnexpectedEof => Break::Closed,
        other => Break::Other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_and_ends_its_line() {
        for bytes in [0, 11, 32, 1_000_000] {
            let message = message(7, bytes);
            assert_eq!(message.iter().position(|&byte| byte == b'\n'), Some(message.len() - 1));
            assert!(message.len() == bytes || bytes < 12);
        }
    }

    #[test]
    fn a_break_reads_as_a_sentence() {
        let broken = Broken { phase: Phase::Message(1), how: Break::Reset };
        assert_eq!(broken.to_string(), "reset at message 1");
    }
}
