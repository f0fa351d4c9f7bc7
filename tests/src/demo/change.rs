//! Third part: one backend is drained and another added while flows run.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};

use super::cure::Fleet;
use super::{CONNECTIONS, connect};
use crate::bowline::{Daemon, Pool};
use crate::forecast::Forecast;
use crate::plan::Family;
use crate::report::Report;
use crate::topology::Topology;
use crate::traffic::{Flow, Flows, KeptBusy, Plan, Transport};

/// Source ports of the flows that run through the change, of those that start between its two phases, and of those
/// that start after it.
const RUNNING_PORTS: u16 = 22_000;
const BETWEEN_PORTS: u16 = 23_000;
const NEW_PORTS: u16 = 24_000;

/// How long the running flows go on before and after the change.
const AROUND: Duration = Duration::from_millis(500);
/// Longer than the fleet's `commit_delay`.
const COMMITTED: Duration = Duration::from_millis(1500);

pub(super) fn show(report: &mut Report, topology: &Topology, fleet: &Fleet) -> Result<()> {
    report.heading("3. A change while flows run: b1 drains, b4 joins")?;
    let (leaving, joining) = (&topology.backends[0], &topology.backends[3]);
    let wider = {
        let mut pool = fleet.pool.clone();
        pool.backends.push((joining.v4().into(), Pool::WEIGHT));
        pool
    };
    let before = Forecast::new(&fleet.pool, &[])?;
    let after = before.then(&wider, &[leaving.v4().into()])?;

    let mut busy = start_flows(report, topology, RUNNING_PORTS)?;
    report.line("lb1, `bowline table show`, before:")?;
    report.quote(&fleet.load_balancers[0].ask(&["table", "show"])?)?;
    std::thread::sleep(AROUND);
    for daemon in &fleet.load_balancers {
        daemon.ask(&["backend", "drain", &leaving.v4().to_string()])?;
        let weight = Pool::WEIGHT.to_string();
        let address = joining.v4().to_string();
        daemon.ask(&["backend", "add", &address, "--pool", Pool::NAME, "--weight", &weight])?;
    }
    report.line(&format!(
        "on both: `bowline backend drain {}`, `bowline backend add {}`",
        leaving.v4(),
        joining.v4()
    ))?;
    // The addition is prepared now and committed a little later; flows that start meanwhile must live through that.
    busy.extend(start_flows(report, topology, BETWEEN_PORTS)?);
    std::thread::sleep(COMMITTED);
    report.line("lb1, `bowline table show`, after:")?;
    report.quote(&fleet.load_balancers[0].ask(&["table", "show"])?)?;

    let fresh = connect(report, &topology.client.netns, NEW_PORTS)?;
    std::thread::sleep(AROUND);
    let ran = busy.into_iter().map(KeptBusy::stop).collect::<Result<Vec<_>>>()?;
    let counts = Counts::of(&ran, &before, &after);
    report.line("")?;
    report.table(&["running connections", "", "lived", "broke"], &counts.rows())?;
    report.line("")?;
    report.line(&format!(
        "The flows of {} of {} rows go elsewhere now: b4's new rows, and b1's, whose standbys take the new flows.\n\
         Packets of older flows that reach the new backend get a second chance at the old one: {} did.\n",
        before.moved_rows(&after),
        before.rows(),
        second_chances(fleet)?,
    ))?;
    promises(report, fleet, &counts, &after, &fresh, [leaving.name(), joining.name()])
}

/// Packets that an agent sent on to the next backend of their chain.
fn second_chances(fleet: &Fleet) -> Result<u64> {
    let mut packets = 0;
    for agent in &fleet.agents {
        packets += agent.packets("second_chance_no_socket")?;
    }
    Ok(packets)
}

fn start_flows(report: &mut Report, topology: &Topology, first_port: u16) -> Result<Vec<KeptBusy>> {
    report.during("opening the flows", || {
        CONNECTIONS
            .iter()
            .map(|&(family, connections)| {
                let plan = Plan { first_port: Some(first_port), messages: 1, ..Plan::tcp(connections) };
                let flows = Flows::open(&topology.client.netns, family.service(), &plan)?;
                Ok(flows.keep_busy(32, Duration::from_millis(20)))
            })
            .collect()
    })
}

fn promises(
    report: &mut Report,
    fleet: &Fleet,
    counts: &Counts,
    after: &Forecast,
    fresh: &[(Family, Flows)],
    [leaving, joining]: [&str; 2],
) -> Result<()> {
    let moved = counts.moved_lived + counts.moved_broke;
    report.promise(
        moved > 0 && counts.moved_broke == 0,
        &format!("all {moved} connections on rows that moved live"),
    )?;
    let stayed = counts.stayed_lived + counts.stayed_broke;
    let text = format!("all {stayed} connections on rows that stayed live");
    report.promise(stayed > 0 && counts.stayed_broke == 0, &text)?;
    report.promise(second_chances(fleet)? > 0, "some of them by a second chance")?;
    for (family, flows) in fresh {
        let by_server = flows.by_server();
        let at = |name: &str| by_server.get(name).copied().unwrap_or(0);
        let text = format!("{}: {} of {} new connections live", family.name(), flows.lived(), flows.len());
        report.promise(flows.lived() == flows.len(), &text)?;
        let text = format!("{}: none of them at {leaving}, {} at {joining}", family.name(), at(joining));
        report.promise(at(leaving) == 0 && at(joining) > 0, &text)?;
    }
    let foretold = fresh.iter().flat_map(|(_, flows)| &flows.0).all(|flow| fleet.answered_as(after, flow));
    report.promise(foretold, "each was answered by the backend that the changed configuration gives")?;
    let digests = fleet.load_balancers.iter().map(digest).collect::<Result<BTreeSet<_>>>()?;
    report.promise(digests.len() == 1, "both load balancers have the same table digest")
}

/// The digest of the pool's table on this load balancer.
fn digest(daemon: &Daemon) -> Result<String> {
    let table = daemon.json(&["table", "show", Pool::NAME])?;
    // One pool is one object; a list of them holds it alone.
    let table = table.get(0).unwrap_or(&table);
    let digest = table.get("owners_digest").and_then(|digest| digest.as_str());
    digest.map(str::to_owned).context("`bowline table show -o json` has no owners_digest")
}

/// What became of the running connections.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    stayed_lived: usize,
    stayed_broke: usize,
    moved_lived: usize,
    moved_broke: usize,
}

impl Counts {
    fn of(ran: &[Flows], before: &Forecast, after: &Forecast) -> Self {
        let mut counts = Self::default();
        for flow in ran.iter().flat_map(|flows| &flows.0) {
            let moved = moved(flow, before, after);
            let count = match (moved, flow.lives()) {
                (false, true) => &mut counts.stayed_lived,
                (false, false) => &mut counts.stayed_broke,
                (true, true) => &mut counts.moved_lived,
                (true, false) => &mut counts.moved_broke,
            };
            *count += 1;
        }
        counts
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |label: &str, lived: usize, broke: usize| {
            vec![label.to_owned(), (lived + broke).to_string(), lived.to_string(), broke.to_string()]
        };
        vec![
            row("on rows that stayed", self.stayed_lived, self.stayed_broke),
            row("on rows that moved", self.moved_lived, self.moved_broke),
        ]
    }
}

fn moved(flow: &Flow, before: &Forecast, after: &Forecast) -> bool {
    let backend = |forecast: &Forecast| forecast.backend(Transport::Tcp, flow.local, flow.remote);
    backend(before) != backend(after)
}
