//! Builds the eBPF programs (package `lb-ebpf`) and leaves them in `OUT_DIR` under their names
//! `bowline-lb`, `bowline-agent` and `bowline-pass`, where the library includes them as bytes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

const TOOLCHAIN_FILE: &str = "../lb-ebpf/rust-toolchain.toml";
/// Where `.cargo/config.toml` tells the BPF target's linker to be; `cargo xtask setup` puts it there.
const LINKER: &str = "../.cargo/bpf-linker";

fn main() -> Result<()> {
    // aya-build names only the folder of lb-ebpf; these decide about the object as well.
    for path in ["../lb-common/src", "../lb-common/Cargo.toml", "../Cargo.toml", "../Cargo.lock", LINKER] {
        println!("cargo::rerun-if-changed={path}");
    }
    let channel = ebpf_channel()?;
    if env::var_os("AYA_BUILD_SKIP").is_none() {
        check_tools(&channel)?;
    }
    let package = Package { name: "lb-ebpf", root_dir: "../lb-ebpf", ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(&channel))
}

/// The nightly that `lb-ebpf/rust-toolchain.toml` names, the only place where it is written.
fn ebpf_channel() -> Result<String> {
    let text = fs::read_to_string(TOOLCHAIN_FILE).with_context(|| format!("cannot read {TOOLCHAIN_FILE}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'))
        .map(str::to_owned)
        .with_context(|| format!("{TOOLCHAIN_FILE} has no line `channel = \"...\"`"))
}

/// Without this, a missing tool would surface as a failed link deep inside a nested cargo.
fn check_tools(channel: &str) -> Result<()> {
    let nightly = Command::new("rustup")
        .args(["run", channel, "rustc", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let missing = if !nightly.is_ok_and(|status| status.success()) {
        format!("the eBPF compiler {channel}")
    } else if !Path::new(LINKER).exists() {
        "bpf-linker".to_owned()
    } else {
        return Ok(());
    };
    println!("cargo::error=the eBPF programs need {missing}; run `cargo xtask setup`, which installs it");
    bail!("{missing} is missing");
}
