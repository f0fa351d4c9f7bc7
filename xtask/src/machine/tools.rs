//! Programs for `lint` that come from crates, built once into the cache.

use std::path::PathBuf;

use super::Machine;

/// One such program; its folder in the cache carries its version.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Tool {
    pub(crate) package: &'static str,
    pub(crate) version: &'static str,
    binary: &'static str,
}

pub(crate) static CARGO_DENY: Tool = Tool { package: "cargo-deny", version: "0.20.2", binary: "cargo-deny" };
pub(crate) static TYPOS: Tool = Tool { package: "typos-cli", version: "1.52.0", binary: "typos" };

impl Machine {
    /// The folder in the cache that holds the tool, in `bin`.
    pub(crate) fn tool_root(&self, tool: &Tool) -> PathBuf {
        self.cache.join(format!("tools-{}-{}", tool.package, tool.version))
    }

    pub(crate) fn tool(&self, tool: &Tool) -> PathBuf {
        self.tool_root(tool).join("bin").join(tool.binary)
    }
}
