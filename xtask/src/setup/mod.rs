//! `cargo xtask setup`: installs what is missing, each piece once.

mod packages;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::machine::{self, Machine, Need, Piece, Remedy, Tool, linker};
use crate::{cargo, output, step};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What the machine is to be ready for
    #[arg(long = "for", value_enum, default_value = "test")]
    need: Need,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure(arguments.need)?;
    output::note(&format!("ready for: {}", arguments.need.name()));
    Ok(())
}

/// Makes the machine ready for `need`. Silent when it is already.
///
/// # Errors
/// Something cannot be installed from here. All else is installed nevertheless, and the error names
/// what is left with the command for each.
pub(crate) fn ensure(need: Need) -> Result<()> {
    let machine = Machine::read()?;
    let pieces = machine::all(&machine);
    let missing = machine::missing(&pieces, need);
    let steps = plan(&missing);
    if steps.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> =
        missing.iter().filter(|piece| piece.remedy != Remedy::Person).map(|piece| &*piece.name).collect();
    output::note(&format!("installing what is missing for `{}`: {}", need.name(), names.join(", ")));
    let mut left = Vec::new();
    for step in &steps {
        if let Err(error) = perform(step, &machine.channel) {
            left.push(format!("{error:#}"));
        }
    }
    if !left.is_empty() {
        bail!("the set-up is not complete (`cargo xtask doctor` shows the state)\n  {}", left.join("\n  "));
    }
    Ok(())
}

/// One thing to do; several packages are one step.
#[derive(PartialEq, Eq, Debug)]
enum Step {
    Toolchain,
    Component { ebpf: bool, name: &'static str },
    Linker,
    Packages(Vec<&'static str>),
    Tool(&'static Tool),
}

/// The steps for the missing pieces, in their order and each once.
fn plan(missing: &[&Piece]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut packages = Vec::new();
    for piece in missing {
        let step = match piece.remedy {
            Remedy::Toolchain => Step::Toolchain,
            Remedy::Component { ebpf, name } => Step::Component { ebpf, name },
            Remedy::Linker => Step::Linker,
            Remedy::Tool(tool) => Step::Tool(tool),
            Remedy::Package(name) => {
                packages.push(name);
                continue;
            }
            // The verb that needs root or the kernel's help says so itself.
            Remedy::Person => continue,
        };
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    if !packages.is_empty() {
        steps.push(Step::Packages(packages));
    }
    steps
}

fn perform(step: &Step, channel: &str) -> Result<()> {
    match step {
        Step::Toolchain => toolchain(channel),
        Step::Component { ebpf, name } => component(ebpf.then_some(channel), name),
        // Read again: the step before may have installed the toolchain.
        Step::Linker => build_linker(&Machine::read()?),
        Step::Packages(names) => packages::install(names),
        Step::Tool(tool) => build_tool(&Machine::read()?, tool),
    }
}

fn toolchain(channel: &str) -> Result<()> {
    let words = ["toolchain", "install", channel, "--profile", "minimal", "--component", "rust-src"];
    let by_hand = format!("rustup {} (or install rustup: https://rustup.rs)", words.join(" "));
    step::run(&format!("{channel} with rust-src"), Command::new("rustup").args(words), &by_hand)
}

fn component(channel: Option<&str>, name: &str) -> Result<()> {
    let mut words = vec!["component", "add", name];
    if let Some(channel) = channel {
        words.extend(["--toolchain", channel]);
    }
    let by_hand = format!("rustup {}", words.join(" "));
    step::run(&format!("{name} component"), Command::new("rustup").args(&words), &by_hand)
}

/// Builds bpf-linker against the eBPF toolchain's own LLVM, unless the cache has it, and links it.
fn build_linker(machine: &Machine) -> Result<()> {
    let root = machine.linker_root();
    if !machine.linker().exists() {
        let sysroot =
            machine.ebpf_sysroot.as_deref().context("bpf-linker: its toolchain is not installed")?;
        // bpf-linker's build asks for an LLVM installation; all it takes from it is this one file.
        let prefix = root.join("llvm");
        replace_link(&linker::llvm_library(sysroot)?, &prefix.join("lib/libLLVM.so"))?;
        let feature = format!("llvm-{}", linker::LLVM);
        let mut command = install("bpf-linker", linker::VERSION, &root, Some(&machine.channel));
        command.args(["--no-default-features", "--features", &feature]).env("LLVM_PREFIX", &prefix);
        let by_hand =
            format!("LLVM_PREFIX={} {}, then `cargo xtask setup`", prefix.display(), cargo::shown(&command));
        step::run("bpf-linker", &mut command, &by_hand)?;
    }
    replace_link(&machine.linker(), &linker::link())
}

fn build_tool(machine: &Machine, tool: &Tool) -> Result<()> {
    let mut command = install(tool.package, tool.version, &machine.tool_root(tool), None);
    let by_hand = cargo::shown(&command);
    step::run(tool.package, &mut command, &by_hand)
}

/// `cargo install` into `root`, with the named toolchain or the one that runs us.
fn install(name: &str, version: &str, root: &Path, channel: Option<&str>) -> Command {
    let mut command = match channel {
        Some(channel) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", channel, "cargo"]);
            rustup
        }
        None => Command::new("cargo"),
    };
    command.args(["install", name, "--version", version, "--locked", "--root"]).arg(root);
    // A target folder that was named for this workspace is not for foreign programs.
    command.env_remove("CARGO_TARGET_DIR");
    command
}

/// Makes `link` point at `target`, whatever was there.
fn replace_link(target: &Path, link: &Path) -> Result<()> {
    let shown = || format!("cannot make the link {} to {}", link.display(), target.display());
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder).with_context(shown)?;
    }
    if link.symlink_metadata().is_ok() {
        fs::remove_file(link).with_context(shown)?;
    }
    symlink(target, link).with_context(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Found;

    fn lacking(remedy: Remedy) -> Piece {
        let text = String::new;
        Piece { name: text(), need: Need::Build, wanted: text(), found: Found::No, remedy, fix: text() }
    }

    #[test]
    fn the_toolchain_comes_before_what_is_built_with_it_and_packages_come_in_one_step() {
        let pieces = [
            Remedy::Toolchain,
            Remedy::Toolchain,
            Remedy::Linker,
            Remedy::Package("nftables"),
            Remedy::Person,
            Remedy::Package("nginx-light"),
            Remedy::Component { ebpf: true, name: "clippy" },
        ]
        .map(lacking);
        let missing: Vec<&Piece> = pieces.iter().collect();
        assert_eq!(
            plan(&missing),
            [
                Step::Toolchain,
                Step::Linker,
                Step::Component { ebpf: true, name: "clippy" },
                Step::Packages(vec!["nftables", "nginx-light"]),
            ]
        );
    }

    #[test]
    fn nothing_is_planned_when_only_a_person_can_help() {
        assert_eq!(plan(&[&lacking(Remedy::Person)]), []);
        assert_eq!(plan(&[]), []);
    }
}
