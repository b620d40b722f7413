//! Content in one direction: taken from how one side frames it, given in the framing of the other. Never more
//! of it is here than was read at once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use super::trailer;
use crate::{
    handshake::{Body, BodyEnd, Part},
    open::poll_fill,
    stream::Stream,
    worker::Worker,
};

/// How content goes out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked,
    /// Whoever gets it sees its end in another way.
    UntilEnd,
    /// There is none.
    Nothing,
}

/// Why content does not go on.
#[derive(Debug)]
pub(super) enum Stuck {
    /// Its sender is gone.
    Sender,
    /// Its sender breaks the rules.
    Malformed,
    /// Its receiver is gone.
    Receiver,
}

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) bytes: Vec<u8>,
    sent: usize,
}

impl Out {
    /// Whether some were taken and others were not.
    pub(super) fn is_torn(&self) -> bool {
        self.sent > 0
    }

    /// Hands all to the kernel, TLS's included.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut Stream,
        moved: &mut bool,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.bytes[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
            *moved = true;
        }
        (self.bytes, self.sent) = (Vec::new(), 0);
        Pin::new(to).poll_flush(cx)
    }
}

/// Content in one direction.
#[derive(Debug)]
pub(super) struct Content {
    body: Body,
    framing: Framing,
    trailer: Vec<u8>,
    is_whole: bool,
    pub(super) out: Out,
    /// Bytes of it that came.
    pub(super) bytes: u64,
}

impl Content {
    /// Content that comes as `body` says.
    pub(super) fn new(body: Body, framing: Framing) -> Self {
        Self {
            body,
            framing,
            trailer: Vec::new(),
            is_whole: framing == Framing::Nothing || body == Body::Length(0),
            out: Out::default(),
            bytes: 0,
        }
    }

    /// Moves content for as long as both sides let it; done when all of it is handed over. What `received`
    /// has goes first, and what comes behind the content stays there.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
        (from, received): (&mut Stream, &mut Vec<u8>),
        to: &mut Stream,
        moved: &mut bool,
    ) -> Poll<Result<(), Stuck>> {
        loop {
            ready!(self.out.poll_send(cx, to, moved)).map_err(|_| Stuck::Receiver)?;
            if self.is_whole {
                if self.framing == Framing::UntilEnd && !self.trailer.is_empty() {
                    to.end_with(&self.trailer).map_err(|_| Stuck::Receiver)?;
                }
                return Poll::Ready(Ok(()));
            }
            if received.is_empty() {
                let n = ready!(poll_fill(cx, worker, from, received));
                match n.map_err(|_| Stuck::Sender)? {
                    0 if self.body == Body::UntilEnd => {
                        let trailer = ready!(from.poll_trailer(cx));
                        let trailer = trailer.map_err(|_| Stuck::Sender)?;
                        self.trailer = trailer::pass(&trailer).ok_or(Stuck::Malformed)?;
                        self.end();
                    }
                    0 => return Poll::Ready(Err(Stuck::Sender)),
                    _ => *moved = true,
                }
            }
            self.take(received)?;
        }
    }

    /// Takes what of `received` is content.
    fn take(&mut self, received: &mut Vec<u8>) -> Result<(), Stuck> {
        if self.is_whole || received.is_empty() {
            return Ok(());
        }
        let mut data = 0;
        let mut ahead = self.body;
        ahead.pass(received, |part, bytes| {
            if part == Part::Data {
                data += bytes.len();
            }
        });
        self.bytes += data as u64;
        let out = &mut self.out.bytes;
        let is_chunk = data > 0 && self.framing == Framing::Chunked;
        if is_chunk {
            out.extend_from_slice(format!("{data:x}\r\n").as_bytes());
        }
        let trailer = &mut self.trailer;
        let end = self.body.pass(received, |part, bytes| match part {
            Part::Data => out.extend_from_slice(bytes),
            Part::Trailer => trailer.extend_from_slice(bytes),
        });
        if is_chunk {
            out.extend_from_slice(b"\r\n");
        }
        match end {
            BodyEnd::More => received.clear(),
            BodyEnd::Broken(_) => return Err(Stuck::Malformed),
            BodyEnd::At(end) => {
                received.drain(..end);
                let trailer = trailer::pass(&self.trailer).ok_or(Stuck::Malformed)?;
                self.trailer = trailer;
                self.end();
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        self.is_whole = true;
        if self.framing == Framing::Chunked {
            let out = &mut self.out.bytes;
            out.extend_from_slice(b"0\r\n");
            out.extend_from_slice(&self.trailer);
            out.extend_from_slice(b"\r\n");
        }
    }
}
