//! What the project needs on a machine, and whether this one has it. Reads only; `setup` changes things.

pub(crate) mod linker;
mod pieces;
mod tools;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};

pub(crate) use pieces::{all, missing};
pub(crate) use tools::{CARGO_DENY, TYPOS, Tool};

use crate::workspace;

/// What a piece is needed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Need {
    /// `cargo build` and the unit tests
    Build,
    /// The demo and the lab
    Demo,
    /// All tests
    Test,
    /// `cargo xtask lint`
    Lint,
}

impl Need {
    /// Whether somebody who wants `self` needs a piece marked `other`.
    pub(crate) fn covers(self, other: Need) -> bool {
        match self {
            Need::Build => other == Need::Build,
            Need::Demo => matches!(other, Need::Build | Need::Demo),
            Need::Test => matches!(other, Need::Build | Need::Demo | Need::Test),
            Need::Lint => matches!(other, Need::Build | Need::Lint),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Need::Build => "build",
            Need::Demo => "demo",
            Need::Test => "test",
            Need::Lint => "lint",
        }
    }
}

/// One thing the project needs.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) need: Need,
    /// The version wanted, or "any".
    pub(crate) wanted: String,
    pub(crate) found: Found,
    pub(crate) remedy: Remedy,
    /// The command, or the sentence, that puts it there by hand.
    pub(crate) fix: String,
}

/// Whether a piece is there.
#[derive(Debug)]
pub(crate) enum Found {
    No,
    /// It is there, and this is its version.
    Version(String),
    /// It is there, and this command prints its version.
    Ask(Vec<String>),
}

/// How `setup` gets a missing piece.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Remedy {
    /// The eBPF toolchain with rust-src.
    Toolchain,
    /// A component of the eBPF toolchain (true) or of the one that runs cargo (false).
    Component { ebpf: bool, name: &'static str },
    /// bpf-linker, and the link to it in this clone.
    Linker,
    /// A Debian package.
    Package(&'static str),
    /// A program for `lint`.
    Tool(&'static Tool),
    /// Nothing that `setup` may do: the kernel, root.
    Person,
}

/// What was read of this machine before the pieces are looked at.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The eBPF toolchain's name.
    pub(crate) channel: String,
    /// Its folder, when it is installed.
    pub(crate) ebpf_sysroot: Option<PathBuf>,
    /// The folder of the toolchain that runs cargo.
    pub(crate) sysroot: Option<PathBuf>,
    /// The per-user folder for tools built by `setup`.
    pub(crate) cache: PathBuf,
}

impl Machine {
    pub(crate) fn read() -> Result<Self> {
        let channel = workspace::ebpf_channel()?;
        let ebpf_sysroot = sysroot(Command::new("rustup").args(["run", &channel, "rustc"]));
        Ok(Machine { ebpf_sysroot, sysroot: sysroot(&mut Command::new("rustc")), cache: cache()?, channel })
    }
}

/// Fails when the caller is not root, with the command that is.
pub(crate) fn require_root(verb: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    bail!(
        "this loads eBPF programs and makes network namespaces, which needs root; run: \
         sudo -E env \"PATH=$PATH\" {verb}"
    )
}

pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user of this process.
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Looks a command up in `PATH` and in the folders of root's commands, which other users often lack there.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(command))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    let output = rustc.args(["--print", "sysroot"]).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(text.trim_end()))
}

/// `$BOWLINE_TOOLS`, else `bowline` in the user's cache folder: one build per machine, not per clone.
fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("BOWLINE_TOOLS")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("bowline")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/bowline")))
        .context("no place for the tools: set HOME, or BOWLINE_TOOLS to a folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_tests_also_builds_and_demonstrates_but_does_not_lint() {
        assert!([Need::Build, Need::Demo, Need::Test].iter().all(|&other| Need::Test.covers(other)));
        assert!(!Need::Test.covers(Need::Lint));
        assert!(!Need::Demo.covers(Need::Test));
        assert!(Need::Lint.covers(Need::Build) && !Need::Lint.covers(Need::Demo));
    }

    #[test]
    fn a_command_is_found_and_an_absent_one_is_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-command-here"), None);
        assert_eq!(find(""), None, "a folder is not a command");
    }
}
