//! Congestion that a router marks on the way between load balancer and backend reaches the two ends (RFC 6040).

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use lb_tests::capture::Capture;
use lb_tests::plan::Family;
use lb_tests::topology::Topology;
use lb_tests::traffic::{Plan, run_connections};

use crate::counters::{self, Reasons};
use crate::fleet::{Fleet, Mix, Wish};

#[test]
fn a_mark_on_a_gue_over_ipv4_tunnel_reaches_the_backend_and_the_client() -> Result<()> {
    congested_tunnel(Mix::GUE4)
}

#[test]
fn a_mark_on_a_gue_over_ipv6_tunnel_reaches_the_backend_and_the_client() -> Result<()> {
    congested_tunnel(Mix::GUE6)
}

#[test]
fn a_mark_on_an_ipip_over_ipv4_tunnel_reaches_the_backend_and_the_client() -> Result<()> {
    congested_tunnel(Mix::IPIP4)
}

#[test]
fn a_mark_on_an_ipip_over_ipv6_tunnel_reaches_the_backend_and_the_client() -> Result<()> {
    congested_tunnel(Mix::IPIP6)
}

/// The kernel's counters of packets that arrived with CE, by inner family.
const CE_COUNTERS: [(Family, &str); 2] = [(Family::V4, "IpExt InCEPkts"), (Family::V6, "Ip6InCEPkts")];

fn congested_tunnel(mix: Mix) -> Result<()> {
    let fleet = Fleet::start(Wish { mix, backends: 1, in_pool: 1, ..Wish::default() })?;
    for (family, counter) in CE_COUNTERS {
        let quiet = tcp_under(&fleet, family, counter)?;
        ensure!(quiet == Seen::default(), "marks without congestion: {quiet:?}");
    }
    // As routers do: only what may be marked is marked, else handshakes would be lost.
    mark_ce(&fleet.topology, mix, "ect0")?;
    for (family, counter) in CE_COUNTERS {
        let Seen { marked_at_backend, echoed_to_client } = tcp_under(&fleet, family, counter)?;
        ensure!(marked_at_backend > 0, "{family:?}: no CE in the backend's stack");
        ensure!(echoed_to_client > 0, "{family:?}: the backend's TCP did not echo the mark");
    }
    // A mark on what did not ask for marks is a lie; the packet under it must not arrive (RFC 6040 section 4.2).
    mark_ce(&fleet.topology, mix, "not-ect")?;
    let agent = &fleet.agents[0];
    for family in Family::BOTH {
        let before = Reasons::of_agent(agent)?;
        let plan = Plan { messages: 1, timeout: Duration::from_millis(300), ..Plan::udp(8) };
        let flows = run_connections(fleet.client(), family.service(), &plan)?;
        let counted = Reasons::of_agent(agent)?.since(&before);
        ensure!(flows.lived() == 0, "{family:?}: {} datagrams were answered", flows.lived());
        let (dropped, accepted) = (counted.packets("ce_over_not_ect")?, counted.accepted());
        ensure!((dropped, accepted) == (8, 0), "{family:?}: {dropped} dropped, {accepted} accepted");
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    marked_at_backend: u64,
    echoed_to_client: usize,
}

/// Some TCP connections, all of which live, and what became of marks meanwhile.
fn tcp_under(fleet: &Fleet, family: Family, counter: &str) -> Result<Seen> {
    let backend = &fleet.topology.backends[0].netns;
    let before = counters::kernel(backend, counter)?;
    let capture = Capture::start(&fleet.topology.router, &["c0"])?;
    let flows = run_connections(fleet.client(), family.service(), &Plan::tcp(8))?;
    let packets = capture.stop()?;
    ensure!(flows.lived() == 8, "{family:?}: {:?}", flows.broken().next());
    // In a SYN the flag has another meaning.
    let echoes =
        packets.0.iter().filter(|seen| seen.src == family.vip() && seen.flags.ece() && !seen.flags.syn());
    Ok(Seen {
        marked_at_backend: counters::kernel(backend, counter)? - before,
        echoed_to_client: echoes.count(),
    })
}

/// The router marks tunnel packets with this outer codepoint, from the load balancer to the backend, with CE.
fn mark_ce(topology: &Topology, mix: Mix, outer: &str) -> Result<()> {
    let ip = match mix.underlay {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let rules = format!(
        "table inet congestion {{\n}}\n\
         delete table inet congestion\n\
         table inet congestion {{\n  \
           chain congest {{\n    \
             type filter hook forward priority 0; policy accept;\n    \
             iifname \"l1\" oifname \"b1\" {ip} ecn {outer} {ip} ecn set ce\n  \
           }}\n\
         }}\n"
    );
    topology.router.feed(Command::new("nft").args(["-f", "-"]), &rules).map(drop)
}
