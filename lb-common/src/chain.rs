//! Which member of a row's chain gets a packet.

use crate::{
    abi::{BackendEntry, CHAIN_LEN, Chain},
    reason::Reason,
    tables::Tables,
};

/// A member of a chain that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its handle.
    pub handle: u16,
    /// Its entry.
    pub entry: BackendEntry,
}

/// The first member that takes new flows; for packets of older flows, where none does, the first reachable one.
///
/// `opens` is true for a packet that starts a flow. Until packets carry the rest of the chain to the backend's
/// agent, an older flow must follow the same rule as a new one, or flows that started on the standby would be
/// sent to an owner that does not know them.
#[inline(always)]
pub fn choose<T: Tables>(chain: Chain, opens: bool, tables: &T) -> Result<Chosen, Reason> {
    if chain.0[0] == 0 {
        return Err(Reason::NoBackend);
    }
    let mut fallback = None;
    let mut i = 0;
    while i < CHAIN_LEN {
        let handle = chain.0[i];
        i += 1;
        if handle == 0 {
            break;
        }
        let Some(entry) = tables.backend(handle) else {
            continue;
        };
        if entry.takes_new_flows() {
            return Ok(Chosen { handle, entry });
        }
        if fallback.is_none() && entry.is_reachable() {
            fallback = Some(Chosen { handle, entry });
        }
    }
    match fallback {
        Some(chosen) if !opens => Ok(chosen),
        _ => Err(Reason::NoReadyBackend),
    }
}
