//! Where the workspace is, and the nightly it names for the eBPF programs.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};

/// The members, as the lint rules list them.
pub(crate) const MEMBERS: [(&str, &str); 5] = [
    ("lb-common", "lb-common"),
    ("lb-ebpf", "lb-ebpf"),
    ("lb-userspace", "lb-userspace"),
    ("lb-tests", "tests"),
    ("xtask", "xtask"),
];

/// The folder that holds the root `Cargo.toml`.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable when it runs us; the compiled-in path would be that of another clone
    // when two of them share a target folder.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let manifest = PathBuf::from(manifest);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// The toolchain of the eBPF programs, for example `nightly-2026-05-20`.
pub(crate) fn ebpf_channel() -> Result<String> {
    let path = root().join("lb-ebpf/rust-toolchain.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    channel_in(&text).with_context(|| format!("cannot find the eBPF toolchain in {}", path.display()))
}

/// Reads `toolchain.channel` of a `rust-toolchain.toml`.
fn channel_in(text: &str) -> Result<String> {
    let table: toml::Table = text.parse().context("not valid TOML")?;
    table
        .get("toolchain")
        .and_then(|toolchain| toolchain.get("channel"))
        .and_then(|channel| channel.as_str())
        .map(str::to_owned)
        .context("no string `channel` in the section [toolchain]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_read_from_the_toolchain_section() {
        let text = "# why\n[toolchain]\nchannel = \"nightly-2031-02-03\" # dated\nprofile = \"minimal\"\n";
        assert_eq!(channel_in(text).unwrap(), "nightly-2031-02-03");
    }

    #[test]
    fn a_file_without_channel_or_with_a_wrong_one_is_refused() {
        for text in
            ["", "[toolchain]\nprofile = \"minimal\"\n", "[toolchain]\nchannel = 3\n", "channel = \"x\"\n"]
        {
            let error = channel_in(text).unwrap_err();
            assert!(error.to_string().contains("channel"), "{text:?} gave {error}");
        }
        assert!(channel_in("[toolchain").is_err());
    }

    #[test]
    fn this_workspace_names_a_dated_nightly() {
        let channel = ebpf_channel().unwrap();
        let date = channel.strip_prefix("nightly-").expect("a nightly");
        assert_eq!(date.split('-').count(), 3, "{channel} carries no date");
    }

    #[test]
    fn every_member_has_its_folder() {
        for (name, folder) in MEMBERS {
            let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{folder} is not {name}");
        }
    }
}
