//! The way to each backend: route, neighbour and interface, asked of the kernel and followed as they change.

mod query;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use rtnetlink::MulticastGroup;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::debug;

use self::query::{Kernel, Link, Neighbour, NextHopKey};
use crate::engine::Command;
use crate::engine::paths::{Path, PathState, Paths};

/// A burst of notifications (a routing daemon at work) is answered once, this long after its first message.
const SETTLE: Duration = Duration::from_millis(20);
/// Everything is asked anew this often, for whatever the kernel does not announce.
const REFRESH: Duration = Duration::from_secs(5);
/// Gateways are asked this often whether they are still the same: one that is replaced without a word would else be
/// noticed after 40 to 50 s, when the kernel asks by itself.
const ASK: Duration = Duration::from_secs(3);
/// While a way is not known, it is asked this often.
const RETRY: Duration = Duration::from_millis(200);

/// Tells the engine the way to each of `addresses`, at once and after every change. Ends when the engine is gone.
pub async fn watch(
    mut addresses: watch::Receiver<BTreeSet<IpAddr>>,
    engine: mpsc::Sender<Command>,
) -> anyhow::Result<()> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let (connection, _, mut changes) = rtnetlink::new_multicast_connection(&groups)
        .context("cannot follow routes and neighbours by netlink")?;
    tokio::spawn(connection);
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot ask routes by netlink")?;
    tokio::spawn(connection);
    let mut resolver = Resolver { kernel: Kernel::new(handle), last_macs: BTreeMap::new() };
    let mut told: Option<Paths> = None;
    let mut ask = tokio::time::interval(ASK);
    ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let wanted = addresses.borrow_and_update().clone();
        let paths = resolver.resolve(&wanted).await;
        let wait = if paths.values().all(PathState::is_up) { REFRESH } else { RETRY };
        if told.as_ref() != Some(&paths) {
            if engine.send(Command::NextHopsChanged(paths.clone())).await.is_err() {
                return Ok(());
            }
            told = Some(paths);
        }
        tokio::select! {
            changed = addresses.changed() => if changed.is_err() { return Ok(()) },
            message = changes.next() => {
                message.context("the kernel closed the netlink socket")?;
                tokio::time::sleep(SETTLE).await;
                while let Ok(message) = changes.try_recv() {
                    drop(message);
                }
            }
            () = tokio::time::sleep(wait) => {}
            _ = ask.tick() => resolver.ask_gateways().await,
            () = engine.closed() => return Ok(()),
        }
    }
}

struct Resolver {
    kernel: Kernel,
    /// The last MAC address of each gateway. It stays in use until another is known: three lost answers to ARP must
    /// not be a hole in the traffic.
    last_macs: BTreeMap<NextHopKey, [u8; 6]>,
}

/// What the kernel had when all ways were asked.
struct View {
    links: BTreeMap<u32, Link>,
    neighbours: BTreeMap<NextHopKey, Neighbour>,
}

impl Resolver {
    async fn resolve(&mut self, addresses: &BTreeSet<IpAddr>) -> Paths {
        let view = match self.view().await {
            Ok(view) => view,
            Err(error) => {
                let reason = format!("netlink does not answer: {error}");
                return addresses
                    .iter()
                    .map(|at| (*at, PathState::Down { reason: reason.clone() }))
                    .collect();
            }
        };
        let mut paths = Paths::new();
        let mut used = BTreeSet::new();
        for address in addresses {
            let state = match self.path(*address, &view, &mut used).await {
                Ok(path) => PathState::Up(path),
                Err(reason) => PathState::Down { reason },
            };
            paths.insert(*address, state);
        }
        // A gateway that no route uses any more may have another MAC when one does again.
        self.last_macs.retain(|key, _| used.contains(key));
        paths
    }

    /// Asks every gateway in use whether it still has the MAC address that frames are sent to.
    async fn ask_gateways(&self) {
        // Where netlink does not answer, `resolve` says so.
        let Ok(neighbours) = self.kernel.neighbours().await else { return };
        for key in self.last_macs.keys() {
            let neighbour = neighbours.get(key).filter(|neighbour| neighbour.may_be_asked());
            if let Some(mac) = neighbour.and_then(|neighbour| neighbour.mac)
                && let Err(error) = self.kernel.ask_neighbour(*key, mac).await
            {
                debug!(next_hop = %key.1, %error, "the kernel does not ask the neighbour");
            }
        }
    }

    async fn view(&self) -> Result<View, rtnetlink::Error> {
        Ok(View { links: self.kernel.links().await?, neighbours: self.kernel.neighbours().await? })
    }

    /// The way to one address, or why there is none, for people. Its next hop goes into `used`.
    async fn path(
        &mut self,
        address: IpAddr,
        view: &View,
        used: &mut BTreeSet<NextHopKey>,
    ) -> Result<Path, String> {
        let route = self.kernel.route(address).await?;
        let link =
            view.links.get(&route.ifindex).ok_or_else(|| format!("interface {} is gone", route.ifindex))?;
        if !link.is_up {
            return Err(format!("interface {} is down", link.name));
        }
        let source_mac =
            link.mac.ok_or_else(|| format!("interface {} has no Ethernet address", link.name))?;
        let next_hop = route.gateway.unwrap_or(address);
        let key = (route.ifindex, next_hop);
        let mac = self.mac(key, view, used.insert(key)).await;
        let mac = mac.ok_or_else(|| format!("neighbour {next_hop} on {} does not answer", link.name))?;
        let source =
            route.source.ok_or_else(|| format!("the route on {} has no source address", link.name))?;
        Ok(Path {
            ifindex: route.ifindex,
            interface: link.name.clone(),
            next_hop,
            mac,
            source_mac,
            mtu: route.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
            source,
        })
    }

    /// The MAC address of a gateway. Where `is_first`, asks the kernel to keep it fresh: traffic that only XDP
    /// sends would not.
    async fn mac(&mut self, key: NextHopKey, view: &View, is_first: bool) -> Option<[u8; 6]> {
        let neighbour = view.neighbours.get(&key);
        if is_first
            && !neighbour.is_some_and(Neighbour::is_kept)
            && let Err(error) = self.kernel.keep_neighbour(key).await
        {
            debug!(next_hop = %key.1, %error, "the kernel does not keep the neighbour fresh");
        }
        if let Some(mac) = neighbour.and_then(|neighbour| neighbour.mac) {
            self.last_macs.insert(key, mac);
        }
        self.last_macs.get(&key).copied()
    }
}
