//! `cargo xtask test`

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::machine::{self, Need};
use crate::{cargo, output, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only tests that need no privilege (may be combined with the other two)
    #[arg(long)]
    unit: bool,
    /// Only tests of the programs loaded into the kernel
    #[arg(long)]
    kernel: bool,
    /// Only tests with traffic in network namespaces
    #[arg(long)]
    netns: bool,
    /// Arguments for the test programs, after `--`: a filter, --nocapture
    #[arg(last = true)]
    pass: Vec<OsString>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Suite {
    Unit,
    Kernel,
    Netns,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let suites = chosen(arguments);
    let privileged = suites.iter().any(|&suite| suite != Suite::Unit);
    if privileged {
        machine::require_root("cargo xtask test")
            .map_err(|error| anyhow!("{error} (or, without root, only: cargo xtask test --unit)"))?;
    }
    setup::ensure(if privileged { Need::Test } else { Need::Build })?;
    if privileged {
        // The namespace tests start the daemon from the target folder.
        cargo::run(&mut cargo::cargo(["build", "-p", "lb-userspace", "--bins"]))?;
    }
    // All suites run even when one fails, so that one run of CI shows all there is to mend.
    let mut failed = Vec::new();
    for mut command in suites.into_iter().flat_map(commands) {
        if !arguments.pass.is_empty() {
            command.arg("--").args(&arguments.pass);
        }
        if let Err(error) = cargo::run(&mut command) {
            output::note(&format!("{error:#}"));
            failed.push(error.to_string());
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(())
}

/// The suites asked for; all of them when none is named.
fn chosen(arguments: &Arguments) -> Vec<Suite> {
    let flags =
        [(arguments.unit, Suite::Unit), (arguments.kernel, Suite::Kernel), (arguments.netns, Suite::Netns)];
    let all = flags.iter().all(|(set, _)| !set);
    flags.iter().filter(|(set, _)| all || *set).map(|&(_, suite)| suite).collect()
}

fn commands(suite: Suite) -> Vec<Command> {
    let test = |words: &[&str]| {
        let mut command = cargo::cargo(["test", "--no-fail-fast"]);
        command.args(words);
        command
    };
    match suite {
        Suite::Unit => vec![
            test(&["-p", "lb-common", "-p", "lb-userspace", "-p", "xtask", "--features", "lb-common/alloc"]),
            test(&["-p", "lb-tests", "--lib"]),
        ],
        Suite::Kernel => vec![test(&["-p", "lb-tests", "--test", "kernel"])],
        Suite::Netns => vec![test(&["-p", "lb-tests", "--test", "netns"])],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(unit: bool, kernel: bool, netns: bool) -> Arguments {
        Arguments { unit, kernel, netns, pass: Vec::new() }
    }

    #[test]
    fn without_a_choice_every_suite_runs() {
        assert_eq!(chosen(&arguments(false, false, false)), [Suite::Unit, Suite::Kernel, Suite::Netns]);
    }

    #[test]
    fn only_the_named_suites_run() {
        assert_eq!(chosen(&arguments(false, true, false)), [Suite::Kernel]);
        assert_eq!(chosen(&arguments(true, false, true)), [Suite::Unit, Suite::Netns]);
    }
}
