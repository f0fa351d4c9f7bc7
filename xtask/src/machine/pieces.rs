//! The list of everything the project needs, in the order in which it is installed.

use std::fs;
use std::path::Path;

use super::{CARGO_DENY, Found, Machine, Need, Piece, Remedy, TYPOS, Tool, find, is_root, linker};

/// Commands the lab and the tests run: command, Debian package, first need, arguments for its version.
const COMMANDS: [(&str, &str, Need, &str); 13] = [
    ("ip", "iproute2", Need::Demo, "-V"),
    ("nft", "nftables", Need::Demo, "--version"),
    ("ethtool", "ethtool", Need::Demo, "--version"),
    ("tcpdump", "tcpdump", Need::Demo, "--version"),
    ("sysctl", "procps", Need::Demo, "--version"),
    ("nsenter", "util-linux", Need::Demo, "--version"),
    ("curl", "curl", Need::Test, "--version"),
    ("nginx", "nginx-light", Need::Test, "-v"),
    ("ping", "iputils-ping", Need::Test, "-V"),
    ("dig", "bind9-dnsutils", Need::Test, "-v"),
    ("dnsmasq", "dnsmasq-base", Need::Test, "--version"),
    ("iperf3", "iperf3", Need::Test, "--version"),
    ("python3", "python3", Need::Test, "--version"),
];

/// The agent attaches with tcx, which came with this kernel.
const KERNEL: (u32, u32) = (6, 6);

/// Everything, with what this machine has of it.
pub(crate) fn all(machine: &Machine) -> Vec<Piece> {
    let mut pieces = rust(machine);
    pieces.extend(COMMANDS.map(command));
    pieces.extend([kernel(), root()]);
    pieces.extend(lint(machine));
    pieces
}

/// Those of `pieces` that somebody who wants `need` lacks.
pub(crate) fn missing(pieces: &[Piece], need: Need) -> Vec<&Piece> {
    pieces.iter().filter(|piece| matches!(piece.found, Found::No) && need.covers(piece.need)).collect()
}

fn rust(machine: &Machine) -> Vec<Piece> {
    let channel = &machine.channel;
    let install = format!("rustup toolchain install {channel} --profile minimal --component rust-src");
    let sources = machine.ebpf_sysroot.as_ref().map(|root| root.join("lib/rustlib/src/rust/library/core"));
    let toolchain = |name: &str, found| Piece {
        name: name.to_owned(),
        need: Need::Build,
        wanted: channel.clone(),
        found,
        remedy: Remedy::Toolchain,
        fix: install.clone(),
    };
    let ask = |words: &[&str]| Found::Ask(words.iter().map(|&word| word.to_owned()).collect());
    vec![
        Piece {
            name: "rustc".to_owned(),
            need: Need::Build,
            // Cargo itself refuses older ones by the workspace's `rust-version`.
            wanted: format!(">= {}", env!("CARGO_PKG_RUST_VERSION")),
            found: ask(&["rustc", "--version"]),
            remedy: Remedy::Person,
            fix: "rustup update stable".to_owned(),
        },
        Piece {
            name: "rustup".to_owned(),
            need: Need::Build,
            wanted: "any".to_owned(),
            found: if find("rustup").is_some() { ask(&["rustup", "--version"]) } else { Found::No },
            remedy: Remedy::Person,
            fix: "install it as https://rustup.rs says".to_owned(),
        },
        toolchain(
            "eBPF rustc",
            match &machine.ebpf_sysroot {
                Some(_) => ask(&["rustup", "run", channel, "rustc", "--version"]),
                None => Found::No,
            },
        ),
        toolchain("rust-src", yes_if(sources.is_some_and(|folder| folder.exists()), "there")),
        linker::piece(machine),
    ]
}

fn command((name, package, need, version): (&str, &'static str, Need, &str)) -> Piece {
    Piece {
        name: name.to_owned(),
        need,
        wanted: "any".to_owned(),
        found: find(name).map_or(Found::No, |path| {
            Found::Ask(vec![path.to_string_lossy().into_owned(), version.to_owned()])
        }),
        remedy: Remedy::Package(package),
        fix: format!("apt-get install --no-install-recommends {package}"),
    }
}

fn kernel() -> Piece {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let fits = release_at_least(&release, KERNEL) && Path::new("/sys/kernel/btf/vmlinux").exists();
    Piece {
        name: "kernel with BTF".to_owned(),
        need: Need::Demo,
        wanted: format!(">= {}.{}", KERNEL.0, KERNEL.1),
        found: yes_if(fits, release.trim_end()),
        remedy: Remedy::Person,
        fix: format!("boot a newer kernel that has /sys/kernel/btf/vmlinux (this is {})", release.trim_end()),
    }
}

fn root() -> Piece {
    Piece {
        name: "root".to_owned(),
        need: Need::Demo,
        wanted: "yes".to_owned(),
        found: yes_if(is_root(), "yes"),
        remedy: Remedy::Person,
        fix: "sudo -E env \"PATH=$PATH\" cargo xtask ...".to_owned(),
    }
}

fn lint(machine: &Machine) -> Vec<Piece> {
    vec![
        component(machine, "rustfmt", false, ("rustfmt", "cargo-fmt")),
        component(machine, "clippy", false, ("clippy", "cargo-clippy")),
        component(machine, "eBPF clippy", true, ("clippy", "cargo-clippy")),
        tool(machine, &CARGO_DENY),
        tool(machine, &TYPOS),
    ]
}

/// A component of the eBPF toolchain or of the one that runs cargo, known by a program it brings.
fn component(machine: &Machine, label: &str, ebpf: bool, (name, program): (&'static str, &str)) -> Piece {
    let sysroot = if ebpf { &machine.ebpf_sysroot } else { &machine.sysroot };
    let there = sysroot.as_ref().is_some_and(|root| root.join("bin").join(program).exists());
    let toolchain = if ebpf { format!(" --toolchain {}", machine.channel) } else { String::new() };
    Piece {
        name: label.to_owned(),
        need: Need::Lint,
        wanted: "any".to_owned(),
        found: yes_if(there, "there"),
        remedy: Remedy::Component { ebpf, name },
        fix: format!("rustup component add {name}{toolchain}"),
    }
}

fn tool(machine: &Machine, tool: &'static Tool) -> Piece {
    Piece {
        name: tool.package.to_owned(),
        need: Need::Lint,
        wanted: tool.version.to_owned(),
        found: yes_if(machine.tool(tool).exists(), tool.version),
        remedy: Remedy::Tool(tool),
        fix: "cargo xtask setup --for lint".to_owned(),
    }
}

fn yes_if(there: bool, version: &str) -> Found {
    if there { Found::Version(version.to_owned()) } else { Found::No }
}

/// Compares the first two numbers of a kernel release such as `6.18.44-cloud`.
fn release_at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.trim_end().split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(name: &str, need: Need, found: Found) -> Piece {
        let (name, wanted, fix) = (name.to_owned(), "any".to_owned(), String::new());
        Piece { name, need, wanted, found, remedy: Remedy::Person, fix }
    }

    #[test]
    fn only_absent_pieces_that_are_needed_are_missing() {
        let pieces = [
            piece("there", Need::Build, Found::Version("1".to_owned())),
            piece("asked", Need::Build, Found::Ask(vec!["x".to_owned()])),
            piece("linker", Need::Build, Found::No),
            piece("nft", Need::Demo, Found::No),
            piece("nginx", Need::Test, Found::No),
            piece("deny", Need::Lint, Found::No),
        ];
        let names =
            |need| -> Vec<&str> { missing(&pieces, need).iter().map(|piece| piece.name.as_str()).collect() };
        assert_eq!(names(Need::Build), ["linker"]);
        assert_eq!(names(Need::Demo), ["linker", "nft"]);
        assert_eq!(names(Need::Test), ["linker", "nft", "nginx"]);
        assert_eq!(names(Need::Lint), ["linker", "deny"]);
    }

    #[test]
    fn kernel_releases_compare_by_their_numbers_and_not_as_text() {
        assert!(release_at_least("6.18.44\n", (6, 6)));
        assert!(release_at_least("6.6.0-rc1", (6, 6)));
        assert!(release_at_least("10.0", (6, 6)));
        assert!(!release_at_least("6.5.13-generic", (6, 6)));
        assert!(!release_at_least("5.19.0", (6, 6)));
        assert!(!release_at_least("", (6, 6)));
    }
}
