//! Bowline's daemons in the lab: started with a configuration of their own, asked through their own CLI.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::netns::{Background, command_line};
use crate::plan::{Family, PORT};
use crate::topology::{Host, Topology};

/// How long a daemon may take to answer, and to be healthy.
const PATIENCE: Duration = Duration::from_secs(15);

/// The pool of the lab, as far as the tests vary it.
#[derive(Clone, Debug)]
pub struct Pool {
    pub seed: u64,
    pub rows: u32,
    /// `gue` or `ipip`.
    pub encapsulation: &'static str,
    pub agent: bool,
    /// Address and weight.
    pub backends: Vec<(IpAddr, u16)>,
}

impl Pool {
    pub const NAME: &'static str = "web";
    pub const WEIGHT: u16 = 10;

    /// GUE with agents, over the IPv4 addresses of these backends, all of the same weight.
    pub fn of(backends: &[Host]) -> Self {
        Self {
            seed: 0x5eed_0f0f_b0a7_1135,
            rows: 65536,
            encapsulation: "gue",
            agent: true,
            backends: backends.iter().map(|host| (host.v4().into(), Self::WEIGHT)).collect(),
        }
    }
}

/// What a load balancer's configuration says. Socket and state directory are the daemon's own.
#[derive(Clone, Debug)]
pub struct LbConfig {
    pub tunnel_sources: Vec<String>,
    /// `auto`, `native` or `generic`.
    pub xdp_mode: &'static str,
    /// Between the two phases of a change. Most tests change things and look at once.
    pub commit_delay: &'static str,
    pub pool: Pool,
    /// `tcp`, `udp`.
    pub protocols: Vec<&'static str>,
}

impl LbConfig {
    /// Both VIPs, TCP, to this pool.
    pub fn new(topology: &Topology, pool: Pool) -> Self {
        let tunnel_sources = topology.tunnel_sources();
        Self { tunnel_sources, xdp_mode: "auto", commit_delay: "0s", pool, protocols: vec!["tcp"] }
    }

    fn text(&self, place: &Place) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "[lb]\ninterfaces = [\"eth0\"]\nxdp_mode = \"{}\"", self.xdp_mode)?;
        writeln!(text, "tunnel_sources = {:?}", self.tunnel_sources)?;
        writeln!(text, "commit_delay = \"{}\"", self.commit_delay)?;
        writeln!(text, "socket = {:?}\nstate_dir = {:?}\n", place.socket(), place.0.join("state"))?;
        let Pool { seed, rows, encapsulation, agent, backends } = &self.pool;
        writeln!(text, "[[pool]]\nname = \"{}\"\nseed = \"{seed:016x}\"\nrows = {rows}", Pool::NAME)?;
        writeln!(text, "encapsulation = \"{encapsulation}\"\nagent = {agent}\n")?;
        for (address, weight) in backends {
            writeln!(text, "[[pool.backend]]\naddress = \"{address}\"\nweight = {weight}\n")?;
        }
        for protocol in &self.protocols {
            for (family, number) in [(Family::V4, 4), (Family::V6, 6)] {
                writeln!(text, "[[vip]]\nname = \"{protocol}{number}\"\naddress = \"{}\"", family.vip())?;
                writeln!(text, "protocol = \"{protocol}\"\nport = {PORT}\npool = \"{}\"\n", Pool::NAME)?;
            }
        }
        Ok(text)
    }
}

/// A daemon that answers on its socket. Dropping it stops it.
#[derive(Debug)]
pub struct Daemon {
    host: Host,
    place: Place,
    process: Background,
}

impl Daemon {
    /// `bowline run` on a load balancer of the lab. Returns once its API answers.
    pub fn load_balancer(topology: &Topology, host: &Host, config: &LbConfig) -> Result<Self> {
        let place = Place::of(topology, host)?;
        let text = config.text(&place)?;
        Self::start("run", host, place, &text)
    }

    /// `bowline agent` on a backend of the lab. Returns once its API answers and the VIPs are on `lo`.
    pub fn agent(topology: &Topology, host: &Host) -> Result<Self> {
        let place = Place::of(topology, host)?;
        let vips: Vec<String> = Family::BOTH.iter().map(|family| family.vip().to_string()).collect();
        let text = format!(
            "[agent]\ninterfaces = [\"eth0\"]\ntunnel_sources = {:?}\nvips = {vips:?}\nsocket = {:?}\n",
            topology.tunnel_sources(),
            place.socket(),
        );
        let mut daemon = Self::start("agent", host, place, &text)?;
        daemon.wait_for("holds the VIPs", |daemon| daemon.host.holds_vips().unwrap_or(false))?;
        Ok(daemon)
    }

    fn start(verb: &str, host: &Host, place: Place, config: &str) -> Result<Self> {
        let file = place.config();
        std::fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = Command::new(binary()?);
        command.arg(verb).arg("--config").arg(&file);
        let process = host.netns.background(&mut command, &place.log())?;
        let mut daemon = Self { host: host.clone(), place, process };
        daemon.wait_for("answers", |daemon| UnixStream::connect(daemon.socket()).is_ok())?;
        Ok(daemon)
    }

    /// Waits until `bowline status` calls the daemon healthy.
    pub fn wait_until_healthy(&mut self) -> Result<()> {
        self.wait_for("is healthy", |daemon| daemon.cli(&["status"]).is_ok_and(|answer| answer.code == 0))
    }

    /// Runs the CLI against this daemon.
    pub fn cli(&self, arguments: &[&str]) -> Result<Answer> {
        let mut command = Command::new(binary()?);
        command.args(arguments).arg("--socket").arg(self.socket()).env_remove("BOWLINE_SOCKET");
        let output = self.host.netns.output(&mut command)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Answer {
            command: command_line(&command),
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        })
    }

    /// Runs the CLI and returns its standard output; any exit status but 0 is an error.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let answer = self.cli(arguments)?;
        if answer.code != 0 {
            bail!("`{}` on {}: exit {}: {}", answer.command, self.host.name(), answer.code, answer.words());
        }
        Ok(answer.stdout)
    }

    /// [`Self::ask`] with `-o json`, parsed.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.ask(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("`bowline {}` printed no JSON", arguments.join(" ")))
    }

    /// Packets that an agent counted under a reason, from its status.
    pub fn packets(&self, reason: &str) -> Result<u64> {
        let status = self.get("/v1/status")?;
        let lines = status["reasons"].as_array().context("an agent's status has reasons")?;
        let line = lines.iter().find(|line| line["reason"] == reason);
        let packets = line.and_then(|line| line["packets"].as_u64());
        packets.with_context(|| format!("{} knows no reason {reason}", self.host.name()))
    }

    /// GET of a path of the daemon's API.
    fn get(&self, path: &str) -> Result<serde_json::Value> {
        let socket = self.socket();
        let failed = || format!("cannot ask {} over {}", self.host.name(), socket.display());
        let mut stream = UnixStream::connect(&socket).with_context(failed)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Version 1.0, so that the body is the rest of the answer, unchunked.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").with_context(failed)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(failed)?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(failed)?;
        ensure!(head.contains(" 200 "), "{path} on {}: {head}", self.host.name());
        serde_json::from_str(body).with_context(failed)
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn socket(&self) -> PathBuf {
        self.place.socket()
    }

    pub fn config_file(&self) -> PathBuf {
        self.place.config()
    }

    /// The process itself: to stop it, to crash it, to read its log.
    pub fn into_process(self) -> Background {
        self.process
    }

    fn wait_for(&mut self, what: &str, ready: impl Fn(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !ready(self) {
            self.process.still_runs()?;
            if Instant::now() > deadline {
                let status = self.cli(&["status"]).map(|answer| answer.words()).unwrap_or_default();
                let log = self.process.log_tail(20);
                bail!(
                    "bowline on {}: not so within {PATIENCE:?}: it {what}. {status}\nlog:\n{log}",
                    self.host.name()
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// What a run of the CLI gave.
#[derive(Clone, Debug)]
pub struct Answer {
    pub command: String,
    /// Exit status; -1 if a signal ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    fn words(&self) -> String {
        format!("{} {}", self.stdout.trim(), self.stderr.trim()).trim().to_owned()
    }
}

/// Where the `bowline` binary is: `BOWLINE_BIN`, else beside this program (`target/<profile>/bowline`).
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BOWLINE_BIN").map(PathBuf::from) {
        if path.is_file() {
            return Ok(path);
        }
        bail!("BOWLINE_BIN names {}, which is no file", path.display());
    }
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    // A test binary lies one directory deeper (`deps`) than a program.
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("bowline"))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no `bowline` beside {}: run `cargo build -p lb-userspace`, or set BOWLINE_BIN",
                own.display()
            )
        })
}

/// The directory of one daemon.
#[derive(Clone, Debug)]
struct Place(PathBuf);

impl Place {
    fn of(topology: &Topology, host: &Host) -> Result<Self> {
        let directory = topology.lab.run_dir().join(host.name());
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self(directory))
    }

    fn config(&self) -> PathBuf {
        self.0.join("bowline.toml")
    }

    fn socket(&self) -> PathBuf {
        self.0.join("bowline.sock")
    }

    fn log(&self) -> PathBuf {
        self.0.join("log")
    }
}

/// The log of the daemon on this host of a lab.
pub fn log_of(run_dir: &Path, host: &str) -> PathBuf {
    Place(run_dir.join(host)).log()
}
