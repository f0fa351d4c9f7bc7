//! The door to packet bytes over a TC context.

use aya_ebpf::programs::TcContext;
use lb_common::packet::Packet;

/// The packet that the program was called for.
pub(crate) struct TcPacket<'a> {
    ctx: &'a TcContext,
}

impl<'a> TcPacket<'a> {
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }
}

impl Packet for TcPacket<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    /// By the kernel's copy helper and not by pointer: a packet that GRO merged is not in one piece.
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.ctx.load(offset).ok()
    }
}
