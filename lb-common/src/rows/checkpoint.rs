//! A history as bytes, to survive a restart or to be taken to another load balancer.
//!
//! Integers big-endian, addresses 16 bytes in network order:
//!
//! ```text
//! "BOWLROWS"  format u32  contract u32  epoch u64  seed u64  rows_log2 u8  slack_permille u16
//! members     u32 count, then each: address, weight u16       the newest epoch
//! prepared    u8 0 or 1; if 1: members as above                the epoch that was prepared and not committed
//! addresses   u32 count, then each                             everybody in a chain, ascending
//! rows        2^rows_log2 times: four chain members, standby   u16 each: indices of addresses, 0xffff = none
//! checksum    u64                                              XXH64, seed 0, of everything before it
//! ```
//!
//! The checksum is the last eight bytes in every format, so that a damaged file is never taken for a newer one.

use alloc::vec::Vec;
use core::fmt;

use xxhash_rust::xxh64::xxh64;

use super::{
    CONTRACT_VERSION, MAX_MEMBERS, Member, NONE, ROWS_LOG2,
    history::{CHAIN_LEN, History, PoolSpec, Remembered},
};
use crate::address::Address;

/// Version of the bytes.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"BOWLROWS";
const CHECKSUM_LEN: usize = 8;

/// What a load balancer must know of a pool to go on where it, or another one, was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Up to the newest committed epoch.
    pub history: History,
    /// The members of the epoch that was prepared, if one was.
    pub prepared: Option<Vec<Member>>,
}

/// Why bytes are no checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointError {
    /// They do not begin as one.
    Foreign,
    /// Cut off, or changed since they were written.
    Damaged,
    /// Of a later format.
    NewerFormat { found: u32 },
    /// Rows of another contract mean other flows.
    OtherContract { found: u32 },
}

impl Checkpoint {
    /// The bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let History { epoch, spec, addresses, rows } = &self.history;
        let mut out = Vec::with_capacity(64 + 18 * spec.members.len() + 10 * rows.len());
        out.extend(MAGIC);
        out.extend(FORMAT.to_be_bytes());
        out.extend(CONTRACT_VERSION.to_be_bytes());
        out.extend(epoch.to_be_bytes());
        out.extend(spec.seed.to_be_bytes());
        out.push(spec.rows_log2);
        out.extend(spec.slack_permille.to_be_bytes());
        put_members(&mut out, &spec.members);
        out.push(u8::from(self.prepared.is_some()));
        if let Some(prepared) = &self.prepared {
            put_members(&mut out, prepared);
        }
        out.extend((addresses.len() as u32).to_be_bytes());
        out.extend(addresses.iter().flat_map(|address| *address.bytes()));
        for row in rows {
            out.extend(row.chain.into_iter().chain([row.standby]).flat_map(u16::to_be_bytes));
        }
        let checksum = xxh64(&out, 0);
        out.extend(checksum.to_be_bytes());
        out
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CheckpointError> {
        if !bytes.starts_with(MAGIC) {
            return Err(CheckpointError::Foreign);
        }
        let (content, checksum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(CheckpointError::Damaged)?;
        if xxh64(content, 0) != u64::from_be_bytes(*checksum) {
            return Err(CheckpointError::Damaged);
        }
        let mut reader = Reader(content.get(MAGIC.len()..).unwrap_or_default());
        let format = u32::from_be_bytes(reader.take()?);
        if format > FORMAT {
            return Err(CheckpointError::NewerFormat { found: format });
        }
        let contract = u32::from_be_bytes(reader.take()?);
        if contract != CONTRACT_VERSION {
            return Err(CheckpointError::OtherContract { found: contract });
        }
        let checkpoint = reader.checkpoint()?;
        if reader.0.is_empty() { Ok(checkpoint) } else { Err(CheckpointError::Damaged) }
    }
}

fn put_members(out: &mut Vec<u8>, members: &[Member]) {
    out.extend((members.len() as u32).to_be_bytes());
    for member in members {
        out.extend(member.address.bytes());
        out.extend(member.weight.to_be_bytes());
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(CheckpointError::Damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, CheckpointError> {
        self.take().map(u16::from_be_bytes)
    }

    /// A number of members or addresses.
    fn count(&mut self) -> Result<usize, CheckpointError> {
        let count = u32::from_be_bytes(self.take()?) as usize;
        if count <= MAX_MEMBERS { Ok(count) } else { Err(CheckpointError::Damaged) }
    }

    fn address(&mut self) -> Result<Address, CheckpointError> {
        self.take().map(Address::from_v6_bytes)
    }

    fn members(&mut self) -> Result<Vec<Member>, CheckpointError> {
        let count = self.count()?;
        (0..count).map(|_| Ok(Member { address: self.address()?, weight: self.u16()? })).collect()
    }

    fn checkpoint(&mut self) -> Result<Checkpoint, CheckpointError> {
        let epoch = u64::from_be_bytes(self.take()?);
        let seed = u64::from_be_bytes(self.take()?);
        let [rows_log2] = self.take()?;
        let slack_permille = self.u16()?;
        let members = self.members()?;
        let prepared = match self.take()? {
            [0] => None,
            [1] => Some(self.members()?),
            _ => return Err(CheckpointError::Damaged),
        };
        let count = self.count()?;
        let addresses = (0..count).map(|_| self.address()).collect::<Result<Vec<_>, _>>()?;
        if !ROWS_LOG2.contains(&rows_log2) || !addresses.is_sorted_by(|a, b| a < b) {
            return Err(CheckpointError::Damaged);
        }
        let rows = (0..1_u32 << rows_log2).map(|_| self.row(count)).collect::<Result<Vec<_>, _>>()?;
        let spec = PoolSpec::new(seed, rows_log2, slack_permille, members);
        Ok(Checkpoint { history: History { epoch, spec, addresses, rows }, prepared })
    }

    fn row(&mut self, addresses: usize) -> Result<Remembered, CheckpointError> {
        let mut chain = [NONE; CHAIN_LEN];
        for member in &mut chain {
            *member = self.u16()?;
        }
        let standby = self.u16()?;
        let known = |member: &u16| *member == NONE || usize::from(*member) < addresses;
        let sound = chain[0] != NONE && chain.iter().all(known) && known(&standby);
        if sound { Ok(Remembered { chain, standby }) } else { Err(CheckpointError::Damaged) }
    }
}

impl core::error::Error for CheckpointError {}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("this is no history of a pool"),
            Self::Damaged => f.write_str("the checksum or the contents are wrong"),
            Self::NewerFormat { found } => {
                write!(f, "it has format {found}, this bowline reads up to format {FORMAT}")
            }
            Self::OtherContract { found } => {
                write!(f, "its rows follow contract {found}, this bowline's contract {CONTRACT_VERSION}")
            }
        }
    }
}
