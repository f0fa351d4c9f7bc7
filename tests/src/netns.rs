//! Network namespaces: entered by a thread, never by the process.
//!
//! A thread that calls `setns` takes only itself along, and what it spawns (threads, children) starts where it
//! is. So a test process stands in many namespaces at once, and a child keeps the mounts of the host:
//! `ip netns exec` would hide `/sys/fs/bpf` behind a fresh `/sys`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where `ip netns` keeps its named namespaces.
pub const NETNS_DIR: &str = "/run/netns";

/// A named network namespace that exists. Cloning it clones the handle, not the namespace; the owner of the
/// namespace (who removes it) is [`crate::lab::Lab`].
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    handle: Arc<File>,
}

impl Netns {
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(NETNS_DIR).join(name);
        let handle =
            File::open(&path).with_context(|| format!("cannot open the namespace {}", path.display()))?;
        Ok(Self { name: name.to_owned(), handle: Arc::new(handle) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace and waits for it. A panic in `work` goes on here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let done = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    Ok(work())
                })
                .join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a named thread inside the namespace. Returns once `set_up` has succeeded there; what it made is
    /// handed to `work`, which runs on.
    pub fn thread<S, T>(
        &self,
        name: &str,
        set_up: impl FnOnce() -> Result<S> + Send,
        work: impl FnOnce(S) -> T + Send + 'static,
    ) -> Result<JoinHandle<T>>
    where
        S: Send + 'static,
        T: Send + 'static,
    {
        let made = self.run(set_up)??;
        let netns = self.clone();
        let body = move || {
            // Sockets keep the namespace they were made in; entering it serves the threads `work` starts. An
            // error here was an error in `run` above, which did the same a moment ago.
            if let Err(error) = netns.enter() {
                std::panic::resume_unwind(Box::new(format!("{error:#}")));
            }
            work(made)
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
            .with_context(|| format!("cannot start the thread {name}"))
    }

    /// Writes sysctls as this namespace sees them. Names are written with slashes: `net/ipv4/ip_forward`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (name, value) in settings {
                std::fs::write(Path::new("/proc/sys").join(name), value)
                    .with_context(|| format!("cannot set the sysctl {name} = {value} in {}", self.name))?;
            }
            Ok(())
        })?
    }

    /// Runs a command to its end and returns its output, whatever its exit status.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        command.stdin(Stdio::null());
        self.run(|| command.output().map_err(|error| cannot_run(command, error)))?
    }

    /// Runs a command to its end and returns its standard output. A bad exit status is an error that shows the
    /// command line and what the command said.
    pub fn check(&self, command: &mut Command) -> Result<String> {
        let output = self.output(command)?;
        succeeded(command, &output).with_context(|| format!("in namespace {}", self.name))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Like [`Self::check`], with `input` on the command's standard input.
    pub fn feed(&self, command: &mut Command, input: &str) -> Result<String> {
        self.run(|| feed(command, input))?.with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs `ip` once for all these lines (`addr add ...`, `route add ...`).
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        self.run(|| ip_batch(lines))?.with_context(|| format!("in namespace {}", self.name))
    }

    /// Starts a command that runs until it is stopped; both its outputs go to the end of `log`.
    pub fn background(&self, command: &mut Command, log: &Path) -> Result<Background> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open the log {}", log.display()))?;
        let same = file.try_clone().context("cannot duplicate the log's descriptor")?;
        command.stdin(Stdio::null()).stdout(file).stderr(same);
        let child = self.run(|| command.spawn().map_err(|error| cannot_run(command, error)))??;
        Ok(Background { what: command_line(command), log: log.to_owned(), child })
    }

    fn enter(&self) -> Result<()> {
        setns(&*self.handle, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter the namespace {} (are you root?)", self.name))
    }
}

/// A process in the background. Dropping it ends and reaps it, by its pid.
#[derive(Debug)]
pub struct Background {
    what: String,
    log: PathBuf,
    child: Child,
}

impl Background {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Fails if the process has ended, and shows the end of its log.
    pub fn still_runs(&mut self) -> Result<()> {
        let Some(status) =
            self.child.try_wait().with_context(|| format!("cannot ask after `{}`", self.what))?
        else {
            return Ok(());
        };
        bail!(
            "`{}` has ended ({status}); the end of {}:\n{}",
            self.what,
            self.log.display(),
            self.log_tail(20)
        );
    }

    /// The last `lines` lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Asks the process to end (SIGTERM), ends it (SIGKILL) if it has not within five seconds, and reaps it.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.end()
    }

    /// Ends the process with SIGKILL, as a crash would, and reaps it.
    pub fn crash(mut self) -> Result<ExitStatus> {
        self.child.kill().with_context(|| format!("cannot kill `{}`", self.what))?;
        self.child.wait().with_context(|| format!("cannot reap `{}`", self.what))
    }

    fn end(&mut self) -> Result<ExitStatus> {
        let reap = || format!("cannot reap `{}`", self.what);
        if let Some(status) = self.child.try_wait().with_context(reap)? {
            return Ok(status);
        }
        let pid = i32::try_from(self.child.id()).context("a pid that does not fit")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).with_context(|| format!("cannot stop `{}`", self.what))?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().with_context(reap)? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.child.kill().with_context(|| format!("cannot kill `{}`", self.what))?;
        self.child.wait().with_context(reap)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // A drop has nobody to report to; the lab's own removal kills what is left in the namespace.
        drop(self.end());
    }
}

/// Runs `ip` once for all these lines, in the namespace of the calling thread.
pub fn ip_batch(lines: &[String]) -> Result<()> {
    let input = lines.join("\n") + "\n";
    feed(Command::new("ip").args(["-batch", "-"]), &input).map(drop)
}

/// Runs a command with `input` on its standard input, in the namespace of the calling thread.
pub fn feed(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| cannot_run(command, error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that stops reading has failed; its own words, below, say more than our broken pipe.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output =
        child.wait_with_output().with_context(|| format!("cannot wait for `{}`", command_line(command)))?;
    succeeded(command, &output).with_context(|| format!("its input was:\n{input}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as a person would type it (without quoting).
pub fn command_line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    words.join(" ")
}

fn succeeded(command: &Command, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    bail!("`{}` failed ({}): {}", command_line(command), output.status, String::from_utf8_lossy(said).trim());
}

fn cannot_run(command: &Command, error: std::io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy().into_owned();
    let package = match program.as_str() {
        "ip" => "iproute2",
        "nft" => "nftables",
        other => other,
    };
    let hint = if error.kind() == std::io::ErrorKind::NotFound {
        format!(" (not found; on Debian: apt-get install {package})")
    } else {
        String::new()
    };
    anyhow::Error::new(error).context(format!("cannot run `{}`{hint}", command_line(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_shows_its_line_and_its_words() {
        let error = feed(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]), "some input")
            .expect_err("the shell ends with 3");
        let text = format!("{error:#}");
        assert!(text.contains("sh -c") && text.contains("broken") && text.contains("some input"), "{text}");
    }

    #[test]
    fn a_missing_tool_names_its_package() {
        let text = format!("{:#}", cannot_run(&Command::new("nft"), std::io::ErrorKind::NotFound.into()));
        assert!(text.contains("apt-get install nftables"), "{text}");
    }
}
