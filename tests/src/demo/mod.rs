//! `cargo xtask demo`: the failure the project exists for, its cure, and a change while flows run.

mod change;
mod cure;
mod failure;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::capture::{FiveTuple, Packets};
use crate::netns::Netns;
use crate::plan::Family;
use crate::report::Report;
use crate::topology::{Host, Size, Topology};
use crate::traffic::{EchoServer, Flow, Flows, Plan, run_connections};

/// TCP connections of every run, per family.
const CONNECTIONS: [(Family, usize); 2] = [(Family::V4, 200), (Family::V6, 100)];

/// The failure and the cure use the same source ports: the same connections, as far as a router can tell.
const SAME_PORTS: u16 = 20_000;

/// Runs the whole demo. True if every promise was kept.
pub fn run() -> Result<bool> {
    let started = Instant::now();
    let mut report = Report::default();
    let topology =
        report.during("building the lab", || Topology::with_size(Size { load_balancers: 2, backends: 4 }))?;
    report.line(&format!(
        "A lab of namespaces, up in {} ms: client - router - lb1, lb2 - b1, b2, b3, b4; IPv4 and IPv6.",
        started.elapsed().as_millis()
    ))?;

    failure::show(&mut report, &topology)?;
    let fleet = cure::show(&mut report, &topology)?;
    change::show(&mut report, &topology, &fleet)?;

    let (made, broken) = report.promises();
    report.heading(&format!(
        "{} of {made} promises kept, in {:.1} s.",
        made - broken,
        started.elapsed().as_secs_f64()
    ))?;
    Ok(broken == 0)
}

/// The connections of one run, by family.
type Run = Vec<(Family, Flows)>;

/// Opens [`CONNECTIONS`], exchanges three messages on each, closes them.
fn connect(report: &mut Report, client: &Netns, first_port: u16) -> Result<Run> {
    report.during("connecting", || {
        CONNECTIONS
            .iter()
            .map(|&(family, connections)| {
                let plan = Plan { first_port: Some(first_port), pause: PAUSE, ..Plan::tcp(connections) };
                Ok((family, run_connections(client, family.service(), &plan)?))
            })
            .collect()
    })
}

/// Between two messages of a connection.
const PAUSE: Duration = Duration::from_millis(5);

/// An echo server on each of these hosts, at both VIPs.
fn serve(hosts: &[Host]) -> Result<Vec<EchoServer>> {
    let services = Family::BOTH.map(Family::service);
    hosts.iter().map(|host| EchoServer::start(&host.netns, host.name(), &services)).collect()
}

/// `connections | lived | reset | broken otherwise | crossed` for one family of a run.
fn figures(label: &str, flows: &Flows, crossed: usize) -> Vec<String> {
    let otherwise = flows.len() - flows.lived() - flows.reset();
    let counts = [flows.len(), flows.lived(), flows.reset(), otherwise, crossed];
    std::iter::once(label.to_owned()).chain(counts.map(|count| count.to_string())).collect()
}

/// Flows of one family whose packets left the router by both interfaces.
fn crossed(packets: &Packets, interfaces: [&str; 2], family: Family) -> usize {
    let [one, other] = interfaces;
    packets.crossing(one, other).iter().filter(|flow| flow.dst == family.vip()).count()
}

fn five_tuple(flow: &Flow) -> FiveTuple {
    let (local, remote) = (flow.local, flow.remote);
    FiveTuple { src: local.ip(), dst: remote.ip(), sport: local.port(), dport: remote.port(), protocol: 6 }
}
