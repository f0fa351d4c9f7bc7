//! The lab's topology: client - router - load balancers and backends, each host one veth away from the router.
//!
//! ```text
//!                       router
//!   client eth0 ----- c0      l1 ----- eth0 lb1
//!                             l2 ----- eth0 lb2
//!                             b1 ----- eth0 b1
//!                             b2 ----- eth0 b2  ...
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use aya::Ebpf;
use aya::programs::{Xdp, XdpMode};
use lb_userspace::dataplane::object::PASS;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use crate::lab::Lab;
use crate::netns::Netns;
use crate::plan::{CLIENT_MTU, Link, TUNNEL_MTU, VIP4, VIP6};
use crate::router;

/// How many of each.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub load_balancers: u8,
    pub backends: u8,
}

impl Default for Size {
    fn default() -> Self {
        Self { load_balancers: 2, backends: 3 }
    }
}

/// The whole lab. Dropping it removes it.
#[derive(Debug)]
pub struct Topology {
    pub client: Host,
    pub router: Netns,
    pub load_balancers: Vec<Host>,
    pub backends: Vec<Host>,
    /// Holds the programs on the router's ends of the load balancers' links.
    _pass: PassPrograms,
    /// Last: the namespaces go after everything that holds something in them.
    pub lab: Lab,
}

impl Topology {
    /// Two load balancers and three backends, under a prefix of this process.
    pub fn new() -> Result<Self> {
        Self::build(Lab::new()?, Size::default())
    }

    pub fn with_size(size: Size) -> Result<Self> {
        Self::build(Lab::new()?, size)
    }

    pub fn build(lab: Lab, size: Size) -> Result<Self> {
        let places = places(size);
        let names: Vec<String> = std::iter::once("router".to_owned())
            .chain(places.iter().map(|place| place.name.clone()))
            .collect();
        let mut namespaces = lab.create(&names)?.into_iter();
        let router = namespaces.next().context("the lab has no router")?;
        let hosts: Vec<Host> =
            places.into_iter().zip(namespaces).map(|(place, netns)| Host { place, netns }).collect();

        set_sysctls(&router, &hosts)?;
        make_links(&router, &hosts)?;
        configure_hosts(&hosts)?;
        let pass = PassPrograms::attach(&router, &hosts)?;

        let mut hosts = hosts.into_iter();
        let client = hosts.next().context("the lab has no client")?;
        let load_balancers: Vec<Host> = hosts.by_ref().take(size.load_balancers.into()).collect();
        Ok(Self { client, router, load_balancers, backends: hosts.collect(), _pass: pass, lab })
    }

    /// The prefixes of all load balancers and backends, for `tunnel_sources`. The client's link is not among
    /// them: a client inside `tunnel_sources` is taken for one of our own packets coming back.
    pub fn tunnel_sources(&self) -> Vec<String> {
        self.load_balancers.iter().chain(&self.backends).flat_map(|host| host.place.link.prefixes()).collect()
    }
}

/// A host of the lab: its namespace, its place. Its one interface is `eth0`.
#[derive(Clone, Debug)]
pub struct Host {
    place: Place,
    pub netns: Netns,
}

impl Host {
    pub fn name(&self) -> &str {
        &self.place.name
    }

    pub fn v4(&self) -> Ipv4Addr {
        self.place.link.host4()
    }

    pub fn v6(&self) -> Ipv6Addr {
        self.place.link.host6()
    }

    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }

    /// The name of the router's end of this host's link.
    pub fn router_interface(&self) -> &str {
        &self.place.router_interface
    }

    /// Puts the VIPs on `lo`, as an anycast server has them: no ARP, no duplicate address detection.
    pub fn hold_vips(&self) -> Result<()> {
        self.netns.ip(&[format!("addr add {VIP4}/32 dev lo"), format!("addr add {VIP6}/128 dev lo nodad")])
    }

    /// Are both VIPs addresses of this host?
    pub fn holds_vips(&self) -> Result<bool> {
        let own = self.netns.run(|| {
            getifaddrs().map(|all| all.filter_map(|one| ip_of(&one.address?)).collect::<Vec<IpAddr>>())
        })?;
        let own = own.with_context(|| format!("cannot list the addresses of {}", self.name()))?;
        Ok([IpAddr::from(VIP4), IpAddr::from(VIP6)].iter().all(|vip| own.contains(vip)))
    }

    /// Takes the VIPs off `lo` again.
    pub fn release_vips(&self) -> Result<()> {
        self.netns.ip(&[format!("addr del {VIP4}/32 dev lo"), format!("addr del {VIP6}/128 dev lo")])
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

#[derive(Clone, Debug)]
struct Place {
    name: String,
    link: Link,
    router_interface: String,
    mtu: u16,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    LoadBalancer,
    Backend,
}

/// Client, load balancers, backends, in this order.
fn places(size: Size) -> Vec<Place> {
    let client = Place {
        name: "client".to_owned(),
        link: Link::CLIENT,
        router_interface: "c0".to_owned(),
        mtu: CLIENT_MTU,
        role: Role::Client,
    };
    let load_balancer = |number| Place {
        name: format!("lb{number}"),
        link: Link::load_balancer(number),
        router_interface: format!("l{number}"),
        mtu: TUNNEL_MTU,
        role: Role::LoadBalancer,
    };
    let backend = |number| Place {
        name: format!("b{number}"),
        link: Link::backend(number),
        router_interface: format!("b{number}"),
        mtu: TUNNEL_MTU,
        role: Role::Backend,
    };
    let load_balancers = (1..=size.load_balancers).map(load_balancer);
    std::iter::once(client).chain(load_balancers).chain((1..=size.backends).map(backend)).collect()
}

/// For every namespace.
const EVERYWHERE: [(&str, &str); 4] = [
    // Duplicate address detection holds a new address back for a second.
    ("net/ipv6/conf/default/accept_dad", "0"),
    // ICMP errors are part of what is tested; rate limits would drop some of them.
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    // The machine's default may be one with its own idea of ECN (bbr); only reno may be set in every namespace.
    ("net/ipv4/tcp_congestion_control", "reno"),
];

const ROUTER: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];

const CLIENT: [(&str, &str); 2] = [
    // RFC 3168 section 6.1.1: the client asks for ECN in its SYN; data then carries ECT(0).
    ("net/ipv4/tcp_ecn", "1"),
    // A run may use the source ports of the run before it, one second later instead of sixty.
    ("net/ipv4/tcp_tw_reuse", "1"),
];

const BACKEND: [(&str, &str); 2] = [
    // A service may bind to the VIP before the agent has put it on `lo`.
    ("net/ipv4/ip_nonlocal_bind", "1"),
    ("net/ipv6/ip_nonlocal_bind", "1"),
];

/// Before the first interface exists: interfaces inherit these settings when they are made.
fn set_sysctls(router: &Netns, hosts: &[Host]) -> Result<()> {
    router.sysctl(&EVERYWHERE)?;
    router.sysctl(&ROUTER)?;
    for Host { place, netns } in hosts {
        netns.sysctl(&EVERYWHERE)?;
        match place.role {
            Role::Client => netns.sysctl(&CLIENT)?,
            Role::LoadBalancer => {}
            Role::Backend => netns.sysctl(&BACKEND)?,
        }
    }
    Ok(())
}

fn make_links(router: &Netns, hosts: &[Host]) -> Result<()> {
    let mut lines = vec!["link set lo up".to_owned()];
    for Host { place, netns } in hosts {
        let Place { link, router_interface: interface, mtu, .. } = place;
        lines.push(format!(
            "link add {interface} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
            netns.name()
        ));
        lines.push(format!("addr add {}/24 dev {interface}", link.router4()));
        lines.push(format!("addr add {}/64 dev {interface} nodad", link.router6()));
        lines.push(format!("link set {interface} up"));
    }
    router.ip(&lines)?;
    router::prepare(router)
}

/// Two cores and a dozen short runs of `ip`: side by side they take half as long.
fn configure_hosts(hosts: &[Host]) -> Result<()> {
    let configure = |host: &Host| {
        let link = host.place.link;
        host.netns.ip(&[
            "link set lo up".to_owned(),
            format!("addr add {}/24 dev eth0", link.host4()),
            format!("addr add {}/64 dev eth0 nodad", link.host6()),
            "link set eth0 up".to_owned(),
            format!("route add default via {}", link.router4()),
            format!("route add default via {}", link.router6()),
        ])
    };
    thread::scope(|scope| {
        let work: Vec<_> = hosts.iter().map(|host| scope.spawn(move || configure(host))).collect();
        work.into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// What a veth needs at the far end of a load balancer that transmits by XDP.
#[derive(Debug)]
struct PassPrograms {
    /// Dropping it detaches the programs.
    _loaded: Ebpf,
}

impl PassPrograms {
    fn attach(router: &Netns, hosts: &[Host]) -> Result<Self> {
        let interfaces: Vec<&str> = hosts
            .iter()
            .filter(|host| host.place.role == Role::LoadBalancer)
            .map(Host::router_interface)
            .collect();
        for interface in &interfaces {
            // Local TCP leaves over veth with partial checksums, and XDP_TX loses the note that says so: the
            // receiver would count bad checksums. Off at the last veth before the load balancer is enough.
            router.check(Command::new("ethtool").args(["-K", interface, "tx", "off"]))?;
        }
        let loaded = router.run(|| load_pass(&interfaces))??;
        Ok(Self { _loaded: loaded })
    }
}

/// A veth delivers what its peer transmits by native XDP only if it has an XDP program itself.
fn load_pass(interfaces: &[&str]) -> Result<Ebpf> {
    let mut loaded = Ebpf::load(PASS).context("cannot load the lab's pass program")?;
    let program: &mut Xdp = loaded
        .program_mut("bowline_pass")
        .ok_or_else(|| anyhow!("the object holds no program `bowline_pass`"))?
        .try_into()
        .context("`bowline_pass` is not an XDP program")?;
    program.load().context("the kernel refuses the lab's pass program")?;
    for interface in interfaces {
        program
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("cannot attach the pass program to {interface} of the router"))?;
    }
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_in_the_order_client_load_balancers_backends() {
        let names: Vec<String> = places(Size::default()).into_iter().map(|place| place.name).collect();
        assert_eq!(names, ["client", "lb1", "lb2", "b1", "b2", "b3"]);
    }
}
