//! Who holds the XDP hook of an interface.

use std::path::Path;
use std::{fmt, fs};

/// A process with a BPF link on an interface.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    command: String,
    pid: u32,
    program_id: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}, XDP program {})", self.command, self.pid, self.program_id)
    }
}

/// The process that holds a link on the interface, if it is a visible one of this network namespace.
///
/// The kernel tells the owner of a link only through the descriptors of processes, so they are all looked at:
/// this runs once, on the way to an error message.
pub(super) fn of_interface(ifindex: u32) -> Option<Holder> {
    let own_namespace = fs::read_link("/proc/self/ns/net").ok()?;
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes
        .filter(|process| fs::read_link(process.path().join("ns/net")).is_ok_and(|ns| ns == own_namespace))
        .find_map(|process| holder_in(&process.path(), ifindex))
}

fn holder_in(process: &Path, ifindex: u32) -> Option<Holder> {
    let pid = process.file_name()?.to_str()?.parse().ok()?;
    let descriptors = fs::read_dir(process.join("fdinfo")).ok()?.filter_map(Result::ok);
    let program_id = descriptors
        .filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok())
        .find_map(|info| program_of_link(&info, ifindex))?;
    let command = fs::read_to_string(process.join("comm")).ok()?.trim().to_owned();
    Some(Holder { command, pid, program_id })
}

/// The program of an XDP link on `ifindex`, from the text of its fdinfo.
fn program_of_link(info: &str, ifindex: u32) -> Option<u32> {
    let field =
        |name: &str| info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()));
    let is_ours = field("link_type") == Some("xdp") && field("ifindex") == Some(ifindex.to_string().as_str());
    if is_ours { field("prog_id")?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::program_of_link;

    const LINK: &str = "pos:\t0\nflags:\t02000000\nmnt_id:\t17\nino:\t1060\nlink_type:\txdp\nlink_id:\t9\n\
                        prog_tag:\t3b185187f1855c4c\nprog_id:\t77\nifindex:\t4\n";

    #[test]
    fn a_link_names_its_program_for_its_own_interface_only() {
        assert_eq!(program_of_link(LINK, 4), Some(77));
        assert_eq!(program_of_link(LINK, 5), None);
        assert_eq!(program_of_link("pos:\t0\nflags:\t02\n", 4), None);
        assert_eq!(program_of_link(&LINK.replace("xdp", "tcx"), 4), None);
    }
}
