//! The daemons' own counters, as differences over a test.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lb_tests::bowline::Daemon;
use lb_tests::netns::Netns;
use serde_json::Value;

/// Packets by reason. A reason that the daemon does not list is an error, so a misspelt one is too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reasons(BTreeMap<String, Line>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    verdict: String,
    packets: u64,
}

impl Reasons {
    /// A load balancer's, by its CLI.
    pub(crate) fn of_load_balancer(daemon: &Daemon) -> Result<Self> {
        Self::read(&daemon.json(&["stats", "--reasons"])?)
    }

    /// An agent's, by its API.
    pub(crate) fn of_agent(daemon: &Daemon) -> Result<Self> {
        Self::read(&api(daemon, "/v1/status")?["reasons"])
    }

    fn read(list: &Value) -> Result<Self> {
        let line = |one: &Value| {
            let name = one["reason"].as_str()?.to_owned();
            let verdict = one["verdict"].as_str()?.to_owned();
            Some((name, Line { verdict, packets: one["packets"].as_u64()? }))
        };
        let lines = list.as_array().context("reasons are a list")?;
        ensure!(!lines.is_empty(), "the daemon lists no reason");
        let lines: Option<_> = lines.iter().map(line).collect();
        lines.map(Self).with_context(|| format!("not as documented: {list}"))
    }

    /// What was counted since `before`.
    pub(crate) fn since(mut self, before: &Self) -> Self {
        for (name, line) in &mut self.0 {
            line.packets -= before.0.get(name).map_or(0, |before| before.packets);
        }
        self
    }

    pub(crate) fn packets(&self, reason: &str) -> Result<u64> {
        let line = self.0.get(reason).with_context(|| format!("the daemon knows no reason {reason}"))?;
        Ok(line.packets)
    }

    /// Packets that an agent gave to its host's stack, for whatever cause.
    pub(crate) fn accepted(&self) -> u64 {
        let into_stack = |name: &str| name.starts_with("accepted") || name.starts_with("end_of_chain");
        self.0.iter().filter(|(name, _)| into_stack(name)).map(|(_, line)| line.packets).sum()
    }

    /// Those with this verdict that happened.
    pub(crate) fn with_verdict(&self, verdict: &str) -> BTreeMap<&str, u64> {
        let lines = self.0.iter().filter(|(_, line)| line.verdict == verdict && line.packets > 0);
        lines.map(|(name, line)| (name.as_str(), line.packets)).collect()
    }

    pub(crate) fn ensure_nothing_dropped(&self) -> Result<()> {
        let drops = self.with_verdict("drop");
        ensure!(drops.is_empty(), "packets were dropped: {drops:?}");
        Ok(())
    }
}

/// GET of a path of a daemon's API, with a client that nobody here wrote.
pub(crate) fn api(daemon: &Daemon, path: &str) -> Result<Value> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail", "--max-time", "5", "--unix-socket"]);
    curl.arg(daemon.socket()).arg(format!("http://localhost{path}"));
    let body = daemon.host().netns.check(&mut curl)?;
    serde_json::from_str(&body).with_context(|| format!("{path} gave no JSON: {body}"))
}

/// One of the kernel's counters of a namespace, such as `Ip InAddrErrors` or `Ip6InAddrErrors`.
pub(crate) fn kernel(netns: &Netns, name: &str) -> Result<u64> {
    let read = |file: &str| {
        let path = format!("/proc/thread-self/net/{file}");
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let texts = netns.run(|| ["snmp", "netstat", "snmp6"].map(read))?;
    for text in texts {
        let text = text?;
        if let Some(value) = of_pairs(&text, name).or_else(|| of_lines(&text, name)) {
            return value.parse().with_context(|| format!("the kernel's counter {name}"));
        }
    }
    bail!("the kernel has no counter {name}");
}

/// `Ip: Forwarding DefaultTTL ...` over `Ip: 1 64 ...`.
fn of_pairs<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (group, name) = name.split_once(' ')?;
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks_exact(2).find_map(|pair| {
        let [names, values] = *pair else { return None };
        let at =
            names.strip_prefix(group)?.strip_prefix(':')?.split_whitespace().position(|one| one == name)?;
        values.split_whitespace().nth(at + 1)
    })
}

/// `Ip6InReceives    12`
fn of_lines<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(' ')?.trim()))
}
