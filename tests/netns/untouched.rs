//! What is not for a VIP passes the load balancer's XDP program as if it were not there.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::netns::Netns;
use lb_tests::plan::{Family, VIP4, VIP6};
use lb_tests::traffic::{EchoServer, Plan, Transport, run_connections};

use crate::counters::{self, Reasons};
use crate::fleet::{Fleet, Wish};
use crate::wait;

/// A service of the load balancer's own.
const OWN_PORT: u16 = 8080;
/// A port that no VIP has.
const WRONG_PORT: u16 = 81;
const DATAGRAMS: u64 = 10;

#[test]
fn the_load_balancers_own_addresses_answer_pings_fragments_tcp_and_udp() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let host = &fleet.topology.load_balancers[0];
    let services = host.addresses().map(|address| SocketAddr::new(address, OWN_PORT));
    let _server = EchoServer::start(&host.netns, host.name(), &services)?;
    let before = Reasons::of_load_balancer(fleet.lb())?;
    for from in [fleet.client(), &fleet.topology.router] {
        for address in host.addresses() {
            // 3000 bytes are two fragments and more; 1472 fill the client's link.
            for size in ["56", "1400", "3000"] {
                ping(from, address, size)?;
            }
        }
        for service in services {
            for transport in Transport::BOTH {
                let flows = run_connections(from, service, &Plan { transport, ..Plan::tcp(5) })?;
                ensure!(flows.lived() == 5, "{transport:?} to {service}: {:?}", flows.broken().next());
            }
        }
    }
    let counted = Reasons::of_load_balancer(fleet.lb())?.since(&before);
    counted.ensure_nothing_dropped()?;
    ensure!(counted.packets("forwarded")? == 0, "own traffic was sent to a backend");
    ensure!(counted.packets("not_vip")? > 100, "the program did not see this traffic");
    Ok(())
}

#[test]
fn neighbours_of_the_load_balancer_are_resolved_through_the_program() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let host = &fleet.topology.load_balancers[0];
    let before = Reasons::of_load_balancer(fleet.lb())?;
    for _ in 0..3 {
        fleet.topology.router.ip(&["neigh flush dev l1".to_owned()])?;
        for address in host.addresses() {
            ping(&fleet.topology.router, address, "56")?;
        }
    }
    // ARP is the frame that is not IP.
    let counted = Reasons::of_load_balancer(fleet.lb())?.since(&before);
    ensure!(counted.packets("not_ip")? >= 3, "no ARP passed: {counted:?}");
    counted.ensure_nothing_dropped()
}

#[test]
fn a_wrong_port_of_a_vip_is_counted_and_does_not_reach_the_load_balancers_stack() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let lb = &fleet.topology.load_balancers[0].netns;
    // A packet for somebody else that reaches the stack of a host counts as a wrong address there.
    let reached = || -> Result<[u64; 2]> {
        Ok([counters::kernel(lb, "Ip InAddrErrors")?, counters::kernel(lb, "Ip6InAddrErrors")?])
    };
    // That the measure measures: the VIPs' neighbours are no VIPs, so they pass.
    let neighbours: [IpAddr; 2] = ["203.0.113.11".parse()?, "2001:db8:100::11".parse()?];
    let [lb4, lb6] = fleet.topology.load_balancers[0].addresses();
    fleet.topology.router.ip(&[
        format!("route add {} via {lb4}", neighbours[0]),
        format!("route add {} via {lb6}", neighbours[1]),
    ])?;
    let start = reached()?;
    for address in neighbours {
        send(fleet.client(), SocketAddr::new(address, WRONG_PORT))?;
    }
    wait::until("packets to others reach the stack", Duration::from_secs(3), || {
        let now = reached()?;
        Ok(now[0] - start[0] >= DATAGRAMS && now[1] - start[1] >= DATAGRAMS)
    })?;

    let (before, start) = (Reasons::of_load_balancer(fleet.lb())?, reached()?);
    for family in Family::BOTH {
        let service = SocketAddr::new(family.vip(), WRONG_PORT);
        send(fleet.client(), service)?;
        let plan = Plan { timeout: Duration::from_millis(300), ..Plan::tcp(5) };
        let flows = run_connections(fleet.client(), service, &plan)?;
        ensure!(flows.lived() == 0, "{service} answers");
    }
    let counted = Reasons::of_load_balancer(fleet.lb())?.since(&before);
    let dropped = counted.packets("no_service")?;
    ensure!(dropped >= 2 * (DATAGRAMS + 5), "{dropped} counted as no_service");
    ensure!(counted.with_verdict("drop").len() == 1, "{counted:?}");
    ensure!(reached()? == start, "{:?} after {start:?} in the load balancer's stack", reached()?);
    Ok(())
}

/// A VIP is no address of the load balancer: it must not answer for it.
#[test]
fn a_ping_of_a_vip_is_counted_as_icmp_and_not_answered() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let before = Reasons::of_load_balancer(fleet.lb())?;
    for vip in [IpAddr::from(VIP4), IpAddr::from(VIP6)] {
        let mut ping = Command::new("ping");
        let answer = fleet.client().output(ping.args(["-c", "1", "-W", "1", &vip.to_string()]))?;
        ensure!(!answer.status.success(), "{vip} answers a ping");
    }
    let counted = Reasons::of_load_balancer(fleet.lb())?.since(&before);
    ensure!(counted.packets("icmp")? == 2, "{counted:?}");
    Ok(())
}

fn ping(from: &Netns, address: IpAddr, size: &str) -> Result<()> {
    let address = address.to_string();
    let mut ping = Command::new("ping");
    ping.args(["-n", "-q", "-c", "3", "-i", "0.01", "-W", "2", "-s", size, &address]);
    from.check(&mut ping).map(drop)
}

fn send(from: &Netns, to: SocketAddr) -> Result<()> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    from.run(|| {
        let socket = UdpSocket::bind((any, 0)).context("cannot open a socket")?;
        for _ in 0..DATAGRAMS {
            socket.send_to(b"nobody is here", to).with_context(|| format!("cannot send to {to}"))?;
        }
        Ok(())
    })?
}
