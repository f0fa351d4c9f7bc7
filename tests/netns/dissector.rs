//! The wire format of the second chance, by a second source: a program that knows GLB Director's published layout and
//! not Bowline reads our packets, and writes packets that our agents read.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::forecast::Forecast;
use lb_tests::netns::Background;
use lb_tests::plan::Family;
use lb_tests::topology::Host;
use lb_tests::traffic::Transport;
use serde_json::Value;

use crate::counters::Reasons;
use crate::fleet::{Fleet, Mix, Wish};
use crate::sprayed::{Connections, sprayed};
use crate::wait::until;

/// The program, given to Python on its command line.
const PROGRAM: &str = include_str!("glb_gue.py");

#[test]
fn over_ipv4_an_independent_dissector_reads_the_chains_that_the_configuration_gives() -> Result<()> {
    is_read_as_meant(Mix::GUE4, 0)
}

#[test]
fn over_ipv6_an_independent_dissector_reads_the_chains_that_the_configuration_gives() -> Result<()> {
    is_read_as_meant(Mix::GUE6, 1)
}

fn is_read_as_meant(mix: Mix, kind: u64) -> Result<()> {
    let fleet = sprayed(Wish { mix, backends: 5, in_pool: 3, ..Wish::default() })?;
    let mut old = fleet.open(20)?;
    fleet.add_everywhere(3)?;
    fleet.add_everywhere(4)?;
    let grown = Forecast::new(fleet.pool(), &[])?.then(&fleet.pool_with(0..4), &[])?;
    let forecast = grown.then(&fleet.pool_with(0..5), &[])?;

    let listener = Listener::start(&fleet)?;
    // Short messages: the dissector is no fast reader.
    let broke: usize = old.0.iter_mut().map(|flows| flows.exchange(32)).sum();
    ensure!(broke == 0, "{broke} broke when two backends joined");
    let new = fleet.open(5)?;
    let seen = listener.packets_of(&[&old, &new])?;
    let (mut full, mut second) = (0, 0);
    for packet in &seen {
        let visits = forecast.visits(Transport::Tcp, packet.client, packet.vip);
        if packet.opens {
            ensure!(packet.kind.is_none() && packet.hops.is_empty(), "a SYN has no chain: {packet:?}");
            continue;
        }
        ensure!(packet.kind == Some(kind), "{packet:?}");
        ensure!(visits[1..] == packet.hops, "{packet:?}, foretold {visits:?}");
        full += usize::from(packet.hops.len() == 3);
        // Who sends a second chance has moved the index on, past the hop that it sends to.
        ensure!(packet.to == visits[packet.next], "sent to another than the index says: {packet:?}");
        ensure!(packet.by_load_balancer == (packet.next == 0), "{packet:?}");
        second += usize::from(packet.next > 0);
    }
    ensure!(full > 0 && second > 0, "{full} full chains, {second} second chances in {} packets", seen.len());
    ensure!(seen.iter().any(|packet| packet.opens), "no SYN was seen");
    Ok(())
}

#[test]
fn over_ipv4_agents_read_chains_that_another_program_wrote() -> Result<()> {
    reads_what_others_write(Mix::GUE4)
}

#[test]
fn over_ipv6_agents_read_chains_that_another_program_wrote() -> Result<()> {
    reads_what_others_write(Mix::GUE6)
}

fn reads_what_others_write(mix: Mix) -> Result<()> {
    let fleet = Fleet::start(Wish { mix, ..Wish::default() })?;
    let client = &fleet.topology.client;
    for (family, source) in Family::BOTH.into_iter().zip(client.addresses()) {
        let send = |protocol: &str, order: &[usize]| -> Result<()> {
            let addresses: Vec<_> = order.iter().map(|&number| fleet.address(number).to_string()).collect();
            let mut python = Command::new("python3");
            python.args(["-c", PROGRAM, "send", &addresses[0], protocol, &source.to_string(), "40000"]);
            python.arg(family.vip().to_string()).args(&addresses[1..]);
            fleet.topology.load_balancers[0].netns.check(&mut python).map(drop)
        };
        // An ACK of a connection that nobody has goes to the end of its chain, in the order of the hops.
        for order in [&[0, 1, 2][..], &[2, 0, 1], &[1, 2], &[1]] {
            let mut expected = vec!["second_chance_no_socket"; order.len()];
            expected[order.len() - 1] = "end_of_chain_no_socket";
            counts(&fleet, order, &expected, || send("tcp", order))?;
        }
        counts(&fleet, &[0], &["accepted"], || send("udp", &[0, 1, 2]))?;
    }
    Ok(())
}

/// Does something, after which these backends have each counted one packet more, under these reasons, and the others
/// none.
fn counts(fleet: &Fleet, order: &[usize], reasons: &[&str], act: impl Fn() -> Result<()>) -> Result<()> {
    let before = fleet.agents.iter().map(Reasons::of_agent).collect::<Result<Vec<_>>>()?;
    let since = |number: usize| -> Result<Reasons> {
        Ok(Reasons::of_agent(&fleet.agents[number])?.since(&before[number]))
    };
    act()?;
    until("the last backend has counted it", Duration::from_secs(5), || {
        Ok(since(order[order.len() - 1])?.packets(reasons[order.len() - 1])? > 0)
    })?;
    for (number, _) in fleet.agents.iter().enumerate() {
        let counted = since(number)?;
        counted.ensure_nothing_dropped()?;
        let expected = order.iter().position(|&one| one == number).and_then(|place| reasons.get(place));
        let all = counted.with_verdict("forward");
        let as_expected = match expected {
            Some(reason) => all.len() == 1 && all.get(reason) == Some(&1),
            None => all.is_empty(),
        };
        ensure!(as_expected, "b{} counted {all:?}, not {expected:?}", number + 1);
    }
    Ok(())
}

/// The dissector, at work on the router.
struct Listener<'f> {
    fleet: &'f Fleet,
    process: Background,
}

/// A tunnel packet as the dissector read it.
#[derive(Debug)]
struct Tunnelled {
    by_load_balancer: bool,
    to: IpAddr,
    client: SocketAddr,
    vip: SocketAddr,
    opens: bool,
    /// Of the private data; `None` without any.
    kind: Option<u64>,
    next: usize,
    hops: Vec<IpAddr>,
}

impl<'f> Listener<'f> {
    fn start(fleet: &'f Fleet) -> Result<Self> {
        let log = fleet.topology.lab.run_dir().join("dissector");
        let hosts = fleet.topology.load_balancers.iter().chain(&fleet.topology.backends);
        let mut python = Command::new("python3");
        python.args(["-c", PROGRAM, "listen"]).args(hosts.map(Host::router_interface));
        let process = fleet.topology.router.background(&mut python, &log)?;
        until("the dissector listens", Duration::from_secs(10), || {
            Ok(std::fs::read_to_string(&log)?.starts_with("ready"))
        })?;
        Ok(Self { fleet, process })
    }

    /// Everything that was seen, once there is something of all these connections.
    fn packets_of(mut self, sets: &[&Connections]) -> Result<Vec<Tunnelled>> {
        let wanted: BTreeSet<_> =
            sets.iter().flat_map(|set| set.iter()).map(|flow| (flow.local, flow.remote)).collect();
        until("the dissector has seen every connection", Duration::from_secs(10), || {
            self.process.still_runs()?;
            let seen: BTreeSet<_> = self.read()?.iter().map(|packet| (packet.client, packet.vip)).collect();
            Ok(wanted.is_subset(&seen))
        })?;
        self.read()
    }

    fn read(&self) -> Result<Vec<Tunnelled>> {
        let text = std::fs::read_to_string(self.process.log()).context("the dissector writes a log")?;
        // A last line that is not whole yet is left out.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().skip(1).map(|line| self.parse(line)).collect()
    }

    fn parse(&self, line: &str) -> Result<Tunnelled> {
        let said: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
        let parsed = || {
            let text = |key: &str| said[key].as_str();
            let address = |key: &str| text(key)?.parse::<IpAddr>().ok();
            let port = |key: &str| u16::try_from(said[key].as_u64()?).ok();
            let from = text("interface")?;
            let hops = said["hops"].as_array()?.iter();
            let balancers = &self.fleet.topology.load_balancers;
            Some(Tunnelled {
                by_load_balancer: balancers.iter().any(|host| host.router_interface() == from),
                to: address("outer_destination")?,
                client: SocketAddr::new(address("source")?, port("sport")?),
                vip: SocketAddr::new(address("destination")?, port("dport")?),
                opens: said["opens"].as_bool()?,
                kind: said["type"].as_u64(),
                next: usize::try_from(said["next"].as_u64()?).ok()?,
                hops: hops.map(|hop| hop.as_str()?.parse().ok()).collect::<Option<_>>()?,
            })
        };
        parsed().with_context(|| format!("not as documented: {line}"))
    }
}
