//! Second part: Bowline on both load balancers behind the same router.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Result;

use super::{Run, SAME_PORTS, connect, crossed, figures, serve};
use crate::bowline::{Daemon, LbConfig, Pool};
use crate::capture::{Capture, Packets};
use crate::forecast::Forecast;
use crate::report::Report;
use crate::router::RouterHash;
use crate::topology::Topology;
use crate::traffic::{EchoServer, Flow, Transport};

/// Backends of the pool at first; the lab has one more.
const POOL_SIZE: usize = 3;

/// What runs once Bowline does.
pub(super) struct Fleet {
    pub(super) load_balancers: Vec<Daemon>,
    pub(super) pool: Pool,
    /// Address of each backend by the name its server answers with.
    pub(super) names: BTreeMap<String, IpAddr>,
    pub(super) agents: Vec<Daemon>,
    _servers: Vec<EchoServer>,
}

impl Fleet {
    fn start(topology: &Topology) -> Result<Self> {
        let agents =
            topology.backends.iter().map(|host| Daemon::agent(topology, host)).collect::<Result<_>>()?;
        let servers = serve(&topology.backends)?;
        let pool = Pool::of(&topology.backends[..POOL_SIZE]);
        let config = LbConfig { commit_delay: "1s", ..LbConfig::new(topology, pool.clone()) };
        let mut load_balancers = Vec::new();
        for host in &topology.load_balancers {
            let mut daemon = Daemon::load_balancer(topology, host, &config)?;
            daemon.wait_until_healthy()?;
            load_balancers.push(daemon);
        }
        let names = topology.backends.iter().map(|host| (host.name().to_owned(), host.v4().into())).collect();
        Ok(Self { load_balancers, pool, names, agents, _servers: servers })
    }

    /// Did the backend answer that the configuration alone says?
    pub(super) fn answered_as(&self, forecast: &Forecast, flow: &Flow) -> bool {
        let answered = flow.server.as_ref().and_then(|name| self.names.get(name).copied());
        answered.is_some() && answered == forecast.backend(Transport::Tcp, flow.local, flow.remote)
    }
}

pub(super) fn show(report: &mut Report, topology: &Topology) -> Result<Fleet> {
    report.heading("2. The cure: Bowline on lb1 and lb2, behind the same router")?;
    let fleet = report.during("starting the daemons", || Fleet::start(topology))?;
    topology.route_vips(
        RouterHash::EcnSensitive,
        &topology.load_balancers[0],
        &topology.load_balancers[1],
    )?;

    let before = counted(&fleet)?;
    let capture = Capture::start(&topology.router, &["l1", "l2"])?;
    let run = connect(report, &topology.client.netns, SAME_PORTS)?;
    let packets = capture.stop()?;
    let after = counted(&fleet)?;

    let rows: Vec<_> = run
        .iter()
        .map(|(family, flows)| figures(family.name(), flows, crossed(&packets, ["l1", "l2"], *family)))
        .collect();
    report.table(&["", "connections", "lived", "reset", "other", "crossed both LBs"], &rows)?;
    report.line("")?;
    let counts = per_load_balancer(&fleet, &packets, &before, &after);
    report.table(&["", "packets on its link", "packets it counted"], &counts)?;
    report.line("")?;
    promises(report, &fleet, &run, &packets)?;
    Ok(fleet)
}

fn promises(report: &mut Report, fleet: &Fleet, run: &Run, packets: &Packets) -> Result<()> {
    let forecast = Forecast::new(&fleet.pool, &[])?;
    for (family, flows) in run {
        let crossed = crossed(packets, ["l1", "l2"], *family);
        report.promise(
            flows.lived() == flows.len(),
            &format!("{}: the same connections all live", family.name()),
        )?;
        let text = format!("{}: {crossed} of them had packets on both load balancers", family.name());
        report.promise(crossed > 0, &text)?;
    }
    let flows = || run.iter().flat_map(|(_, flows)| &flows.0);
    let foretold = flows().filter(|flow| fleet.answered_as(&forecast, flow)).count();
    let text = format!(
        "{foretold} of {} were answered by the backend that their 5-tuple and the configuration give",
        flows().count()
    );
    report.promise(foretold == flows().count(), &text)
}

/// Packets forwarded so far, per load balancer, in its own words.
fn counted(fleet: &Fleet) -> Result<Vec<Option<u64>>> {
    fleet.load_balancers.iter().map(|daemon| Ok(packets_in(&daemon.json(&["stats"])?))).collect()
}

/// The sum over the VIPs of `bowline stats -o json`.
fn packets_in(stats: &serde_json::Value) -> Option<u64> {
    let vips = stats.get("vips")?.as_array()?;
    vips.iter().map(|vip| vip.get("packets").and_then(serde_json::Value::as_u64)).sum()
}

fn per_load_balancer(
    fleet: &Fleet,
    packets: &Packets,
    before: &[Option<u64>],
    after: &[Option<u64>],
) -> Vec<Vec<String>> {
    let difference = |(before, after): (&Option<u64>, &Option<u64>)| Some(after.as_ref()? - before.as_ref()?);
    let counted = before.iter().zip(after).map(difference);
    let row = |(daemon, counted): (&Daemon, Option<u64>)| {
        let link = packets.to_vip(daemon.host().router_interface()).count();
        let counted = counted.map_or_else(|| "?".to_owned(), |count| count.to_string());
        vec![daemon.host().name().to_owned(), link.to_string(), counted]
    };
    fleet.load_balancers.iter().zip(counted).map(row).collect()
}
