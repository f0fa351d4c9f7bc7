//! The lab that `cargo xtask lab` leaves up: a keeper process in the background holds the topology, the daemons
//! and the echo servers. When it ends, in whatever way, its lab is removed, like any other.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};

use crate::bowline::{Daemon, LbConfig, Pool, binary};
use crate::lab::{self, INTERACTIVE_PREFIX, Lab, RUN_DIR};
use crate::netns::NETNS_DIR;
use crate::plan::{Family, VIP4, VIP6};
use crate::router::RouterHash;
use crate::topology::{Size, Topology};
use crate::traffic::EchoServer;

/// The word by which the lab's program becomes the keeper.
pub const KEEP: &str = "keep";

const SIZE: Size = Size { load_balancers: 2, backends: 4 };
/// One backend is left for the person to add.
const POOL_SIZE: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the keeper, waits until its lab is complete, and returns what to tell the person.
pub fn up() -> Result<String> {
    lab::require_root()?;
    if let Some(pid) = keeper()? {
        bail!("the lab is up already (process {pid}); remove it with `cargo xtask lab --down`");
    }
    // Asked here and not first by the keeper, whose words would only be in the log.
    let bowline = binary()?;
    fs::create_dir_all(RUN_DIR).with_context(|| format!("cannot create {RUN_DIR}"))?;
    let log = File::create(log_file()).with_context(|| format!("cannot create {}", log_file().display()))?;
    let errors = log.try_clone().context("cannot duplicate the log's descriptor")?;
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let mut keeper = Command::new(own)
        .arg(KEEP)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .context("cannot start the keeper of the lab")?;
    fs::write(pid_file(), keeper.id().to_string()).context("cannot record the keeper's pid")?;
    wait_until_complete(&mut keeper)?;
    instructions(&bowline.display().to_string())
}

/// Ends the keeper and removes its lab. Without a lab there is nothing to do, and that is fine.
pub fn down() -> Result<String> {
    lab::require_root()?;
    let keeper = keeper()?;
    if let Some(pid) = keeper {
        kill(Pid::from_raw(pid), Signal::SIGTERM)
            .with_context(|| format!("cannot end the keeper, process {pid}"))?;
        let deadline = Instant::now() + PATIENCE;
        while lab::runs(pid.unsigned_abs()) {
            if Instant::now() > deadline {
                bail!("the keeper, process {pid}, does not end");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    lab::remove(INTERACTIVE_PREFIX)?;
    for file in [pid_file(), log_file()] {
        if file.exists() {
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
    }
    Ok(if keeper.is_some() { "The lab is removed.\n" } else { "There was no lab.\n" }.to_owned())
}

/// The keeper: builds the lab and holds it until a signal ends the process.
pub fn keep() -> Result<()> {
    setsid().context("cannot leave the terminal's session")?;
    let topology = Topology::build(Lab::with_prefix(INTERACTIVE_PREFIX)?, SIZE)?;
    let agents =
        topology.backends.iter().map(|host| Daemon::agent(&topology, host)).collect::<Result<Vec<_>>>()?;
    let services = Family::BOTH.map(Family::service);
    let servers = topology
        .backends
        .iter()
        .map(|host| EchoServer::start(&host.netns, host.name(), &services))
        .collect::<Result<Vec<_>>>()?;
    let mut config = LbConfig::new(&topology, Pool::of(&topology.backends[..POOL_SIZE]));
    config.protocols = vec!["tcp", "udp"];
    let mut load_balancers = Vec::new();
    for host in &topology.load_balancers {
        let mut daemon = Daemon::load_balancer(&topology, host, &config)?;
        daemon.wait_until_healthy()?;
        load_balancers.push(daemon);
    }
    topology.route_vips(
        RouterHash::EcnSensitive,
        &topology.load_balancers[0],
        &topology.load_balancers[1],
    )?;
    fs::write(ready_file(), "").context("cannot tell that the lab is complete")?;
    let held = (agents, servers, load_balancers);
    loop {
        thread::park();
        // park(9) may return without a reason.
        std::hint::black_box(&held);
    }
}

fn wait_until_complete(keeper: &mut Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !ready_file().exists() {
        let log = || fs::read_to_string(log_file()).unwrap_or_default();
        if let Some(status) = keeper.try_wait().context("cannot ask after the keeper")? {
            bail!("the lab did not come up ({status}):\n{}", log().trim());
        }
        if Instant::now() > deadline {
            keeper.kill().context("cannot end the keeper")?;
            keeper.wait().context("cannot reap the keeper")?;
            bail!("the lab did not come up within {PATIENCE:?}:\n{}", log().trim());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The pid of the running keeper. A recorded pid that another program got since is not one.
fn keeper() -> Result<Option<i32>> {
    let Ok(text) = fs::read_to_string(pid_file()) else {
        return Ok(None);
    };
    let pid: i32 = text.trim().parse().with_context(|| format!("{} holds no pid", pid_file().display()))?;
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_keeper = words.split(|&byte| byte == 0).nth(1) == Some(KEEP.as_bytes());
    Ok((is_keeper && lab::runs(pid.unsigned_abs())).then_some(pid))
}

fn instructions(bowline: &str) -> Result<String> {
    let enter = |host: &str| format!("nsenter --net={NETNS_DIR}/{INTERACTIVE_PREFIX}{host}");
    let run_dir = lab::run_dir(INTERACTIVE_PREFIX);
    let socket = |host: &str| run_dir.join(host).join("bowline.sock").display().to_string();
    let mut text = String::new();
    writeln!(
        text,
        "The lab is up: client - router (ECN-sensitive) - lb1, lb2 - b1, b2, b3 in the pool, b4 beside it.\n"
    )?;
    writeln!(text, "Connect as a client; the answer is the backend's name:")?;
    writeln!(text, "  {} curl -s http://{VIP4}/", enter("client"))?;
    writeln!(text, "  {} curl -s 'http://[{VIP6}]/'\n", enter("client"))?;
    writeln!(text, "Ask and change the load balancers (change both, they are a fleet):")?;
    writeln!(text, "  {bowline} --socket {} status", socket("lb1"))?;
    writeln!(text, "  {bowline} --socket {} backend list", socket("lb2"))?;
    writeln!(
        text,
        "  for n in 1 2; do {bowline} --socket {} backend add 10.8.14.2 --pool web --weight 10; done\n",
        socket("lb$n")
    )?;
    writeln!(
        text,
        "Look at the packets (on the router: what XDP transmits is not visible on a load balancer):"
    )?;
    writeln!(text, "  {} tcpdump -vni l1", enter("router"))?;
    writeln!(text, "Enter a host with a shell:")?;
    writeln!(text, "  {} bash\n", enter("lb1"))?;
    writeln!(text, "Configurations and logs: {}/<host>/", run_dir.display())?;
    writeln!(text, "Remove everything: cargo xtask lab --down")?;
    Ok(text)
}

fn pid_file() -> PathBuf {
    PathBuf::from(RUN_DIR).join("lab.pid")
}

fn log_file() -> PathBuf {
    PathBuf::from(RUN_DIR).join("lab.log")
}

fn ready_file() -> PathBuf {
    lab::run_dir(INTERACTIVE_PREFIX).join("complete")
}
