//! Bowline's decisions as plain functions.
//!
//! ```text
//! packet -> parse -> VIP -> row -> chain -> backend -> encapsulate        (decide, encap)
//! tunnel packet -> acceptable? -> merge ECN -> decapsulate                (agent)
//! members -> rank -> owner, standby -> rows                               (rows)
//! ```
//!
//! The XDP and TC programs, the tests, `explain` and the simulator all run this code. It is generic over access
//! to packet bytes ([`packet`]) and to tables ([`tables`]); it reads no clock and has no state.
//!
//! Byte order: addresses, ports and whatever else goes on the wire are byte arrays in network order. Integers are
//! native.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod abi;
pub mod address;
pub mod agent;
pub mod chain;
pub mod checksum;
pub mod decide;
pub mod ecn;
pub mod encap;
pub mod flow;
#[cfg(feature = "alloc")]
pub mod memory;
pub mod packet;
pub mod parse;
pub mod reason;
#[cfg(feature = "alloc")]
pub mod rows;
pub mod tables;
pub mod wire;
