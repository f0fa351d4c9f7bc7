//! The control commands against a living API: the daemon's own engine and server, with a datapath in memory.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lb_userspace::api::routes::{Context, router};
use lb_userspace::api::server::Server;
use lb_userspace::config::check;
use lb_userspace::engine::memory::MemoryDataplane;
use lb_userspace::engine::paths::{Path as NextHop, PathState, Paths};
use lb_userspace::engine::{Command as Ask, Engine, Start};
use lb_userspace::state::{HistoryFiles, Overlay, OverlayFile};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const CONFIG: &str = r#"
[lb]
interfaces = ["eth0"]
tunnel_sources = ["10.8.0.0/16"]

[[pool]]
name = "web"
rows = 4096

[[pool.backend]]
address = "10.8.11.2"

[[pool.backend]]
address = "10.8.12.2"
weight = 3

[[pool]]
name = "dns"
rows = 4096

[[pool.backend]]
address = "10.8.12.2"

[[vip]]
name = "web4"
address = "203.0.113.10"
port = 80
pool = "web"
"#;

/// Serves until it is dropped.
struct Daemon {
    directory: TempDir,
    commands: mpsc::Sender<Ask>,
    _runtime: Runtime,
}

impl Daemon {
    /// Changes of membership are in force at once.
    fn start() -> Self {
        Self::start_with(Duration::ZERO)
    }

    fn start_with(commit_delay: Duration) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = check(CONFIG, Path::new("b.toml")).expect("a fine file");
        let start = Start {
            base: config.model,
            overlay: Overlay::default(),
            overlay_file: OverlayFile::in_directory(directory.path()),
            histories: BTreeMap::new(),
            history_files: HistoryFiles::in_directory(directory.path()),
            commit_delay,
            interfaces: Vec::new(),
        };
        let engine = Engine::new(start, Box::new(MemoryDataplane::default())).expect("starts");
        let (commands, queue) = mpsc::channel(8);
        engine.spawn(queue).expect("a thread");
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::bind(&directory.path().join("b.sock"))).expect("binds");
        let context = Context {
            commands: commands.clone(),
            settings: Arc::new(config.lb.expect("an [lb] section")),
            config_file: "b.toml".into(),
            started: Instant::now(),
        };
        runtime.spawn(server.serve(router(context), std::future::pending()));
        Self { directory, commands, _runtime: runtime }
    }

    /// Tells the engine that these backends, and no others, can be reached.
    fn reach(&self, addresses: &[&str]) {
        let up = PathState::Up(NextHop {
            ifindex: 2,
            interface: "eth0".to_owned(),
            next_hop: "10.8.1.1".parse().expect("an address"),
            mac: [2, 0, 0, 0, 0, 1],
            source_mac: [2, 0, 0, 0, 0, 2],
            mtu: 1600,
            source: "10.8.1.2".parse().expect("an address"),
        });
        let address = |text: &&str| text.parse::<IpAddr>().expect("an address");
        let paths: Paths = addresses.iter().map(|text| (address(text), up.clone())).collect();
        self.commands.blocking_send(Ask::NextHopsChanged(paths)).expect("the engine listens");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_bowline"))
            .args(arguments)
            .env("BOWLINE_SOCKET", self.directory.path().join("b.sock"))
            .stdin(Stdio::null())
            .output()
            .expect("bowline runs")
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
        assert_eq!(told, "", "{arguments:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Standard error of a command that must be refused.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(output.stdout, b"", "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[&["-j"], arguments].concat())).expect("JSON")
    }
}

/// The words of the line that begins with these words.
fn words<'a>(text: &'a str, beginning: &[&str]) -> Vec<&'a str> {
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.starts_with(beginning));
    assert!(line.is_some(), "{beginning:?} in:\n{text}");
    line.unwrap_or_default()
}

#[test]
fn a_new_member_needs_a_pool_where_there_are_several() {
    let daemon = Daemon::start();
    for arguments in [
        &["backend", "add", "10.8.13.2"][..],
        &["plan", "backend", "add", "10.8.13.2"],
        &["vip", "add", "more", "203.0.113.11:80/tcp"],
    ] {
        let output = daemon.run(arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains("web") && told.contains("--pool"), "{told}");
    }
}

#[test]
fn a_backend_is_added_weighted_drained_and_removed() {
    let daemon = Daemon::start();
    let added = daemon.ok(&["backend", "add", "10.8.13.2", "--pool", "web", "--weight", "4"]);
    assert!(added.contains("10.8.13.2 added to pool web") && added.contains("of 4096 rows moved"), "{added}");
    let weighted = daemon.ok(&["backend", "weight", "10.8.13.2", "2"]);
    assert!(weighted.contains("weight 2 (was 4)"), "{weighted}");
    let drained = daemon.ok(&["backend", "drain", "10.8.13.2"]);
    assert!(drained.contains("drain (was ready)") && !drained.contains("moved"), "{drained}");
    let again = daemon.ok(&["backend", "drain", "10.8.13.2"]);
    assert!(again.contains("it was so already"), "{again}");
    let list = daemon.ok(&["backend", "list"]);
    assert_eq!(words(&list, &["web", "10.8.13.2"])[2..4], ["2", "drain"]);
    assert_eq!(daemon.ok(&["-q", "backend", "remove", "10.8.13.2"]), "");
    // Its old flows are there still.
    let list = daemon.ok(&["backend"]);
    assert_eq!(words(&list, &["web", "10.8.13.2"])[2..4], ["0", "leaving"]);
    let shown = daemon.json(&["backend", "show", "10.8.13.2"]);
    assert_eq!((&shown["leaving"], &shown["pool"]), (&true.into(), &"web".into()));
    let told = daemon.refused(&["backend", "ready", "10.8.13.2"]);
    assert!(told.contains("10.8.13.2"), "{told}");
    let again = daemon.ok(&["backend", "add", "10.8.13.2", "--pool", "web"]);
    assert!(again.contains("of 4096 rows moved"), "{again}");
    assert_eq!(daemon.json(&["backend", "show", "10.8.13.2"])["leaving"], false);
}

#[test]
fn a_change_of_membership_is_prepared_then_committed_and_what_comes_meanwhile_waits() {
    let daemon = Daemon::start_with(Duration::from_secs(20));
    let before = daemon.json(&["table", "show", "web"]);
    assert_eq!((&before["epoch"], before.get("preparing")), (&1.into(), None));
    let added = daemon.ok(&["backend", "add", "10.8.13.2", "--pool", "web", "--weight", "4"]);
    assert!(added.contains("of 4096 rows move (") && added.contains(" in 20s"), "{added}");
    let prepared = daemon.json(&["table", "show", "web"]);
    assert_eq!((&prepared["epoch"], &prepared["preparing"]["epoch"]), (&1.into(), &2.into()));
    assert_eq!(prepared["owners_digest"], before["owners_digest"]);
    assert_ne!(prepared["chains_digest"], before["chains_digest"]);
    let rows = |table: &Value| table["backends"][2]["rows"].clone();
    assert_eq!(rows(&prepared), 0, "no new flow goes to it yet");
    let text = daemon.ok(&["table", "show", "web"]);
    let phase = words(&text, &["phase"]).join(" ");
    assert!(
        phase.starts_with("phase epoch 2 prepared, commit in ") && phase.ends_with("rows move"),
        "{phase}"
    );
    assert!(words(&text, &["rows"]).join(" ").contains("in chains of 3"), "{text}");
    // A drain acts at once; a second change of membership waits.
    let drained = daemon.ok(&["backend", "drain", "10.8.11.2"]);
    assert!(!drained.contains("rows move") && !drained.contains("waits"), "{drained}");
    let weighted = daemon.ok(&["backend", "weight", "10.8.13.2", "1"]);
    assert!(
        weighted.contains("it waits for the change before it") && !weighted.contains("rows"),
        "{weighted}"
    );
    let queued = daemon.json(&["table", "show", "web"]);
    assert_eq!(queued["preparing"]["queued"], true);
    assert_eq!(queued["chains_digest"], prepared["chains_digest"]);
}

#[test]
fn a_plan_says_what_the_change_then_does_and_changes_nothing() {
    let daemon = Daemon::start();
    let before = daemon.json(&["table", "show", "web"]);
    let plan = daemon.json(&["plan", "backend", "add", "10.8.13.2", "--pool", "web", "--weight", "4"]);
    let text = daemon.ok(&["plan", "backend", "add", "10.8.13.2", "--pool", "web", "--weight", "4"]);
    assert!(text.contains(&format!("{} of 4096 rows", plan["moved_rows"])), "{text}");
    assert_eq!(daemon.json(&["table", "show", "web"])["chains_digest"], before["chains_digest"]);
    daemon.reach(&["10.8.11.2", "10.8.12.2"]);
    assert_eq!(daemon.json(&["status"])["stored_changes"], 0);
    let added = daemon.json(&["backend", "add", "10.8.13.2", "--pool", "web", "--weight", "4"]);
    assert_eq!(added["tables"][0]["moved_rows"], plan["moved_rows"]);
    let after = daemon.json(&["table", "show", "web"]);
    for (planned, made) in plan["backends"].as_array().expect("a list").iter().zip([0, 1, 2]) {
        assert_eq!(planned["rows_after"], after["backends"][made]["rows"]);
    }
    assert_eq!((&plan["full_rows"], &plan["queued"]), (&0.into(), &false.into()));
    // What the change would refuse, the plan refuses.
    let told = daemon.refused(&["plan", "backend", "remove", "10.8.12.2", "--pool", "dns"]);
    assert!(told.contains("last one of pool dns"), "{told}");
    assert!(daemon.refused(&["plan", "backend", "weight", "10.8.99.2", "3"]).contains("10.8.99.2"));
}

#[test]
fn a_plan_counts_the_rows_that_have_no_room() {
    let daemon = Daemon::start();
    for last in 13..17 {
        let address = format!("10.8.{last}.2");
        daemon.ok(&["backend", "add", &address, "--pool", "web"]);
        daemon.ok(&["backend", "weight", &address, "40"]);
    }
    let plan = daemon.json(&["plan", "backend", "add", "10.8.17.2", "--pool", "web", "--weight", "90"]);
    let full = plan["full_rows"].as_u64().expect("a number");
    assert!(full > 0 && full <= plan["rows"].as_u64().expect("a number"), "{plan}");
    let fallen = |row: &Value| row["pushed_out_rows"].as_u64().expect("a number");
    let fallen: u64 = plan["backends"].as_array().expect("a list").iter().map(fallen).sum();
    assert!(fallen >= full, "{plan}");
}

#[test]
fn an_ambiguous_address_is_refused_until_the_pool_is_named() {
    let daemon = Daemon::start();
    let told = daemon.refused(&["backend", "maint", "10.8.12.2"]);
    assert!(told.contains("in several pools: dns, web") && told.contains("--pool dns"), "{told}");
    daemon.ok(&["backend", "maint", "10.8.12.2", "--pool", "web"]);
    let backends = daemon.json(&["backend", "list"]);
    let state = |pool: &str| {
        let list = backends.as_array().expect("a list");
        let one =
            list.iter().find(|one| one["pool"] == pool && one["address"] == "10.8.12.2").expect("there");
        one["state"].clone()
    };
    assert_eq!((state("web"), state("dns")), ("maint".into(), "ready".into()));
}

#[test]
fn the_last_backend_is_not_removed_and_the_hint_says_what_to_do() {
    let daemon = Daemon::start();
    let told = daemon.refused(&["backend", "remove", "10.8.12.2", "--pool", "dns"]);
    assert!(told.contains("last one of pool dns") && told.contains("hint: remove the VIP first"), "{told}");
}

#[test]
fn a_vip_is_added_shown_and_removed() {
    let daemon = Daemon::start();
    daemon.ok(&["vip", "add", "dns6", "[2001:db8::1]:53/udp", "--pool", "dns"]);
    assert_eq!(words(&daemon.ok(&["vip", "list"]), &["dns6"])[1..], ["[2001:db8::1]:53/udp", "dns", "1/1"]);
    assert!(daemon.ok(&["vip", "show", "dns6"]).contains("[2001:db8::1]:53/udp"));
    daemon.ok(&["vip", "remove", "dns6"]);
    let told = daemon.refused(&["vip", "show", "dns6"]);
    assert!(told.contains("there is no VIP dns6"), "{told}");
}

#[test]
fn the_status_is_degraded_until_every_backend_is_reachable() {
    let daemon = Daemon::start();
    daemon.reach(&["10.8.11.2"]);
    let output = daemon.run(&["status"]);
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(words(&text, &["status"])[1], "degraded");
    assert!(text.contains("backend 10.8.12.2: no next hop yet"), "{text}");
    daemon.reach(&["10.8.11.2", "10.8.12.2"]);
    let text = daemon.ok(&["status"]);
    assert_eq!(words(&text, &["status"])[1], "healthy");
    assert_eq!(words(&text, &["next", "hops"])[2..5], ["3", "of", "3"]);
    assert_eq!(daemon.json(&["status"])["healthy"], true);
    let wide = daemon.ok(&["-o", "wide", "backend", "list"]);
    assert!(wide.contains("02:00:00:00:00:01") && wide.contains("1600"), "{wide}");
}

#[test]
fn the_table_shows_the_balance_and_json_says_the_same() {
    let daemon = Daemon::start();
    let text = daemon.ok(&["table", "show", "web"]);
    let table = daemon.json(&["table", "show", "web"]);
    assert_eq!(words(&text, &["owners", "digest"])[2], table["owners_digest"]);
    assert_eq!(words(&text, &["rows"])[1], "4096");
    for row in table["backends"].as_array().expect("a list") {
        let address = row["address"].as_str().expect("an address");
        assert_eq!(words(&text, &[address])[2], row["rows"].to_string());
    }
    let both = daemon.ok(&["table", "show"]);
    assert!(both.contains("web") && both.contains("dns"), "{both}");
    assert!(daemon.refused(&["table", "show", "wbe"]).contains("did you mean web?"));
}

#[test]
fn the_shown_configuration_has_the_changes_and_checks() {
    let daemon = Daemon::start();
    daemon.ok(&["backend", "weight", "10.8.11.2", "77"]);
    let text = daemon.ok(&["config", "show"]);
    assert!(text.contains("weight = 77"), "{text}");
    let config = check(&text, Path::new("shown.toml")).expect("it reads back");
    assert_eq!(config.model.vips().len(), 1);
    assert_eq!(daemon.json(&["config", "show"])["pools"].as_array().map(Vec::len), Some(2));
}

#[test]
fn statistics_have_their_parts_and_json_lines_are_one_per_element() {
    let daemon = Daemon::start();
    assert!(daemon.ok(&["stats"]).contains("no packet yet"));
    assert!(daemon.json(&["stats"])["reasons"].is_array());
    assert!(daemon.json(&["stats", "--reasons"]).is_array());
    let lines = daemon.ok(&["-o", "jsonl", "backend", "list"]);
    assert_eq!(lines.lines().count(), 3);
    for line in lines.lines() {
        serde_json::from_str::<Value>(line).expect("JSON");
    }
}

#[test]
fn colour_is_for_those_who_ask() {
    let daemon = Daemon::start();
    daemon.reach(&["10.8.11.2", "10.8.12.2"]);
    assert!(!daemon.ok(&["status"]).contains('\x1b'));
    assert!(daemon.ok(&["--color", "always", "status"]).contains('\x1b'));
    assert!(!daemon.ok(&["--color", "never", "status"]).contains('\x1b'));
}
