//! Bytes in the hands of the library, with a count of those that it still has.

use std::{cell::Cell, rc::Rc};

use bytes::{Buf, Bytes};

/// What the library has of one stream.
#[derive(Debug, Default)]
pub(super) struct Queue(Rc<Cell<u64>>);

/// Bytes of one DATA frame, or of several. While there is one the frame has not gone out.
#[derive(Debug)]
pub(super) struct Piece {
    rest: Bytes,
    queued: Rc<Cell<u64>>,
}

impl Queue {
    pub(super) fn piece(&self, bytes: &[u8]) -> Piece {
        self.0.set(self.0.get() + bytes.len() as u64);
        Piece {
            rest: Bytes::copy_from_slice(bytes),
            queued: Rc::clone(&self.0),
        }
    }

    /// Bytes that have not gone out.
    pub(super) fn bytes(&self) -> u64 {
        self.0.get()
    }

    /// Whether any frame has not gone out, be it one without bytes.
    pub(super) fn is_empty(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

impl Piece {
    fn gone(&self, bytes: usize) {
        let left = self.queued.get().saturating_sub(bytes as u64);
        self.queued.set(left);
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.rest.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.rest.chunk()
    }

    fn advance(&mut self, bytes: usize) {
        self.rest.advance(bytes);
        self.gone(bytes);
    }
}

impl Drop for Piece {
    /// With a stream that was reset its frames are dropped.
    fn drop(&mut self) {
        self.gone(self.rest.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_until_they_are_gone_and_frames_until_they_are() {
        let queue = Queue::default();
        let mut first = queue.piece(b"hello");
        let dropped = queue.piece(b"world");
        let end = queue.piece(b"");
        first.advance(2);
        assert_eq!((queue.bytes(), first.chunk()), (8, &b"llo"[..]));
        drop(dropped);
        assert_eq!(queue.bytes(), 3);
        first.advance(3);
        drop(first);
        assert_eq!((queue.bytes(), queue.is_empty()), (0, false));
        drop(end);
        assert!(queue.is_empty());
    }
}
