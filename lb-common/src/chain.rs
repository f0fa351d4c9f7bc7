//! Which members of a row's chain a packet is for.

use crate::{
    abi::{BackendEntry, CHAIN_LEN, Chain},
    address::Address,
    reason::Reason,
    tables::Tables,
};

/// A member of a chain that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen<'t> {
    /// Its handle.
    pub handle: u16,
    /// Its entry.
    pub entry: &'t BackendEntry,
}

/// Most backends that a packet can still be sent to after its first one.
pub const MAX_HOPS: usize = CHAIN_LEN - 1;

/// The rest of a chain, in the order of the second chances.
///
/// Three named places and not an array: an index that is not constant is a stack access that older verifiers refuse. And a
/// count beside them: asking a pointer whether it is there, together with a flag, compiles to a bitwise "or" of
/// both, which every verifier refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hops<'t> {
    /// How many of the places below are taken, from the first on.
    pub count: u8,
    /// First hop.
    pub first: Option<&'t Address>,
    /// Second hop.
    pub second: Option<&'t Address>,
    /// Third hop.
    pub third: Option<&'t Address>,
}

impl<'t> Hops<'t> {
    #[inline(always)]
    fn push(&mut self, address: &'t Address) {
        match self.count {
            0 => self.first = Some(address),
            1 => self.second = Some(address),
            _ => self.third = Some(address),
        }
        self.count += 1;
    }
}

/// Where a packet goes, and where it goes on if nobody there knows its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'t> {
    /// The first backend.
    pub chosen: Chosen<'t>,
    /// The others that may hold the flow.
    pub hops: Hops<'t>,
}

/// What a packet is, as far as its chain is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It starts a flow: it goes to whoever takes new flows, and nowhere else.
    Opens,
    /// Of a flow that some member may hold: it carries the rest of the chain where agents can read it.
    Continues,
    /// Of a protocol without connections: like the first of its flow, without a chain.
    Connectionless,
}

/// The first member that takes new flows, then the rest of the chain.
///
/// The target of new flows comes first for older ones too: of a row whose chain did not change it is the holder. Where
/// no member takes new flows, older flows go to the first that is reachable.
#[inline(always)]
pub fn choose<T: Tables>(chain: Chain, kind: Kind, tables: &T) -> Result<Choice<'_>, Reason> {
    if chain.0[0] == 0 {
        return Err(Reason::NoBackend);
    }
    let position = first(chain, kind, tables).ok_or(Reason::NoReadyBackend)?;
    let handle = chain.0[position];
    let entry = tables.backend(handle).ok_or(Reason::NoReadyBackend)?;
    let mut hops = Hops::default();
    if kind == Kind::Continues && entry.has_agent() {
        let mut i = 0;
        while i < CHAIN_LEN {
            let handle = chain.0[i];
            if handle == 0 {
                break;
            }
            if i != position
                && let Some(entry) = tables.backend(handle)
                && entry.is_reachable()
            {
                hops.push(&entry.address);
            }
            i += 1;
        }
    }
    Ok(Choice { chosen: Chosen { handle, entry }, hops })
}

/// The position in the chain of a packet's first backend.
#[inline(always)]
fn first<T: Tables>(chain: Chain, kind: Kind, tables: &T) -> Option<usize> {
    let mut reachable = CHAIN_LEN;
    let mut i = 0;
    while i < CHAIN_LEN {
        let handle = chain.0[i];
        if handle == 0 {
            break;
        }
        if let Some(entry) = tables.backend(handle) {
            if entry.takes_new_flows() {
                return Some(i);
            }
            if reachable == CHAIN_LEN && entry.is_reachable() {
                reachable = i;
            }
        }
        i += 1;
    }
    (kind != Kind::Opens && reachable < CHAIN_LEN).then_some(reachable)
}
