//! The door to packet bytes over a TC context.

use aya_ebpf::programs::TcContext;
use lb_common::packet::Packet;

/// Bytes at the start of a packet that are made contiguous before it is judged: the outer headers, a chain and the inner
/// headers, extension headers included. What lies behind is payload.
const HEADERS: u32 = 512;

/// Largest offset that is ever asked for; the verifier must see a bound before it lets an offset be added to a packet
/// pointer.
const MAX_OFFSET: usize = 0x3fff;

/// The packet that the program was called for.
pub(crate) struct TcPacket<'a> {
    ctx: &'a TcContext,
}

impl<'a> TcPacket<'a> {
    /// Makes the headers contiguous: a packet that GRO merged is in pieces.
    #[inline(always)]
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
        let wanted = ctx.len().min(HEADERS);
        if ctx.data_end() - ctx.data() < wanted as usize {
            // If this fails, reads see less than there is, and the packet leaves by the name of what is cut off.
            ctx.pull_data(wanted).unwrap_or_default();
        }
        Self { ctx }
    }

    /// A packet whose headers [`Self::new`] has made contiguous.
    #[inline(always)]
    pub(crate) fn pulled(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }
}

impl Packet for TcPacket<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() {
            return None;
        }
        // SAFETY: frames start at even addresses (drivers align the IP header to two bytes at least), and every header
        // and option has an even length. Without this the compiler copies byte by byte, each on its own stack slot.
        unsafe { core::hint::assert_unchecked(start.is_multiple_of(2)) };
        // SAFETY: the pointer and its end were compared with the packet's, and byte arrays have no alignment. What could
        // move the packet is called only after the last view is gone.
        Some(unsafe { &*(start as *const [u8; N]) })
    }
}
