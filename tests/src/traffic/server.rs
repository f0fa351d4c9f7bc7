//! The echo server.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::netns::Netns;

/// How long a waiting server takes to see that it shall stop.
const TICK: Duration = Duration::from_millis(50);

/// A connection's thread needs little; the default of 2 MiB times a thousand connections is a lot.
const STACK: usize = 128 * 1024;

/// Serves TCP and UDP on some addresses of one host. Dropping it stops it and closes its connections.
#[derive(Debug)]
pub struct EchoServer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl EchoServer {
    /// Returns once the sockets are bound. The addresses need not be local yet.
    pub fn start(netns: &Netns, name: &str, addresses: &[SocketAddr]) -> Result<Self> {
        let shared = Arc::new(Shared { name: name.to_owned(), ..Shared::default() });
        let mut threads = Vec::new();
        for &address in addresses {
            let (tcp, udp) = (Arc::clone(&shared), Arc::clone(&shared));
            let listener =
                netns.thread("echo-tcp", || listen(address), move |listener| accept(&listener, &tcp))?;
            threads.push(listener);
            threads.push(netns.thread("echo-udp", || bind(address), move |socket| answer(&socket, &udp))?);
        }
        Ok(Self { shared, threads })
    }

    /// TCP connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A server thread that panicked has printed why; the clients' results show the rest.
            drop(thread.join());
        }
        for (_, stream) in self.shared.open().drain() {
            // It may have been closed by its client a moment ago.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    name: String,
    stop: AtomicBool,
    accepted: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}/tcp"))?;
    // accept(2) honours the receive timeout, so the thread wakes up to look at `stop`.
    let tick = TimeVal::milliseconds(i64::try_from(TICK.as_millis()).context("a tick that does not fit")?);
    setsockopt(&listener, ReceiveTimeout, &tick).context("cannot set a receive timeout")?;
    Ok(listener)
}

fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot bind {address}/udp"))?;
    socket.set_read_timeout(Some(TICK)).context("cannot set a receive timeout")?;
    Ok(socket)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.stopped() {
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        let id = shared.accepted.fetch_add(1, Ordering::Relaxed);
        let Ok(handle) = stream.try_clone() else { continue };
        shared.open().insert(id, handle);
        let own = Arc::clone(shared);
        let body = move || {
            // A connection that breaks is the client's result, not the server's.
            drop(echo(&stream, &own.name));
            own.open().remove(&id);
        };
        if thread::Builder::new().stack_size(STACK).spawn(body).is_err() {
            shared.open().remove(&id);
        }
    }
}

fn echo(stream: &TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    // An accepted socket inherits the listener's timeout; a client may be silent for as long as it likes.
    stream.set_read_timeout(None)?;
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.starts_with(b"GET ") {
            return answer_http(&mut lines, name);
        }
        let mut reply = Vec::with_capacity(name.len() + 1 + line.len());
        reply.extend_from_slice(name.as_bytes());
        reply.push(b' ');
        reply.extend_from_slice(&line);
        (&*stream).write_all(&reply)?;
    }
}

/// For people with curl: the server's name as a page, then the end of the connection.
fn answer_http(lines: &mut BufReader<&TcpStream>, name: &str) -> std::io::Result<()> {
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let length = name.len() + 1;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let mut stream: &TcpStream = lines.get_ref();
    stream.write_all(format!("{head}{name}\n").as_bytes())
}

fn answer(socket: &UdpSocket, shared: &Shared) {
    let mut datagram = vec![0; 65536];
    while !shared.stopped() {
        match socket.recv_from(&mut datagram) {
            Ok((length, from)) => {
                let mut reply = format!("{} ", shared.name).into_bytes();
                reply.extend_from_slice(&datagram[..length]);
                // An answer that cannot be sent is one that the client misses, and reports.
                drop(socket.send_to(&reply, from));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            // For example an ICMP error that came back for an earlier answer.
            Err(_) => {}
        }
    }
}
