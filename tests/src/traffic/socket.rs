//! A client's socket: bound to the wanted port, with a limit on every wait.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::{Plan, Transport};

#[derive(Debug)]
pub(super) enum Socket {
    Tcp(BufReader<TcpStream>),
    Udp(UdpSocket),
}

impl Socket {
    /// A source port in TIME-WAIT may be used again after a second (`tcp_tw_reuse`): waits for that.
    pub(super) fn open_patiently(
        plan: &Plan,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<io::Result<(Self, SocketAddr)>> {
        let deadline = Instant::now() + Duration::from_secs(3);
        loop {
            match Self::open(plan.transport, local, remote, plan.timeout)? {
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(50));
                }
                done => return Ok(done),
            }
        }
    }

    /// The outer error is the lab's (no free port, no descriptor), the inner one the network's.
    fn open(
        transport: Transport,
        local: SocketAddr,
        remote: SocketAddr,
        timeout: Duration,
    ) -> Result<io::Result<(Self, SocketAddr)>> {
        let kind = if transport == Transport::Tcp { SockType::Stream } else { SockType::Datagram };
        let family = if remote.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).context("cannot open a socket")?;
        if transport == Transport::Tcp {
            // A port may still be in TIME-WAIT from an earlier run. (On UDP it would let two sockets share one.)
            setsockopt(&fd, sockopt::ReuseAddr, &true).context("cannot set SO_REUSEADDR")?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(local))
            .with_context(|| format!("cannot bind to {local}"))?;
        // connect(2) honours the send timeout: it then ends with EINPROGRESS.
        let limit =
            TimeVal::milliseconds(i64::try_from(timeout.as_millis()).context("a timeout that does not fit")?);
        setsockopt(&fd, sockopt::SendTimeout, &limit).context("cannot set a send timeout")?;
        setsockopt(&fd, sockopt::ReceiveTimeout, &limit).context("cannot set a receive timeout")?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)) {
            Ok(()) => {}
            Err(Errno::EINPROGRESS) => return Ok(Err(ErrorKind::TimedOut.into())),
            Err(error) => return Ok(Err(error.into())),
        }
        Self::wrap(transport, fd).context("a connected socket without its address").map(Ok)
    }

    fn wrap(transport: Transport, fd: OwnedFd) -> io::Result<(Self, SocketAddr)> {
        match transport {
            Transport::Tcp => {
                let stream = TcpStream::from(fd);
                stream.set_nodelay(true)?;
                let local = stream.local_addr()?;
                Ok((Self::Tcp(BufReader::new(stream)), local))
            }
            Transport::Udp => {
                let socket = UdpSocket::from(fd);
                let local = socket.local_addr()?;
                Ok((Self::Udp(socket), local))
            }
        }
    }

    pub(super) fn exchange(&mut self, message: &[u8]) -> io::Result<Vec<u8>> {
        let mut answer = Vec::new();
        match self {
            Self::Tcp(stream) => {
                stream.get_mut().write_all(message)?;
                if stream.read_until(b'\n', &mut answer)? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            Self::Udp(socket) => {
                socket.send(message)?;
                answer.resize(65536, 0);
                let length = socket.recv(&mut answer)?;
                answer.truncate(length);
            }
        }
        Ok(answer)
    }
}
