//! Two load balancers behind a router that sends them alternate packets of every flow, and connections that must
//! survive it: what the tests of changes under traffic share.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::bowline::{Daemon, Pool};
use lb_tests::forecast::Forecast;
use lb_tests::plan::Family;
use lb_tests::router::RouterHash;
use lb_tests::traffic::{Flow, Flows, Plan, Transport};
use serde_json::Value;

use crate::counters::Reasons;
use crate::fleet::{Fleet, Wish};
use crate::wait::until;

/// A message of many segments.
const BULK: usize = 100_000;

/// How long an answer may take while one of two load balancers is away and every other packet is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// A fleet of two load balancers, every flow on both.
pub(crate) fn sprayed(wish: Wish) -> Result<Fleet> {
    let fleet = Fleet::start(Wish { load_balancers: 2, ..wish })?;
    let [lb1, lb2] = &fleet.topology.load_balancers[..] else { unreachable!("two were asked for") };
    fleet.topology.route_vips(RouterHash::PerPacket, lb1, lb2)?;
    Ok(fleet)
}

impl Fleet {
    /// Opens this many TCP connections of each family.
    pub(crate) fn open(&self, connections: usize) -> Result<Connections> {
        let plan = Plan { timeout: PATIENCE, ..Plan::tcp(connections) };
        let sets = Family::BOTH.iter().map(|family| Flows::open(self.client(), family.service(), &plan));
        let opened = Connections(sets.collect::<Result<_>>()?);
        ensure!(opened.broken().next().is_none(), "not opened: {:?}", opened.broken().next());
        Ok(opened)
    }

    /// The same words for all load balancers, one after the other.
    pub(crate) fn everywhere(&self, words: &[&str]) -> Result<()> {
        self.load_balancers.iter().try_for_each(|daemon| daemon.ask(words).map(drop))
    }

    /// `backend add` of the backend with this number.
    pub(crate) fn words_to_add(&self, number: usize) -> [String; 7] {
        let (address, weight) = (self.address(number).to_string(), Pool::WEIGHT.to_string());
        ["backend", "add", &address, "--pool", Pool::NAME, "--weight", &weight].map(str::to_owned)
    }

    /// `backend add` of the backend with this number on all load balancers.
    pub(crate) fn add_everywhere(&self, number: usize) -> Result<()> {
        let words = self.words_to_add(number);
        self.everywhere(&words.each_ref().map(String::as_str))
    }

    pub(crate) fn remove_everywhere(&self, number: usize) -> Result<()> {
        self.everywhere(&["backend", "remove", &self.address(number).to_string()])
    }

    /// Packets that the agents sent on along their chain, so far.
    pub(crate) fn second_chances(&self) -> Result<u64> {
        let of_agent = |agent: &Daemon| {
            let reasons = Reasons::of_agent(agent)?;
            let causes = ["no_socket", "half_open", "time_wait"];
            causes.iter().map(|cause| reasons.packets(&format!("second_chance_{cause}"))).sum::<Result<u64>>()
        };
        self.agents.iter().map(of_agent).sum()
    }

    /// Neither by an agent nor by a load balancer.
    pub(crate) fn ensure_nothing_dropped(&self) -> Result<()> {
        self.ensure_agents_dropped_nothing()?;
        let mut balancers = self.load_balancers.iter().map(Reasons::of_load_balancer);
        balancers.try_for_each(|reasons| reasons?.ensure_nothing_dropped())
    }

    pub(crate) fn ensure_agents_dropped_nothing(&self) -> Result<()> {
        let mut agents = self.agents.iter().map(Reasons::of_agent);
        agents.try_for_each(|reasons| reasons?.ensure_nothing_dropped())
    }

    /// Waits until no load balancer prepares a change any more.
    pub(crate) fn wait_for_commits(&self) -> Result<()> {
        until("every load balancer has committed", PATIENCE, || {
            let all = self.load_balancers.iter().map(prepares).collect::<Result<Vec<_>>>()?;
            Ok(!all.contains(&true))
        })
    }

    /// What all load balancers' tables have under this key, each value once.
    pub(crate) fn digests(&self, key: &str) -> Result<BTreeSet<String>> {
        let digest = |daemon| {
            let table = table(daemon)?;
            let digest = table[key].as_str().with_context(|| format!("no {key} in {table}"))?;
            ensure!(digest.len() == 16 && digest != "0000000000000000", "no digest: {digest}");
            Ok(digest.to_owned())
        };
        self.load_balancers.iter().map(digest).collect()
    }

    pub(crate) fn ensure_interchangeable(&self) -> Result<()> {
        for key in ["owners_digest", "chains_digest"] {
            let digests = self.digests(key)?;
            ensure!(digests.len() == 1, "the load balancers differ in {key}: {digests:?}");
        }
        Ok(())
    }

    /// New connections live, and each is at the backend that the forecast gives.
    pub(crate) fn ensure_new_ones_go_as_foretold(&self, forecast: &Forecast) -> Result<()> {
        let opened = self.open(20)?;
        opened.0.iter().try_for_each(|flows| self.ensure_foretold(forecast, Transport::Tcp, flows))
    }
}

pub(crate) fn table(daemon: &Daemon) -> Result<Value> {
    daemon.json(&["table", "show", Pool::NAME])
}

/// Whether a load balancer is between the two phases of a change.
pub(crate) fn prepares(daemon: &Daemon) -> Result<bool> {
    Ok(!table(daemon)?["preparing"].is_null())
}

/// Open TCP connections of both families.
#[derive(Debug)]
pub(crate) struct Connections(pub(crate) Vec<Flows>);

impl Connections {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.0.iter().flat_map(|flows| &flows.0)
    }

    pub(crate) fn broken(&self) -> impl Iterator<Item = &Flow> {
        self.iter().filter(|flow| !flow.lives())
    }

    /// How many a backend answered.
    pub(crate) fn held_by(&self, name: &str) -> usize {
        self.iter().filter(|flow| flow.server.as_deref() == Some(name)).count()
    }

    /// Those whose backend by one forecast is another by the other.
    pub(crate) fn that_move<'a>(
        &'a self,
        before: &'a Forecast,
        after: &'a Forecast,
    ) -> impl Iterator<Item = &'a Flow> {
        let backend =
            |forecast: &Forecast, flow: &Flow| forecast.backend(Transport::Tcp, flow.local, flow.remote);
        self.iter().filter(move |flow| backend(before, flow) != backend(after, flow))
    }

    /// A small message and one of many segments on every connection that lives.
    pub(crate) fn exchange(&mut self) {
        for flows in &mut self.0 {
            flows.exchange(32);
            flows.exchange(BULK);
        }
    }

    pub(crate) fn ensure_all_live(&mut self, when: &str) -> Result<()> {
        self.exchange();
        let (broken, all) = (self.broken().count(), self.iter().count());
        ensure!(broken == 0, "{when}: {broken} of {all} broke: {:?}", self.broken().next());
        Ok(())
    }
}
