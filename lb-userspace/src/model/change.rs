//! Changes at run time.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{AdminState, Backend, Model, Pool, Refusal, Vip, close_addresses, close_names};

/// One change that an operator asked for. Its JSON form is the one stored on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    AddVip { vip: Vip },
    RemoveVip { name: String },
    AddBackend { pool: String, backend: Backend },
    RemoveBackend { pool: String, address: IpAddr },
    SetWeight { pool: String, address: IpAddr, weight: u16 },
    SetAdmin { pool: String, address: IpAddr, state: AdminState },
}

impl Model {
    /// The model after the change, or why there is none. The receiver stays as it is.
    pub fn apply(&self, change: &Change) -> Result<Self, Refusal> {
        let mut next = self.clone();
        match change {
            Change::AddVip { vip } => next.insert_vip(vip.clone())?,
            Change::RemoveVip { name } => {
                self.vip(name)?;
                next.vips.remove(name);
            }
            Change::AddBackend { pool, backend } => {
                self.check_backend_address(backend.address, pool)?;
                next.pool_mut(pool)?.insert(backend.clone())?;
            }
            Change::RemoveBackend { pool, address } => {
                self.backend(*address, Some(pool))?;
                let pool = next.pool_mut(pool)?;
                if pool.backends.len() == 1 {
                    return Err(Refusal::LastBackend { pool: pool.name.clone(), address: *address });
                }
                pool.backends.remove(address);
            }
            Change::SetWeight { weight: 0, address, .. } => {
                return Err(Refusal::ZeroWeight { address: *address });
            }
            Change::SetWeight { pool, address, weight } => next.backend_mut(pool, *address)?.weight = *weight,
            Change::SetAdmin { pool, address, state } => next.backend_mut(pool, *address)?.admin = *state,
        }
        Ok(next)
    }

    fn pool_mut(&mut self, name: &str) -> Result<&mut Pool, Refusal> {
        let close = close_names(name, self.pools.keys());
        self.pools.get_mut(name).ok_or_else(|| Refusal::UnknownPool { pool: name.to_owned(), close })
    }

    fn backend_mut(&mut self, pool: &str, address: IpAddr) -> Result<&mut Backend, Refusal> {
        let pool = self.pool_mut(pool)?;
        let close = close_addresses(address, pool.backends.keys());
        let unknown = Refusal::UnknownBackend { address, pool: Some(pool.name.clone()), close };
        pool.backends.get_mut(&address).ok_or(unknown)
    }
}

impl Change {
    /// The pool whose members or weights it changes, if it does.
    pub fn membership_of(&self) -> Option<&str> {
        match self {
            Self::AddBackend { pool, .. }
            | Self::RemoveBackend { pool, .. }
            | Self::SetWeight { pool, .. } => Some(pool),
            Self::AddVip { .. } | Self::RemoveVip { .. } | Self::SetAdmin { .. } => None,
        }
    }

    /// The object's value before the change in `model`, in words, for the log and the CLI.
    pub fn before(&self, model: &Model) -> Option<String> {
        match self {
            Self::AddVip { .. } | Self::AddBackend { .. } => None,
            Self::RemoveVip { name } => {
                model.vips.get(name).map(|vip| format!("{} to pool {}", vip.endpoint(), vip.pool))
            }
            Self::RemoveBackend { pool, address } => model
                .backend(*address, Some(pool))
                .ok()
                .map(|(_, backend)| format!("weight {}, {}", backend.weight, backend.admin)),
            Self::SetWeight { pool, address, .. } => {
                model.backend(*address, Some(pool)).ok().map(|(_, backend)| backend.weight.to_string())
            }
            Self::SetAdmin { pool, address, .. } => {
                model.backend(*address, Some(pool)).ok().map(|(_, backend)| backend.admin.to_string())
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddVip { vip } => {
                write!(f, "VIP {} added: {} to pool {}", vip.name, vip.endpoint(), vip.pool)
            }
            Self::RemoveVip { name } => write!(f, "VIP {name} removed"),
            Self::AddBackend { pool, backend: Backend { address, weight, admin } } => {
                write!(f, "backend {address} added to pool {pool}: weight {weight}, {admin}")
            }
            Self::RemoveBackend { pool, address } => {
                write!(f, "backend {address} removed from pool {pool}")
            }
            Self::SetWeight { pool, address, weight } => {
                write!(f, "backend {address} of pool {pool}: weight {weight}")
            }
            Self::SetAdmin { pool, address, state } => {
                write!(f, "backend {address} of pool {pool}: {state}")
            }
        }
    }
}
