//! The only door to packet bytes.
//!
//! Parsing and encapsulation are written against these traits and never against slices: the same code over
//! `&[u8]` is refused by the kernel's verifier, which wants a comparison of pointers before each access.
//! The XDP and TC programs implement them over their contexts; [`Frame`] and [`FrameBuf`] over memory.

#[cfg(feature = "alloc")]
use alloc::vec::Vec;

/// Read access to a packet, from the first byte of its Ethernet header.
pub trait Packet {
    /// Length of the whole frame in bytes, link-layer padding included.
    fn len(&self) -> usize;

    /// `N` bytes at `offset`, or `None` where the frame ends before.
    ///
    /// Lent and not copied: a copy of a header takes more stack than a program in the kernel has.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Write access to a packet.
pub trait PacketMut: Packet {
    /// Puts `bytes` new bytes in front; what they hold is undefined. `false`: there is no room, nothing changed.
    fn grow_head(&mut self, bytes: usize) -> bool;

    /// Overwrites `N` bytes at `offset`; `false` where the frame ends before, and then nothing changed.
    fn write<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> bool;
}

/// A packet in borrowed memory.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a>(pub &'a [u8]);

impl Packet for Frame<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.0.get(offset..)?.first_chunk()
    }
}

/// A packet in memory of its own, with as much room in front as a network driver gives.
#[cfg(feature = "alloc")]
#[derive(Clone, Debug)]
pub struct FrameBuf {
    bytes: Vec<u8>,
    headroom: usize,
}

/// XDP_PACKET_HEADROOM of the kernel: what a driver leaves in front of each frame.
#[cfg(feature = "alloc")]
const HEADROOM: usize = 256;

#[cfg(feature = "alloc")]
impl FrameBuf {
    /// A copy of `frame`.
    pub fn new(frame: &[u8]) -> Self {
        Self { bytes: frame.to_vec(), headroom: HEADROOM }
    }

    /// The frame as it is now.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(feature = "alloc")]
impl Packet for FrameBuf {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.bytes.get(offset..)?.first_chunk()
    }
}

#[cfg(feature = "alloc")]
impl PacketMut for FrameBuf {
    fn grow_head(&mut self, bytes: usize) -> bool {
        if bytes > self.headroom {
            return false;
        }
        self.headroom -= bytes;
        // 0xa5 and not zero, so that a byte that nobody writes shows in a test.
        self.bytes.splice(..0, core::iter::repeat_n(0xa5, bytes));
        true
    }

    fn write<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> bool {
        match self.bytes.get_mut(offset..).and_then(|rest| rest.first_chunk_mut::<N>()) {
            Some(place) => {
                *place = *bytes;
                true
            }
            None => false,
        }
    }
}
