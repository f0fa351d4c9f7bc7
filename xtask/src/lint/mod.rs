//! `cargo xtask lint`: every check runs, then all that failed are named.

mod arrows;
mod length;
mod manifests;
mod sources;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::machine::{CARGO_DENY, Machine, Need, TYPOS, Tool};
use crate::{cargo, output, setup, workspace};

/// What one of our own rules found wrong, as `file:line: what`.
type Findings = Vec<String>;

pub(crate) fn run() -> Result<()> {
    setup::ensure(Need::Lint)?;
    let machine = Machine::read()?;
    let mut failed = Vec::new();
    let sources = sources::read()?;
    for (name, findings) in [
        ("import arrows", arrows::check(&sources)),
        ("file length", length::check(&sources)),
        ("manifests", manifests::check()?),
    ] {
        output::note(&format!("+ {name}: {}", if findings.is_empty() { "clean" } else { "broken" }));
        for finding in &findings {
            output::note(&format!("  {finding}"));
        }
        if !findings.is_empty() {
            failed.push(name.to_owned());
        }
    }
    for mut command in commands(&machine) {
        if let Err(error) = cargo::run(&mut command) {
            failed.push(format!("{error:#}"));
        }
    }
    if !failed.is_empty() {
        bail!("lint: {}", failed.join("; "));
    }
    Ok(())
}

fn commands(machine: &Machine) -> Vec<Command> {
    let tool = |tool: &Tool, words: &[&str]| {
        let mut command = Command::new(machine.tool(tool));
        command.current_dir(workspace::root()).args(words);
        command
    };
    vec![
        cargo::cargo(["fmt", "--all", "--check"]),
        cargo::cargo([
            "clippy",
            "--workspace",
            "--exclude",
            "lb-ebpf",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
        // Alone, because beside the other members lb-common always has its feature `alloc`.
        cargo::cargo(["clippy", "-p", "lb-common", "--", "-D", "warnings"]),
        ebpf_clippy(&machine.channel),
        // Without the advisories, whose database is a download of its own.
        tool(
            &CARGO_DENY,
            &["--all-features", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"],
        ),
        tool(&TYPOS, &[]),
    ]
}

/// Clippy over the eBPF programs, with the flags aya-build gives them; checking needs no linker.
fn ebpf_clippy(channel: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .current_dir(workspace::root())
        .args(["run", channel, "cargo", "clippy", "-p", "lb-ebpf", "--bins", "--release"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--", "-D", "warnings"])
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH))
        // The programs' own toolchain builds core: keep its artefacts apart from those of stable.
        .env_remove("RUSTFLAGS");
    command
}

/// A file's text; the error names the file.
fn text_of(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
