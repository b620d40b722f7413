//! Memory that the kernel writes to: buffers, and the entries by which it is told which of them are free.
#![allow(
    unsafe_code,
    reason = "memory that the kernel writes to; the crate denies unsafe code elsewhere"
)]

use std::{
    alloc::{self, Layout},
    io,
    mem::size_of,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

/// Buffers that are filled, as many as a power of two. The kernel fills them in turn, so with more than
/// the cache holds each read would miss it; and it reads from some 20 sockets before sessions have their turn.
pub(in crate::ring) const BUFFERS: u16 = 32;
/// Size of each: the least that is read into the scratch, so that all of it has room there.
pub(in crate::ring) const BUFFER: usize = crate::relay::READ_MIN;

/// Largest page of the architectures that Linux runs on: entries of buffers are to begin with one.
const PAGE: usize = 65_536;

/// A buffer that the kernel has filled and given to us. There is one of these for each, so nobody
/// else looks at it; where it is dropped and not given back, the ring has one less.
#[derive(Debug)]
pub(in crate::ring) struct Filled {
    pub(super) number: u16,
    pub(super) len: u32,
}

impl Filled {
    pub(in crate::ring) fn len(&self) -> usize {
        self.len as usize
    }
}

/// Buffers, and the entries by which the kernel is told which of them are free.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    /// Entries that were written, modulo 65,536: the kernel reads up to here.
    tail: u16,
}

// SAFETY: it owns what it points to.
unsafe impl Send for Buffers {}

impl Buffers {
    pub(super) fn new() -> io::Result<Self> {
        let [entries, memory] = Self::layouts()?.map(|layout| {
            // SAFETY: neither is of size 0. Zero is a valid value of both, and costs no memory yet.
            NonNull::new(unsafe { alloc::alloc_zeroed(layout) })
        });
        let (Some(entries), Some(memory)) = (entries, memory) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let mut buffers = Self {
            entries: entries.cast(),
            memory,
            tail: 0,
        };
        for number in 0..BUFFERS {
            buffers.offer(number);
        }
        Ok(buffers)
    }

    /// Where the entries begin, for the kernel.
    pub(super) fn address(&self) -> u64 {
        self.entries.as_ptr() as u64
    }

    /// Has a buffer filled anew.
    #[expect(clippy::needless_pass_by_value, reason = "nobody looks at it any more")]
    pub(super) fn give_back(&mut self, filled: Filled) {
        self.offer(filled.number);
    }

    fn layouts() -> io::Result<[Layout; 2]> {
        let entries = size_of::<BufRingEntry>() * usize::from(BUFFERS);
        let memory = BUFFER * usize::from(BUFFERS);
        let layout = |size| Layout::from_size_align(size, PAGE).map_err(io::Error::other);
        Ok([layout(entries)?, layout(memory)?])
    }

    fn start(&self, number: u16) -> *mut u8 {
        let offset = usize::from(number % BUFFERS) * BUFFER;
        // SAFETY: numbers are below `BUFFERS`, so it is within the memory.
        unsafe { self.memory.as_ptr().add(offset) }
    }

    pub(super) fn bytes(&self, filled: &Filled) -> &[u8] {
        let len = filled.len().min(BUFFER);
        // SAFETY: within the memory, which was zero at first. The kernel writes only to buffers that are
        // offered, and this one is not again before its only `Filled` is given up.
        unsafe { slice::from_raw_parts(self.start(filled.number), len) }
    }

    /// Tells the kernel that it may fill a buffer: one that it was not told of, or of which the
    /// `Filled` was given up.
    fn offer(&mut self, number: u16) {
        let start = self.start(number);
        let at = usize::from(self.tail % BUFFERS);
        // SAFETY: within the entries, which are page-aligned, of this type, and never more than there are
        // buffers: the kernel reads an entry only when the tail is beyond it.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(at);
            entry.set_addr(start as u64);
            entry.set_len(u32::try_from(BUFFER).unwrap_or(0));
            entry.set_bid(number);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail has its place in the first entry, aligned, and is written by nobody but us.
        let tail =
            unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let Ok([entries, memory]) = Self::layouts() else {
            return;
        };
        // SAFETY: allocated with these layouts. The ring has no operation that could write to them, or it
        // would have forgotten this; the kernel itself keeps the pages of entries for as long as it reads.
        unsafe {
            alloc::dealloc(self.entries.as_ptr().cast(), entries);
            alloc::dealloc(self.memory.as_ptr(), memory);
        }
    }
}
