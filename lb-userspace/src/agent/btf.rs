//! Offsets of fields in the running kernel's structures, from its own type information.
//!
//! The eBPF program reads two numbers of sockets that no helper gives. Their offsets differ between kernels, and the
//! Rust compiler writes no relocations for them, so the daemon looks them up and tells the program.

use std::path::Path;
use std::{fs, io};

use thiserror::Error;

/// Where the kernel shows its type information (BTF).
pub(super) const KERNEL: &str = "/sys/kernel/btf/vmlinux";

#[derive(Debug, Error)]
pub(super) enum BtfError {
    #[error("cannot read {KERNEL}; the kernel needs CONFIG_DEBUG_INFO_BTF")]
    Read(#[source] io::Error),
    #[error("{KERNEL} is not type information of a known format")]
    Format,
    #[error("the kernel's type information has no field {field} in struct {of}")]
    Missing { of: &'static str, field: &'static str },
}

/// The two offsets that the agent program needs, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SocketFields {
    /// Of `snt_isn` in `struct tcp_request_sock`.
    pub(super) snt_isn: u32,
    /// Of `tw_rcv_nxt` in `struct tcp_timewait_sock`.
    pub(super) rcv_nxt: u32,
}

impl SocketFields {
    /// Those of the running kernel.
    pub(super) fn of_kernel() -> Result<Self, BtfError> {
        Self::from_file(Path::new(KERNEL))
    }

    fn from_file(path: &Path) -> Result<Self, BtfError> {
        let bytes = fs::read(path).map_err(BtfError::Read)?;
        let types = Types::parse(&bytes).ok_or(BtfError::Format)?;
        let offset = |of: &'static str, path: &[&'static str]| {
            let field = path.last().copied().unwrap_or_default();
            types.offset_of(of, path).ok_or(BtfError::Missing { of, field })
        };
        Ok(Self {
            snt_isn: offset("tcp_request_sock", &["snt_isn"])?,
            rcv_nxt: offset("tcp_timewait_sock", &["tw_sk", "__tw_common", "skc_tw_rcv_nxt"])?,
        })
    }
}

/// Kinds of include/uapi/linux/btf.h that are looked into.
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// A member of a struct or union.
#[derive(Debug, Clone, Copy)]
struct Member {
    name: u32,
    kind: u32,
    /// In bytes.
    offset: u32,
}

/// A type; members of structs and unions only.
#[derive(Debug)]
struct Type {
    name: u32,
    kind: u32,
    members: Vec<Member>,
}

/// The types of a BTF blob. Type numbers start at 1.
#[derive(Debug)]
struct Types<'a> {
    types: Vec<Type>,
    strings: &'a [u8],
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        const MAGIC: [u8; 2] = 0xeb9f_u16.to_ne_bytes();
        if bytes.get(..2)? != MAGIC {
            return None;
        }
        let header = |at: usize| word(bytes, at).map(|value| value as usize);
        let header_len = header(4)?;
        let section = |offset: usize, len: usize| {
            let start = header_len.checked_add(header(offset)?)?;
            bytes.get(start..start.checked_add(header(len)?)?)
        };
        let (mut rest, strings) = (section(8, 12)?, section(16, 20)?);
        let mut types = Vec::new();
        while !rest.is_empty() {
            let (one, behind) = parse_type(rest)?;
            types.push(one);
            rest = behind;
        }
        Some(Self { types, strings })
    }

    fn name(&self, at: u32) -> &[u8] {
        let text = self.strings.get(at as usize..).unwrap_or_default();
        text.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Offset in bytes of the field at the end of `path`, which names a member at each step.
    fn offset_of(&self, of: &str, path: &[&str]) -> Option<u32> {
        let outer = self.types.iter().find(|one| {
            one.kind == STRUCT && !one.members.is_empty() && self.name(one.name) == of.as_bytes()
        })?;
        self.walk(outer, path)
    }

    fn walk(&self, of: &Type, path: &[&str]) -> Option<u32> {
        let (first, rest) = path.split_first()?;
        of.members.iter().find_map(|member| {
            let inside = || self.types.get((member.kind as usize).checked_sub(1)?);
            let behind = match self.name(member.name) {
                // Fields of an anonymous struct or union are as good as fields of their holder.
                b"" => self.walk(inside()?, path)?,
                name if name == first.as_bytes() && rest.is_empty() => 0,
                name if name == first.as_bytes() => self.walk(inside()?, rest)?,
                _ => return None,
            };
            Some(member.offset + behind)
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// One type and what follows it.
fn parse_type(bytes: &[u8]) -> Option<(Type, &[u8])> {
    let (name, info) = (word(bytes, 0)?, word(bytes, 4)?);
    let (count, kind, has_bitfields) = ((info & 0xffff) as usize, (info >> 24) & 0x1f, info >> 31 != 0);
    // Bytes behind the three words that every type has.
    let extra = match kind {
        1 | 14 | 17 => 4,
        3 => 12,
        STRUCT | UNION | 15 | 19 => count * 12,
        6 | 13 => count * 8,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    };
    let body = bytes.get(12..12 + extra)?;
    let mut members = Vec::new();
    if kind == STRUCT || kind == UNION {
        for member in body.chunks_exact(12) {
            let place = word(member, 8)?;
            let bits = if has_bitfields { place & 0x00ff_ffff } else { place };
            members.push(Member { name: word(member, 0)?, kind: word(member, 4)?, offset: bits / 8 });
        }
    }
    Some((Type { name, kind, members }, &bytes[12 + extra..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob with the given types and strings, as the kernel lays it out.
    fn blob(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_field_is_found_through_named_members_and_anonymous_unions() {
        let strings = b"\0outer\0inner\0a\0b\0int\0";
        let (outer, inner, a, b, int) = (1, 7, 13, 15, 17);
        let types = [
            // 1: int. 2: anonymous union { int a; int b; }. 3: struct inner { int a; <2>; }. 4: struct outer.
            [int, 1 << 24, 4, 32].as_slice(),
            &[0, 5 << 24 | 2, 4, a, 1, 0, b, 1, 0],
            &[inner, 4 << 24 | 2, 8, a, 1, 0, 0, 2, 32],
            &[outer, 4 << 24 | 2, 24, a, 1, 0, inner, 3, 128],
        ]
        .concat();
        let bytes = blob(&types, strings);
        let types = Types::parse(&bytes).expect("a sound blob");
        assert_eq!(types.offset_of("outer", &["inner", "b"]), Some(16 + 4));
        assert_eq!(types.offset_of("outer", &["a"]), Some(0));
        assert_eq!(types.offset_of("outer", &["b"]), None);
        assert_eq!(types.offset_of("nobody", &["a"]), None);
    }

    #[test]
    fn garbage_is_refused_at_every_length() {
        let bytes = blob(&[17, 1 << 24, 4, 32], b"\0outer\0inner\0a\0b\0int\0");
        assert!(Types::parse(&bytes).is_some());
        for len in 0..bytes.len() {
            assert!(Types::parse(&bytes[..len]).is_none(), "cut at {len}");
        }
        assert!(Types::parse(&[0; 64]).is_none());
    }

    #[test]
    fn the_running_kernel_tells_both_offsets() {
        let fields = SocketFields::of_kernel().expect("a kernel with BTF");
        assert!(fields.snt_isn > 0 && fields.snt_isn.is_multiple_of(4), "{fields:?}");
        assert!(fields.rcv_nxt > 0 && fields.rcv_nxt.is_multiple_of(4), "{fields:?}");
        assert!(fields.snt_isn > fields.rcv_nxt, "the one lies beyond struct sock_common, the other inside");
    }
}
