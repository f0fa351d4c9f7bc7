//! Who owns the namespaces of a lab, and how they go away whatever happens.
//!
//! A lab is a set of namespaces with a common prefix, and a run directory. A small shell, the watcher, is
//! started with it and reads from a pipe that only this process holds. Whatever ends this process (return,
//! panic, Ctrl-C, SIGKILL) closes the pipe, and the watcher removes the lab: its processes, its namespaces, its
//! directory. The ordinary end is the same way: `drop` closes the pipe and waits for the watcher.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::netns::{NETNS_DIR, Netns, command_line, ip_batch};

/// Every lab has a directory of its own in here, named like its prefix.
pub const RUN_DIR: &str = "/run/bowline-lab";

/// The lab that `cargo xtask lab` leaves up.
pub const INTERACTIVE_PREFIX: &str = "lab-";

/// $1 prefix, $2 pid of the owner, $3 run directory. `ip netns pids` sees processes by their main thread, so
/// the owner, which has threads in the namespaces, is not among them; it is excluded all the same.
const WATCHER: &str = r#"
cat >/dev/null
for path in /run/netns/"$1"*; do
  [ -e "$path" ] || continue
  ns=${path##*/}
  for pid in $(ip netns pids "$ns" 2>/dev/null); do
    [ "$pid" = "$2" ] || kill -KILL "$pid" 2>/dev/null
  done
  ip netns del "$ns" 2>/dev/null || [ ! -e "$path" ] || echo "cannot remove the namespace $ns" >&2
done
rm -rf "$3"
"#;

/// A set of namespaces `<prefix><host>`; removed on drop and whenever this process ends.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    run_dir: PathBuf,
    watcher: Child,
}

impl Lab {
    /// A lab with a prefix of its own (`bwl<pid>x<n>-`), so that tests run side by side. The first lab of a
    /// process removes the labs of dead processes.
    pub fn new() -> Result<Self> {
        static STALE: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        require_root()?;
        let mut removal = Ok(());
        STALE.call_once(|| removal = remove_stale());
        removal?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::start(&format!("bwl{}x{number}-", std::process::id()))
    }

    /// A lab under a fixed prefix. What an earlier one left under that prefix is removed first.
    pub fn with_prefix(prefix: &str) -> Result<Self> {
        require_root()?;
        remove(prefix)?;
        Self::start(prefix)
    }

    fn start(prefix: &str) -> Result<Self> {
        let run_dir = run_dir(prefix);
        fs::create_dir_all(&run_dir).with_context(|| format!("cannot create {}", run_dir.display()))?;
        let watcher = watcher(prefix)?;
        Ok(Self { prefix: prefix.to_owned(), run_dir, watcher })
    }

    /// Creates the namespaces `<prefix><host>` and returns them in this order.
    pub fn create(&self, hosts: &[String]) -> Result<Vec<Netns>> {
        let names: Vec<String> = hosts.iter().map(|host| format!("{}{host}", self.prefix)).collect();
        let lines: Vec<String> = names.iter().map(|name| format!("netns add {name}")).collect();
        ip_batch(&lines).context("cannot create the lab's namespaces")?;
        names.iter().map(|name| Netns::open(name)).collect()
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// For sockets, states, configurations and logs; removed with the lab.
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        // A drop has nobody to report to; what the watcher could not remove, the next lab finds as stale.
        drop(self.watcher.wait());
    }
}

/// Removes everything under a prefix: processes, namespaces, run directory.
pub fn remove(prefix: &str) -> Result<()> {
    let mut watcher = watcher(prefix)?;
    drop(watcher.stdin.take());
    let status = watcher.wait().context("cannot wait for the removal of a lab")?;
    if !status.success() {
        bail!("the lab {prefix}* could not be removed ({status}); see `ls {NETNS_DIR}`");
    }
    Ok(())
}

/// The run directory of the lab with this prefix.
pub fn run_dir(prefix: &str) -> PathBuf {
    Path::new(RUN_DIR).join(prefix.trim_end_matches('-'))
}

/// Everything here needs root: say so before the first odd error does.
pub fn require_root() -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let words: Vec<String> = std::env::args().collect();
    bail!(
        "the lab makes network namespaces and loads eBPF programs, which needs root. \
         Run it as root: sudo -E {}",
        words.join(" ")
    );
}

/// Does a process with this pid run? A zombie does not: it has ended and waits for its parent.
pub fn runs(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // pid (comm) state ...: the name may hold anything, so look behind its last parenthesis.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X') | None)
}

fn watcher(prefix: &str) -> Result<Child> {
    if prefix.is_empty() || prefix.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
        bail!("`{prefix}` is no lab prefix: letters, digits and dashes only");
    }
    let mut command = Command::new("sh");
    command
        .args(["-c", WATCHER, "bowline-lab-watcher", prefix, &std::process::id().to_string()])
        .arg(run_dir(prefix))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Its own process group: Ctrl-C ends us, not the one who cleans up after us.
        .process_group(0);
    command.spawn().with_context(|| format!("cannot run `{}`", command_line(&command)))
}

fn remove_stale() -> Result<()> {
    let mut stale = BTreeSet::new();
    for directory in [NETNS_DIR, RUN_DIR] {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot list {directory}")),
        };
        for entry in entries {
            let name = entry.with_context(|| format!("cannot list {directory}"))?.file_name();
            if let Some((prefix, pid)) = name.to_str().and_then(owner)
                && !runs(pid)
            {
                stale.insert(prefix);
            }
        }
    }
    stale.iter().try_for_each(|prefix| remove(prefix))
}

/// `bwl<pid>x<n>-client` or `bwl<pid>x<n>` -> prefix with its dash, and the pid. Anything else is not ours.
fn owner(name: &str) -> Option<(String, u32)> {
    let id = name.split('-').next()?;
    let (pid, number) = id.strip_prefix("bwl")?.split_once('x')?;
    number.parse::<u32>().ok()?;
    Some((format!("{id}-"), pid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_lab_have_an_owner() {
        assert_eq!(owner("bwl12x0-client"), Some(("bwl12x0-".to_owned(), 12)));
        assert_eq!(owner("bwl12x0"), Some(("bwl12x0-".to_owned(), 12)));
        for other in ["lab-client", "labc", "bwl", "bwlx-1", "bwl12-client", "bwl12xy-b1", "mine"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn this_process_runs_and_pid_zero_does_not() {
        assert!(runs(std::process::id()));
        assert!(!runs(0));
    }

    #[test]
    fn a_prefix_that_a_shell_could_misread_is_refused() {
        assert!(watcher("").is_err() && watcher("a*").is_err() && watcher("../x").is_err());
    }
}
