//! The door to packet bytes over an XDP context.

use aya_ebpf::{EbpfContext as _, helpers::bpf_xdp_adjust_head, programs::XdpContext};
use lb_common::packet::{Packet, PacketMut};

/// Largest offset that is ever asked for: two VLAN tags, and four IPv6 extension headers of 2048 bytes.
///
/// The verifier must see a bound before it lets an offset be added to a packet pointer.
const MAX_OFFSET: usize = 0x3fff;

/// The frame that the program was called for.
pub(crate) struct XdpPacket<'a> {
    ctx: &'a XdpContext,
}

impl<'a> XdpPacket<'a> {
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Interface that the frame arrived on.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    /// A pointer to `N` bytes at `offset`, if the frame has them.
    ///
    /// Start and end are read from the context each time, so no pointer outlives a move of the head.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let start = self.ctx.data() + offset;
        // SAFETY: frames start at even addresses (drivers align the IP header to two bytes at least), and every header
        // and option has an even length. Without this the compiler copies byte by byte, each on its own stack slot.
        unsafe { core::hint::assert_unchecked(start.is_multiple_of(2)) };
        (start + N <= self.ctx.data_end()).then_some(start as *mut [u8; N])
    }
}

impl Packet for XdpPacket<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        // SAFETY: `at` compared the pointer and its end with the frame's, byte arrays have no alignment, and the borrow
        // of `self` keeps the head from moving.
        self.at::<N>(offset).map(|bytes| unsafe { &*bytes })
    }
}

impl PacketMut for XdpPacket<'_> {
    #[inline(always)]
    fn grow_head(&mut self, bytes: usize) -> bool {
        // SAFETY: the context is the one the kernel gave; pointers are read from it anew after this call.
        unsafe { bpf_xdp_adjust_head(self.ctx.as_ptr().cast(), -(bytes.cast_signed() as i32)) == 0 }
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> bool {
        match self.at::<N>(offset) {
            Some(place) => {
                // SAFETY: as in `bytes`, and nobody else holds a reference into the frame.
                unsafe { *place = *bytes };
                true
            }
            None => false,
        }
    }
}
