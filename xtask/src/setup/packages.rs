//! Debian packages, installed without any of their services starting.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::machine;
use crate::{output, step};

const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Debian's maintainer scripts ask this program before they start a service. It refuses only below our
/// own apt-get, which carries the variable; if we are killed and it stays, it changes nothing for others.
const POLICY_TEXT: &str = "#!/bin/sh
# Left by `cargo xtask setup` of bowline, if it was interrupted; harmless, may be removed.
[ -z \"$BOWLINE_SETUP\" ] || exit 101
exit 0
";

/// Installs `names` with apt-get.
pub(super) fn install(names: &[&'static str]) -> Result<()> {
    let by_hand = format!("apt-get install -y --no-install-recommends {}", names.join(" "));
    if machine::find("apt-get").is_none() {
        bail!("Debian packages: no apt-get here; install what this system calls {}", names.join(" "));
    }
    if !machine::is_root() {
        bail!("Debian packages: only root may install them; by hand: sudo {by_hand}");
    }
    let _policy = Policy::put()?;
    let label = format!("Debian packages ({})", names.len());
    let mut command = apt_get();
    command.args(["install", "-y", "--no-install-recommends"]).args(names);
    // The lists are absent on a minimal image and stale on an old one: new ones are fetched only then.
    let fresh = !has_lists();
    if fresh {
        update_lists()?;
    }
    if let Err(error) = step::run(&label, &mut command, &by_hand) {
        if fresh {
            return Err(error);
        }
        output::note("  perhaps the package lists are old: once more with new ones");
        update_lists()?;
        step::run(&label, &mut command, &by_hand)?;
    }
    if names.contains(&"nginx-light") {
        keep_from_boot("nginx");
    }
    Ok(())
}

fn has_lists() -> bool {
    let Ok(entries) = fs::read_dir("/var/lib/apt/lists") else {
        return false;
    };
    entries.filter_map(Result::ok).any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

fn update_lists() -> Result<()> {
    step::run("Debian package lists", apt_get().arg("update"), "apt-get update")
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        // A fresh machine often updates itself at that moment and holds the lock.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .env("BOWLINE_SETUP", "1");
    command
}

/// The tests start their own nginx in a namespace; the package would start another one at the next boot.
fn keep_from_boot(service: &str) {
    let done = Command::new("update-rc.d").args([service, "disable"]).output();
    if !done.is_ok_and(|output| output.status.success()) {
        output::note(&format!(
            "  could not keep {service} from starting at boot; by hand: systemctl disable {service}"
        ));
    }
}

/// The policy program in its place, as long as this lives. One that is there already is left alone.
struct Policy {
    ours: bool,
}

impl Policy {
    fn put() -> Result<Self> {
        let there = fs::read_to_string(POLICY).ok();
        if Path::new(POLICY).exists() && there.as_deref() != Some(POLICY_TEXT) {
            return Ok(Policy { ours: false });
        }
        let policy = Policy { ours: true };
        let shown = || format!("cannot write {POLICY}, which keeps the packages' services from starting");
        fs::write(POLICY, POLICY_TEXT).with_context(shown)?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)).with_context(shown)?;
        Ok(policy)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours && fs::remove_file(POLICY).is_err() {
            output::note(&format!(
                "  could not remove {POLICY}; it refuses nothing, but is not needed any more"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(setup: Option<&str>) -> Option<i32> {
        let mut shell = Command::new("sh");
        shell.args(["-c", POLICY_TEXT]).env_remove("BOWLINE_SETUP");
        if let Some(value) = setup {
            shell.env("BOWLINE_SETUP", value);
        }
        shell.status().unwrap().code()
    }

    #[test]
    fn services_are_refused_below_our_own_installation_and_nowhere_else() {
        assert_eq!(answer(Some("1")), Some(101));
        assert_eq!(answer(None), Some(0));
    }
}
