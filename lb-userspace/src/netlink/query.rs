//! Questions to the kernel over netlink.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use rtnetlink::Handle;

/// Interface and address of a gateway or an on-link host.
pub(super) type NextHopKey = (u32, IpAddr);

/// What a route says about one destination.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) ifindex: u32,
    /// None: the destination is on the link.
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    /// The route's own limit, if it has one.
    pub(super) mtu: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) is_up: bool,
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
}

#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) mac: Option<[u8; 6]>,
    state: NeighbourState,
    is_managed: bool,
}

impl Neighbour {
    /// Whether the kernel keeps it resolved by itself, and has not just given it up.
    pub(super) fn is_kept(&self) -> bool {
        self.state == NeighbourState::Permanent || self.is_managed && self.state != NeighbourState::Failed
    }

    /// Whether it has a MAC address that nobody fixed and nobody is asking for at the moment.
    pub(super) fn may_be_asked(&self) -> bool {
        matches!(self.state, NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Delay)
    }
}

/// A netlink connection. Its errors are sentences for people.
#[derive(Debug)]
pub(super) struct Kernel {
    handle: Handle,
}

impl Kernel {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// The route that a packet to `destination` takes now.
    pub(super) async fn route(&self, destination: IpAddr) -> Result<Route, String> {
        let mut question = RouteMessage::default();
        question.header.address_family = family(destination);
        question.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
        question.attributes.push(RouteAttribute::Destination(destination.into()));
        // A route "get" and not a dump: the kernel's own lookup, policy rules and next-hop groups included.
        let answer = self.handle.route().get(question).execute().try_next().await;
        let answer = answer
            .map_err(|error| format!("no route to {destination}: {error}"))?
            .ok_or_else(|| format!("no route to {destination}"))?;
        if answer.header.kind != RouteType::Unicast {
            return Err(format!("the route to {destination} is {:?}", answer.header.kind).to_lowercase());
        }
        read_route(&answer).ok_or_else(|| format!("the route to {destination} names no interface"))
    }

    /// All interfaces by index.
    pub(super) async fn links(&self) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
        let mut answers = self.handle.link().get().execute();
        let mut links = BTreeMap::new();
        while let Some(answer) = answers.try_next().await? {
            links.insert(answer.header.index, read_link(&answer));
        }
        Ok(links)
    }

    /// All neighbour entries of both families.
    pub(super) async fn neighbours(&self) -> Result<BTreeMap<NextHopKey, Neighbour>, rtnetlink::Error> {
        let mut neighbours = BTreeMap::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut answers = self.handle.neighbours().get().set_address_family(family).execute();
            while let Some(answer) = answers.try_next().await? {
                if let Some(address) = destination(&answer) {
                    neighbours.insert((answer.header.ifindex, address), read_neighbour(&answer));
                }
            }
        }
        Ok(neighbours)
    }

    /// Asks a neighbour by unicast whether it still has this MAC address. Where it does not answer three times in
    /// three seconds, the kernel gives it up (NUD_FAILED). `mac` must be fresh: it replaces what the kernel has.
    pub(super) async fn ask_neighbour(
        &self,
        (ifindex, address): NextHopKey,
        mac: [u8; 6],
    ) -> Result<(), rtnetlink::Error> {
        let entry = self.handle.neighbours().add(ifindex, address).link_layer_address(&mac);
        entry.state(NeighbourState::Probe).replace().execute().await?;
        // A state without "managed" takes the flag away, and both together lose the state: always two messages.
        self.keep_neighbour((ifindex, address)).await
    }

    /// Asks the kernel to resolve a neighbour and to keep it resolved (NTF_EXT_MANAGED, Linux 5.16); an older
    /// kernel at least resolves it once (NTF_USE).
    pub(super) async fn keep_neighbour(
        &self,
        (ifindex, address): NextHopKey,
    ) -> Result<(), rtnetlink::Error> {
        // "managed" together with a state loses the flag, so the state must be none.
        let add = || self.handle.neighbours().add(ifindex, address).state(NeighbourState::None).replace();
        let mut managed = add();
        managed.message_mut().attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        if managed.execute().await.is_ok() {
            return Ok(());
        }
        add().flags(NeighbourFlags::Use).execute().await
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn read_route(answer: &RouteMessage) -> Option<Route> {
    let mut route = Route { ifindex: 0, gateway: None, source: None, mtu: None };
    for attribute in &answer.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Gateway(gateway) => route.gateway = ip_of_route(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::PrefSource(source) => route.source = ip_of_route(source),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (route.ifindex != 0).then_some(route)
}

fn read_link(answer: &LinkMessage) -> Link {
    let is_up = answer.header.flags.contains(LinkFlags::Up);
    let mut link = Link { name: answer.header.index.to_string(), is_up, mac: None, mtu: 0 };
    for attribute in &answer.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

fn ip_of_route(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn destination(entry: &NeighbourMessage) -> Option<IpAddr> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some((*v4).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    })
}

fn read_neighbour(entry: &NeighbourMessage) -> Neighbour {
    let mut neighbour = Neighbour { mac: None, state: entry.header.state, is_managed: false };
    for attribute in &entry.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => neighbour.mac = mac.as_slice().try_into().ok(),
            NeighbourAttribute::ExtFlags(flags) => {
                neighbour.is_managed = flags.contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    neighbour
}
