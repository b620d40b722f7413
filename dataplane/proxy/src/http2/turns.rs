//! A connection whose reader lets others have their turn: of small frames a few reads are thousands, and the
//! library goes on for as long as there are any.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// Bytes that are read in one turn.
const TURN: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct Turns {
    /// Of which the streams in it ask what its peer has taken.
    stream: Rc<RefCell<Stream>>,
    /// What was read in this one.
    bytes: usize,
}

impl From<Stream> for Turns {
    fn from(stream: Stream) -> Self {
        Self {
            stream: Rc::new(RefCell::new(stream)),
            bytes: 0,
        }
    }
}

impl Turns {
    /// The connection, for as long as there is one.
    pub(super) fn connection(&self) -> Weak<RefCell<Stream>> {
        Rc::downgrade(&self.stream)
    }
}

impl AsyncRead for Turns {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes >= TURN {
            self.bytes = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf);
        match read {
            Poll::Ready(_) => self.bytes += buf.filled().len() - before,
            Poll::Pending => self.bytes = 0,
        }
        read
    }
}

impl AsyncWrite for Turns {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }
}
