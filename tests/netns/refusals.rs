//! Starts that must fail, with a reason, without harm to what runs; and ends that leave nothing behind.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::{Xdp, XdpMode};
use lb_tests::bowline::{Daemon, binary};
use lb_tests::forecast::Forecast;
use lb_tests::netns::Netns;
use lb_tests::plan::{Family, VIP4, VIP6};
use lb_tests::topology::{Host, Size, Topology};
use lb_tests::traffic::{Plan, Transport, run_connections};
use lb_userspace::dataplane::object::PASS;

use crate::fleet::{Fleet, Wish};

/// Seconds. A daemon that should have refused to start is ended by `timeout`, with this exit status.
const LIMIT: &str = "10";
const STILL_RAN: i32 = 124;

/// uid and gid of nobody.
const NOBODY: &str = "65534";

#[test]
fn a_second_daemon_with_the_same_socket_is_refused_and_the_first_goes_on() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let (pid, host) = (fleet.lb().json(&["status"])?["pid"].to_string(), fleet.lb().host());
    let said = refused(&host.netns, &["run"], &fleet.lb().config_file())?;
    ensure!(said.contains(&format!("(pid {pid})")) && said.contains("bowline.sock"), "{said}");
    goes_on(&fleet)
}

#[test]
fn a_second_daemon_on_the_same_interface_is_refused_and_told_who_holds_it() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let (pid, host) = (fleet.lb().json(&["status"])?["pid"].to_string(), fleet.lb().host());
    for mode in ["auto", "native", "generic"] {
        // Its socket and state are its own: the interface is all that the two share.
        let other =
            edited(&fleet.lb().config_file(), &[("bowline.sock", "other.sock"), ("/state", "/other-state")])?;
        let other = edited(&other, &[("\"auto\"", &format!("\"{mode}\""))])?;
        let said = refused(&host.netns, &["run"], &other)?;
        ensure!(said.contains("eth0") && said.contains(&format!("pid {pid}")), "{mode}: {said}");
        ensure!(!other.with_file_name("other.sock").exists(), "{mode}: its socket is left behind");
    }
    goes_on(&fleet)
}

#[test]
fn another_xdp_program_on_the_interface_is_respected() -> Result<()> {
    let topology = Topology::with_size(Size { load_balancers: 1, backends: 1 })?;
    let host = &topology.load_balancers[0];
    let config = config_without_daemon(&topology, host)?;
    // Kept until the end: dropping it detaches the program.
    let holder = host.netns.run(|| attach_pass("eth0"))??;
    for mode in ["auto", "native", "generic"] {
        let config = edited(&config, &[("\"auto\"", &format!("\"{mode}\""))])?;
        let said = refused(&host.netns, &["run"], &config)?;
        ensure!(said.contains("eth0") && said.contains("XDP program"), "{mode}: {said}");
    }
    let link = host.netns.check(Command::new("ip").args(["link", "show", "dev", "eth0"]))?;
    ensure!(link.contains("prog/xdp"), "the other program is gone: {link}");
    drop(holder);
    let mut daemon = Daemon::load_balancer(&topology, host, &lb_config(&topology))?;
    daemon.wait_until_healthy()
}

#[test]
fn a_daemon_for_an_interface_that_does_not_exist_names_it() -> Result<()> {
    let topology = Topology::with_size(Size { load_balancers: 1, backends: 1 })?;
    let host = &topology.load_balancers[0];
    let config = edited(&config_without_daemon(&topology, host)?, &[("\"eth0\"", "\"eth7\"")])?;
    let said = refused(&host.netns, &["run"], &config)?;
    ensure!(said.contains("eth7") && said.contains("ip link"), "{said}");

    let agent = agent_config(&topology, &topology.backends[0], "eth7")?;
    let said = refused(&topology.backends[0].netns, &["agent"], &agent)?;
    ensure!(said.contains("eth7") && said.contains("ip link"), "{said}");
    ensure!(!topology.backends[0].holds_vips()?, "an agent that did not start left VIPs on lo");
    Ok(())
}

#[test]
fn a_daemon_without_privileges_says_which_it_needs() -> Result<()> {
    let topology = Topology::with_size(Size { load_balancers: 1, backends: 1 })?;
    let host = &topology.load_balancers[0];
    // A folder that nobody may write to and read from, with the binary: the target folder may be closed to others.
    let folder = topology.lab.run_dir().join("nobody");
    fs::create_dir(&folder)?;
    let uid = NOBODY.parse()?;
    std::os::unix::fs::chown(&folder, Some(uid), Some(uid))?;
    let program = folder.join("bowline");
    fs::copy(binary()?, &program)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let config = folder.join("bowline.toml");
    let text = fs::read_to_string(config_without_daemon(&topology, host)?)?;
    let own = text.replace(&*host_folder(&topology, host).to_string_lossy(), &folder.to_string_lossy());
    fs::write(&config, own)?;

    let said = refused_as_nobody(&host.netns, &program, &["run"], &config)?;
    ensure!(said.contains("CAP_BPF") || said.contains("root"), "{said}");
    // With a socket where nobody may not write, it is the socket that is named.
    fs::write(&config, text)?;
    let said = refused_as_nobody(&host.netns, &program, &["run"], &config)?;
    ensure!(said.contains("bowline.sock") && said.contains("ermission denied"), "{said}");
    Ok(())
}

#[test]
fn a_question_without_privileges_says_so() -> Result<()> {
    let fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let program = fleet.topology.lab.run_dir().join("bowline");
    fs::copy(binary()?, &program)?;
    let mut command = as_nobody(&program);
    command.args(["status", "--socket"]).arg(fleet.lb().socket());
    let output = fleet.client().output(&mut command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "{}: {said}", output.status);
    ensure!(said.contains("permission") && said.contains("bowline.sock"), "{said}");
    Ok(())
}

#[test]
fn a_missing_configuration_is_named() -> Result<()> {
    let topology = Topology::with_size(Size { load_balancers: 1, backends: 0 })?;
    let missing = topology.lab.run_dir().join("missing.toml");
    for words in [&["run"][..], &["agent"], &["config", "check"]] {
        let said = refused(&topology.load_balancers[0].netns, words, &missing)?;
        ensure!(said.contains("missing.toml"), "{words:?}: {said}");
    }
    Ok(())
}

#[test]
fn every_error_of_a_configuration_is_told_at_once_with_its_line() -> Result<()> {
    let topology = Topology::with_size(Size { load_balancers: 1, backends: 1 })?;
    let host = &topology.load_balancers[0];
    let file = topology.lab.run_dir().join("wrong.toml");
    // The word that the message must have stands at the end of each wrong line.
    let text = r#"[lb]
interfaces = ["eth0"]
tunnel_sources = ["10.8.1.0/24", "10.8.11.0/24"]
colour = "blue" # colour
[[pool]]
name = "web"
encapsulation = "ipip"
agent = true # ipip
[[pool.backend]]
address = "10.8.11.2"
weight = 0 # weight
[[pool.backend]]
address = "10.8.11.2.3" # 10.8.11.2.3
[[pool]]
name = "web" # web
[[vip]]
name = "one"
address = "203.0.113.10"
port = 80
pool = "wep" # wep
[[vip]]
name = "one" # one
address = "203.0.113.11"
port = 80
pool = "web"
"#;
    fs::write(&file, text)?;
    for words in [&["run"][..], &["config", "check"]] {
        let said = refused(&host.netns, words, &file)?;
        for (number, line) in (1..).zip(text.lines()) {
            let Some((_, word)) = line.split_once(" # ") else { continue };
            let place = format!("wrong.toml:{number}:");
            let told = said.lines().any(|line| line.contains(&place) && line.contains(word));
            ensure!(told, "{words:?}: nothing about `{word}` at {place} in:\n{said}");
        }
    }
    let link = host.netns.check(Command::new("ip").args(["link", "show", "dev", "eth0"]))?;
    ensure!(!link.contains("xdp"), "a refused daemon left its program: {link}");
    Ok(())
}

#[test]
fn a_daemon_that_is_asked_to_end_takes_its_program_and_socket_along() -> Result<()> {
    let mut fleet = Fleet::start(Wish { backends: 1, in_pool: 1, ..Wish::default() })?;
    let lb = fleet.topology.load_balancers[0].netns.clone();
    let link = || lb.check(Command::new("ip").args(["link", "show", "dev", "eth0"]));
    ensure!(link()?.contains("xdp"), "no program while the daemon runs: {}", link()?);
    let daemon = fleet.load_balancers.remove(0);
    let socket = daemon.socket();
    let ended = daemon.into_process().stop()?;
    ensure!(ended.code() == Some(0), "SIGTERM ended it with {ended}");
    ensure!(!link()?.contains("xdp"), "its program is still there: {}", link()?);
    ensure!(!socket.exists(), "its socket is still there");
    Ok(())
}

#[test]
fn an_agent_that_ends_removes_the_vips_that_it_put_there_and_only_those() -> Result<()> {
    let topology = Topology::with_size(Size { load_balancers: 0, backends: 1 })?;
    let backend = &topology.backends[0];
    backend
        .netns
        .ip(&[format!("addr add {VIP4}/32 dev lo"), "addr add 198.51.100.1/32 dev lo".to_owned()])?;
    let agent = Daemon::agent(&topology, backend)?;
    let ended = agent.into_process().stop()?;
    ensure!(ended.code() == Some(0), "SIGTERM ended it with {ended}");
    let on_lo = backend.netns.check(Command::new("ip").args(["-o", "addr", "show", "dev", "lo"]))?;
    let has = |address: IpAddr| on_lo.contains(&format!(" {address}/"));
    ensure!(has(VIP4.into()), "it removed a VIP that was there before:\n{on_lo}");
    ensure!(!has(VIP6.into()), "it left the VIP that it had put there:\n{on_lo}");
    ensure!(has([198, 51, 100, 1].into()), "it removed an address that is no VIP:\n{on_lo}");
    Ok(())
}

/// The first daemon still forwards.
fn goes_on(fleet: &Fleet) -> Result<()> {
    let flows = run_connections(fleet.client(), Family::V4.service(), &Plan::tcp(10))?;
    fleet.ensure_foretold(&Forecast::new(fleet.pool(), &[])?, Transport::Tcp, &flows)?;
    ensure!(fleet.lb().cli(&["status"])?.code == 0, "the first daemon is not healthy any more");
    Ok(())
}

/// Runs `bowline` with a configuration that it must refuse with exit status 1; what it said.
fn refused(netns: &Netns, words: &[&str], config: &Path) -> Result<String> {
    let mut command = Command::new("timeout");
    command.arg(LIMIT).arg(binary()?).args(words);
    ends_with_1(netns, with_config(command, words, config))
}

fn refused_as_nobody(netns: &Netns, program: &Path, words: &[&str], config: &Path) -> Result<String> {
    let mut command = as_nobody(program);
    command.args(words);
    ends_with_1(netns, with_config(command, words, config))
}

fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args([LIMIT, "setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(program);
    command
}

/// `config check` takes the file as its argument, the daemons as an option.
fn with_config(mut command: Command, words: &[&str], config: &Path) -> Command {
    if words.first() != Some(&"config") {
        command.arg("--config");
    }
    command.arg(config);
    command
}

fn ends_with_1(netns: &Netns, mut command: Command) -> Result<String> {
    let output = netns.output(&mut command)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() != Some(STILL_RAN), "it ran on instead of refusing: {said}");
    ensure!(output.status.code() == Some(1), "it ended with {}: {said}", output.status);
    Ok(said)
}

/// A copy of a configuration, beside it, with these words replaced; each must be there.
fn edited(config: &Path, changes: &[(&str, &str)]) -> Result<PathBuf> {
    let mut text = fs::read_to_string(config)?;
    for (old, new) in changes {
        ensure!(text.contains(old), "the configuration has no {old}");
        text = text.replace(old, new);
    }
    let copy = config.with_file_name("edited.toml");
    fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
    Ok(copy)
}

fn lb_config(topology: &Topology) -> lb_tests::bowline::LbConfig {
    lb_tests::bowline::LbConfig::new(topology, lb_tests::bowline::Pool::of(&topology.backends))
}

/// The configuration that a daemon of the lab ran with, which has ended.
fn config_without_daemon(topology: &Topology, host: &Host) -> Result<PathBuf> {
    let daemon = Daemon::load_balancer(topology, host, &lb_config(topology))?;
    let config = daemon.config_file();
    daemon.into_process().stop()?;
    Ok(config)
}

fn host_folder(topology: &Topology, host: &Host) -> PathBuf {
    topology.lab.run_dir().join(host.name())
}

fn agent_config(topology: &Topology, host: &Host, interface: &str) -> Result<PathBuf> {
    let daemon = Daemon::agent(topology, host)?;
    let config = daemon.config_file();
    daemon.into_process().stop()?;
    edited(&config, &[("\"eth0\"", &format!("\"{interface}\""))])
}

fn attach_pass(interface: &str) -> Result<Ebpf> {
    let mut loaded = Ebpf::load(PASS)?;
    let program: &mut Xdp = loaded.program_mut("bowline_pass").context("no such program")?.try_into()?;
    program.load()?;
    program.attach(interface, XdpMode::Driver)?;
    Ok(loaded)
}
