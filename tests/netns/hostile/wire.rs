//! Frames as they are, onto one interface.

use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context, Result, ensure};
use lb_tests::netns::Netns;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, bind, send, socket};

/// A packet socket on an interface, and the Ethernet addresses of the link's two ends.
#[derive(Debug)]
pub(super) struct Wire {
    socket: OwnedFd,
    near: [u8; 6],
    far: [u8; 6],
}

impl Wire {
    /// `interface` is in `netns`; the far end is the `eth0` of the other namespace.
    pub(super) fn open(netns: &Netns, interface: &str, far: &Netns) -> Result<Self> {
        let near = netns.run(|| link_address(interface))??;
        let far = far.run(|| link_address("eth0"))??;
        let socket = netns.run(|| {
            // Protocol 0: this socket sends and never receives.
            let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
                .context("cannot open a packet socket (are you root?)")?;
            bind(fd.as_raw_fd(), &near).with_context(|| format!("cannot bind to {interface}"))?;
            Ok::<_, anyhow::Error>(fd)
        })??;
        let mac = |address: LinkAddr| address.addr().context("an interface without an Ethernet address");
        Ok(Self { socket, near: mac(near)?, far: mac(far)? })
    }

    /// Destination and source, as a frame begins.
    pub(super) fn addresses(&self) -> [u8; 12] {
        let mut both = [0; 12];
        both[..6].copy_from_slice(&self.far);
        both[6..].copy_from_slice(&self.near);
        both
    }

    pub(super) fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty())
            .with_context(|| format!("cannot send a frame of {} bytes", frame.len()))?;
        ensure!(sent == frame.len(), "{sent} of {} bytes were sent", frame.len());
        Ok(())
    }
}

fn link_address(interface: &str) -> Result<LinkAddr> {
    let mut all = getifaddrs().context("cannot list the interfaces")?;
    let address = all.find_map(|one| {
        let address = one.address.filter(|_| one.interface_name == interface)?;
        address.as_link_addr().copied()
    });
    address.with_context(|| format!("no interface {interface}"))
}
