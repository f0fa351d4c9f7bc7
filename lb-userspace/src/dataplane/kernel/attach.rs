//! Loading the XDP program and putting it on interfaces.

use std::io;

use aya::programs::links::FdLink;
use aya::programs::{ProgramError, Xdp, XdpMode as AyaMode};
use aya::sys::SyscallError;
use aya::{Ebpf, EbpfLoader};
use aya_log::Level;

use super::{events, holder};
use crate::config::{Settings, XdpModeWanted};
use crate::dataplane::object;
use crate::engine::boundary::{Attachment, DataplaneError, XdpMode};

/// Name of the program in its object.
const PROGRAM: &str = "bowline_lb";

/// The loaded object and the links that keep its program attached.
pub(super) struct Attached {
    attachments: Vec<Attachment>,
    /// Dropping a link detaches its program.
    _links: Vec<FdLink>,
    /// Holds the program.
    _object: Ebpf,
}

impl Attached {
    /// Those that are still there: an interface that was deleted took its program along, also if another one has its
    /// name by now.
    pub(super) fn attachments(&self) -> Vec<Attachment> {
        let is_there = |one: &&Attachment| {
            nix::net::if_::if_nametoindex(one.interface.as_str()).is_ok_and(|index| index == one.ifindex)
        };
        self.attachments.iter().filter(is_there).cloned().collect()
    }
}

/// Loads the object, lets `prepare` take and fill its maps, and only then attaches the program.
pub(super) fn load_and_attach<M>(
    settings: &Settings,
    prepare: impl FnOnce(&mut Ebpf) -> Result<M, DataplaneError>,
) -> Result<(M, Attached), DataplaneError> {
    // Off means zero, and the verifier removes what would log.
    let log_level: u8 = if settings.log_drops { Level::Warn as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader.override_global(aya_log::LEVEL, &log_level, true);
    let mut object = loader.load(object::LB).map_err(|error| {
        DataplaneError::new("load", "the XDP object", error)
            .with_hint("root (or CAP_BPF with CAP_NET_ADMIN) and a kernel with BTF are needed")
    })?;
    let prepared = prepare(&mut object)?;
    if settings.log_drops {
        events::follow(&mut object)?;
    }
    let program = load_program(&mut object)?;
    let (mut attachments, mut links) = (Vec::new(), Vec::new());
    for interface in &settings.interfaces {
        let (attachment, link) = attach_one(program, interface, settings.xdp_mode)?;
        attachments.push(attachment);
        links.push(link);
    }
    Ok((prepared, Attached { attachments, _links: links, _object: object }))
}

fn load_program(object: &mut Ebpf) -> Result<&mut Xdp, DataplaneError> {
    let missing = || DataplaneError::new("find", PROGRAM, "the object was built without it");
    let program = object.program_mut(PROGRAM).ok_or_else(missing)?;
    let program: &mut Xdp =
        program.try_into().map_err(|error| DataplaneError::new("find", PROGRAM, error))?;
    program.load().map_err(|error| DataplaneError::new("load", PROGRAM, error))?;
    Ok(program)
}

fn attach_one(
    program: &mut Xdp,
    interface: &str,
    wanted: XdpModeWanted,
) -> Result<(Attachment, FdLink), DataplaneError> {
    let ifindex = nix::net::if_::if_nametoindex(interface).map_err(|error| {
        DataplaneError::new("find the interface", interface, error)
            .with_hint("`ip link` lists the interfaces of this network namespace")
    })?;
    let native = || (AyaMode::Driver, XdpMode::Native);
    let generic = || (AyaMode::Skb, XdpMode::Generic);
    let (link, mode, fallback) = match wanted {
        XdpModeWanted::Native => (try_attach(program, ifindex, native().0), native().1, None),
        XdpModeWanted::Generic => (try_attach(program, ifindex, generic().0), generic().1, None),
        XdpModeWanted::Auto => match try_attach(program, ifindex, native().0) {
            Err(error) if !is_occupied(&error) => {
                let why = crate::engine::chain(&error);
                (try_attach(program, ifindex, generic().0), generic().1, Some(why))
            }
            link => (link, native().1, None),
        },
    };
    let link = link.map_err(|error| explain(error, interface, ifindex))?;
    let info = program.info().map_err(|error| DataplaneError::new("inspect", PROGRAM, error))?;
    let attachment = Attachment {
        interface: interface.to_owned(),
        ifindex,
        mode,
        fallback,
        program_id: info.id(),
        program_tag: format!("{:016x}", info.tag().swap_bytes()),
        verified_instructions: info.verified_instruction_count().unwrap_or(0),
        jited_bytes: info.size_jitted(),
    };
    Ok((attachment, link))
}

/// Attaches by a BPF link. The library's silent fallback to netlink is refused: such an attachment outlives the
/// daemon and can be neither pinned nor replaced in one step.
fn try_attach(program: &mut Xdp, ifindex: u32, mode: AyaMode) -> Result<FdLink, ProgramError> {
    let id = program.attach_to_if_index(ifindex, mode)?;
    let link = program.take_link(id)?;
    FdLink::try_from(link).map_err(|error| ProgramError::IOError(io::Error::other(error)))
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        _ => None,
    }
}

/// Whether another program sits there already.
fn is_occupied(error: &ProgramError) -> bool {
    [nix::errno::Errno::EBUSY, nix::errno::Errno::EEXIST]
        .iter()
        .any(|code| errno(error) == Some(*code as i32))
}

fn explain(error: ProgramError, interface: &str, ifindex: u32) -> DataplaneError {
    let failure = |error| DataplaneError::new("attach the XDP program to", interface, error);
    if !is_occupied(&error) {
        return failure(error);
    }
    let hint = match holder::of_interface(ifindex) {
        Some(holder) => format!("{interface} is held by {holder}; stop it first"),
        None => format!("another XDP program is on {interface}; `ip link show dev {interface}` names it"),
    };
    failure(error).with_hint(hint)
}
