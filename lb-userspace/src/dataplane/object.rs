//! The compiled eBPF objects, built from `lb-ebpf` by the build script.

use aya::include_bytes_aligned;

/// The load balancer; its program is `bowline_lb`.
pub static LB: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bowline-lb"));

/// The backend's agent; its program is `bowline_agent`.
pub static AGENT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bowline-agent"));

/// An XDP program that passes everything, for the far end of a veth pair; its program is `bowline_pass`.
pub static PASS: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bowline-pass"));
