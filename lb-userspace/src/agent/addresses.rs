//! Addresses of this host: its own, and the VIPs that the agent puts on `lo`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::Context as _;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressProtocol};
use rtnetlink::{Handle, MulticastGroup};
use tracing::{info, warn};

/// The number by which the kernel remembers who set an address (IFA_PROTO, Linux 5.18): ours.
const OWN: u8 = 0xb0;

/// The loopback interface and its addresses.
pub(super) struct Loopback {
    handle: Handle,
    ifindex: u32,
}

impl Loopback {
    pub(super) fn connect() -> anyhow::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let ifindex = nix::net::if_::if_nametoindex("lo").context("cannot find the interface lo")?;
        Ok(Self { handle, ifindex })
    }

    /// All addresses of the host but `vips`: those at which tunnel packets may arrive.
    pub(super) async fn addresses_without(&self, vips: &[IpAddr]) -> anyhow::Result<BTreeSet<IpAddr>> {
        let mut messages = self.handle.address().get().execute();
        let mut addresses = BTreeSet::new();
        while let Some(message) =
            messages.try_next().await.context("cannot list the addresses of this host")?
        {
            addresses.extend(local_address(&message).filter(|address| !vips.contains(address)));
        }
        Ok(addresses)
    }

    /// Puts those VIPs on `lo`, as host addresses, that are not there.
    ///
    /// An address on `lo` is answered for by nobody on the link: the VIP is routed to the load balancers.
    /// (ARP apart: `arp_ignore` is the operator's, and a routed VIP is never asked for on a link.)
    pub(super) async fn add(&self, vips: &[IpAddr]) -> anyhow::Result<()> {
        let present = self.on_loopback().await?;
        for vip in vips.iter().filter(|vip| !present.contains(*vip)) {
            let prefix = if vip.is_ipv4() { 32 } else { 128 };
            let mut request = self.handle.address().add(self.ifindex, *vip, prefix);
            let message = request.message_mut();
            message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(OWN)));
            if vip.is_ipv6() {
                // Every backend has the address: duplicate address detection would take it away.
                message.header.flags |= AddressHeaderFlags::Nodad;
            }
            request.execute().await.with_context(|| format!("cannot put the VIP {vip} on lo"))?;
            info!(%vip, "put on lo");
        }
        Ok(())
    }

    /// Takes those of `vips` off that an agent put there, this one or one that died.
    pub(super) async fn remove_own(&self, vips: &[IpAddr]) {
        let mut messages = self.handle.address().get().set_link_index_filter(self.ifindex).execute();
        while let Ok(Some(message)) = messages.try_next().await {
            let Some(address) = local_address(&message).filter(|address| vips.contains(address)) else {
                continue;
            };
            if !message.attributes.contains(&AddressAttribute::Protocol(AddressProtocol::Other(OWN))) {
                continue;
            }
            match self.handle.address().del(message).execute().await {
                Ok(()) => info!(vip = %address, "taken off lo"),
                Err(error) => warn!(vip = %address, %error, "could not be taken off lo"),
            }
        }
    }

    async fn on_loopback(&self) -> anyhow::Result<BTreeSet<IpAddr>> {
        let mut messages = self.handle.address().get().set_link_index_filter(self.ifindex).execute();
        let mut addresses = BTreeSet::new();
        while let Some(message) = messages.try_next().await.context("cannot list the addresses of lo")? {
            addresses.extend(local_address(&message));
        }
        Ok(addresses)
    }
}

/// Notifications that some address came or went.
pub(super) struct Changes {
    events: BoxStream<'static, ()>,
}

impl Changes {
    pub(super) fn subscribe() -> std::io::Result<Self> {
        let groups = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        Ok(Self { events: messages.map(|_| ()).boxed() })
    }

    pub(super) async fn next(&mut self) -> anyhow::Result<()> {
        self.events.next().await.context("the kernel closed the netlink socket")?;
        Ok(())
    }
}

/// The host's end of an address entry: `Local` where the entry has a peer, else `Address`.
fn local_address(message: &AddressMessage) -> Option<IpAddr> {
    let find = |want_local: bool| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) if want_local => Some(*address),
            AddressAttribute::Address(address) if !want_local => Some(*address),
            _ => None,
        })
    };
    let is_ip = matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6);
    if is_ip { find(true).or_else(|| find(false)) } else { None }
}
