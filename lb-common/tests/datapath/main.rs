//! The datapath's decisions on the host, with etherparse as the second source for every header.

mod agent;
mod decide;
mod encap;
mod manual;
mod support;
