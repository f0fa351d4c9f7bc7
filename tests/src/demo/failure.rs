//! First part: two anycast servers behind a router whose hash includes the ECN bits.

use anyhow::Result;

use super::{Run, SAME_PORTS, connect, crossed, figures, five_tuple, serve};
use crate::capture::{Capture, Packets, Seen};
use crate::report::Report;
use crate::router::RouterHash;
use crate::topology::{Host, Topology};
use crate::traffic::{Break, Phase};

/// The second server's packets start with this TTL, as if it stood four hops farther away.
const FAR_TTL: &str = "60";
const USUAL_TTL: &str = "64";

/// The control run's own source ports.
const CONTROL_PORTS: u16 = 26_000;

pub(super) fn show(report: &mut Report, topology: &Topology) -> Result<()> {
    report.heading("1. The failure: an ECN-sensitive router in front of two anycast servers")?;
    let (near, far) = (&topology.backends[0], &topology.backends[1]);
    near.hold_vips()?;
    far.hold_vips()?;
    set_ttl(far, FAR_TTL)?;
    let servers = serve(&topology.backends[..2])?;

    topology.route_vips(RouterHash::EcnSensitive, near, far)?;
    let (run, packets) = captured(report, topology, SAME_PORTS)?;
    topology.hash_vips(RouterHash::FiveTuple)?;
    let (control, control_packets) = captured(report, topology, CONTROL_PORTS)?;

    let runs = [("5-tuple, DSCP, ECN", &run, &packets), ("5-tuple only", &control, &control_packets)];
    let mut rows = Vec::new();
    for (hash, run, packets) in runs {
        for (family, flows) in run {
            let label = format!("{}, router hashes {hash}", family.name());
            rows.push(figures(&label, flows, crossed(packets, ["b1", "b2"], *family)));
        }
    }
    report.table(&["", "connections", "lived", "reset", "other", "seen by both servers"], &rows)?;
    report.line("")?;
    explain_one(report, &run, &packets)?;
    promises(report, &run, &control)?;

    // The servers close what their clients lost long ago; the clients' RSTs must find the way that the SYNs
    // took, or half-closed leftovers would answer when the same connections are opened again.
    topology.hash_vips(RouterHash::EcnSensitive)?;
    drop(servers);
    set_ttl(far, USUAL_TTL)?;
    near.release_vips()?;
    far.release_vips()
}

fn captured(report: &mut Report, topology: &Topology, first_port: u16) -> Result<(Run, Packets)> {
    let capture = Capture::start(&topology.router, &["b1", "b2"])?;
    let run = connect(report, &topology.client.netns, first_port)?;
    Ok((run, capture.stop()?))
}

fn explain_one(report: &mut Report, run: &Run, packets: &Packets) -> Result<()> {
    let broken = run.iter().flat_map(|(_, flows)| flows.broken());
    let mut first_message =
        broken.filter(|(_, broken)| broken.how == Break::Reset && broken.phase == Phase::Message(1));
    let Some((flow, broken)) = first_message.next() else {
        return report.line("No connection was reset at its first message.");
    };
    let tuple = five_tuple(flow);
    let both =
        packets.0.iter().filter(|seen| seen.five_tuple() == tuple || seen.five_tuple() == tuple.reversed());
    let mut told: Vec<&Seen> = Vec::new();
    for seen in both {
        told.push(seen);
        if seen.flags.rst() {
            break;
        }
    }
    report.line(&format!("One of them, {broken}, as the router saw it on the servers' links (b1, b2):"))?;
    told.iter().try_for_each(|seen| report.quote(&seen.to_string()))?;
    report.line(
        "The handshake carries no ECN mark and went to one server. The first data is marked ECT(0), which the router's\n\
         hash includes, so it went to the other server, which knows no such connection and answers RST. The RST's TTL\n\
         is not that of the SYN-ACK: two machines spoke. (The TTL of b2 starts at 60 here to show it.)\n",
    )
}

fn promises(report: &mut Report, run: &Run, control: &Run) -> Result<()> {
    for (family, flows) in run {
        // A hash with two outcomes parts handshake and data of about every second flow.
        let share = flows.reset() * 100 / flows.len().max(1);
        let text = format!("{}: about half of the connections are reset ({share} %)", family.name());
        report.promise((30..=70).contains(&share), &text)?;
    }
    let lived = control.iter().all(|(_, flows)| flows.lived() == flows.len());
    report.promise(lived, "the same servers behind a correct router: all live, so it is the ECN bits")
}

fn set_ttl(host: &Host, ttl: &str) -> Result<()> {
    host.netns.sysctl(&[("net/ipv4/ip_default_ttl", ttl), ("net/ipv6/conf/eth0/hop_limit", ttl)])
}
