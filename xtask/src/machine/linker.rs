//! bpf-linker: where it is built, and the link by which cargo finds it.
//!
//! It must be built against the LLVM of the eBPF toolchain and no other, so its folder in the cache
//! carries the names of both. `.cargo/config.toml` names the link as linker of the BPF target.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Found, Machine, Need, Piece, Remedy};
use crate::workspace;

/// bpf-linker's version and the feature that selects the LLVM of the eBPF toolchain: when the
/// toolchain's date moves to another LLVM, both move with it.
pub(crate) const VERSION: &str = "0.13.0";
pub(crate) const LLVM: &str = "22";

impl Machine {
    /// The folder in the cache that holds this toolchain's bpf-linker, in `bin`.
    pub(crate) fn linker_root(&self) -> PathBuf {
        self.cache.join(format!("tools-{}-bpf-linker-{VERSION}", self.channel))
    }

    pub(crate) fn linker(&self) -> PathBuf {
        self.linker_root().join("bin/bpf-linker")
    }
}

/// The piece: built, and linked into this clone.
pub(super) fn piece(machine: &Machine) -> Piece {
    let built = machine.linker();
    // Another program at the link's place (built by hand, an older version) is replaced.
    let linked = built.exists() && fs::read_link(link()).is_ok_and(|target| target == built);
    let ask = ["rustup", "run", &machine.channel, &built.to_string_lossy(), "--version"].map(str::to_owned);
    Piece {
        name: "bpf-linker".to_owned(),
        need: Need::Build,
        wanted: VERSION.to_owned(),
        found: if linked { Found::Ask(ask.to_vec()) } else { Found::No },
        remedy: Remedy::Linker,
        fix: "cargo xtask setup --for build".to_owned(),
    }
}

/// Where `.cargo/config.toml` says the linker is.
pub(crate) fn link() -> PathBuf {
    workspace::root().join(".cargo/bpf-linker")
}

/// The one file of `sysroot/lib` that is the toolchain's LLVM.
///
/// # Errors
/// There is none of the version that bpf-linker's feature wants.
pub(crate) fn llvm_library(sysroot: &Path) -> Result<PathBuf> {
    let folder = sysroot.join("lib");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(&format!("libLLVM.so.{LLVM}."))
        })
        .with_context(|| {
            format!(
                "{} has no libLLVM.so.{LLVM}.*: the eBPF toolchain has another LLVM than the one bpf-linker \
                 is built for; change the version and the feature in xtask/src/machine/linker.rs",
                folder.display()
            )
        })
}
