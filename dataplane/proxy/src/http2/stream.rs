//! One stream of HTTP/2 in the form of a connection of HTTP/1.1: the handshake is read from it and
//! answered on it as on a socket, and behind it come the frames.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::pin,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::HeaderMap;
use tokio::io::ReadBuf;

use super::{
    answer,
    piece::{Piece, Queue},
};
use crate::{
    handshake::{Body, BodyEnd, Fields, Outcome, Part, ResponseParser},
    stats::Open,
    stream::Stream,
    sys,
    tls::Agreed,
};

/// A client's stream.
#[derive(Debug)]
pub(crate) struct Http2Stream {
    /// What came and was not read yet: the head first, then what is in DATA frames. The client may
    /// send more only as this is read (RFC 9113 section 5.2).
    unread: Bytes,
    /// How much of it counts for no flow control: the head.
    head: usize,
    input: RecvStream,
    output: Output,
    /// What was taken and the connection has not sent.
    queue: Queue,
    /// What it is one of.
    connection: Weak<RefCell<Stream>>,
    /// How many streams of the connection have come to nothing yet.
    fruitless: Rc<Cell<u32>>,
    /// In the books of its listener until it is dropped.
    _open: Open,
}

#[derive(Debug)]
enum Output {
    /// The answer's head is not whole.
    Head {
        respond: SendResponse<Piece>,
        received: Vec<u8>,
    },
    /// It was sent; what follows goes into DATA frames.
    Data(SendStream<Piece>, Follows),
}

/// What follows the head of an answer.
#[derive(Debug)]
enum Follows {
    /// Frames of WebSocket.
    Frames,
    /// The content of an answer other than 101.
    Content(Body),
    /// All was said.
    Nothing,
}

impl Http2Stream {
    /// `head` is the request as HTTP/1.1 has it.
    pub(super) fn new(
        head: Vec<u8>,
        (input, respond): (RecvStream, SendResponse<Piece>),
        connection: Weak<RefCell<Stream>>,
        fruitless: Rc<Cell<u32>>,
        open: Open,
    ) -> Self {
        Self {
            head: head.len(),
            unread: Bytes::from(head),
            input,
            output: Output::Head {
                respond,
                received: Vec::new(),
            },
            queue: Queue::default(),
            connection,
            fruitless,
            _open: open,
        }
    }

    /// Reads what is there; nothing: the client has ended its half.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            if self.unread.is_empty() {
                // What was read so far is given first: an end or an error tells itself again.
                let is_first = buf.filled().len() == before;
                self.unread = match self.input.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => data,
                    Poll::Ready(Some(Err(error))) if is_first => {
                        return Poll::Ready(Err(broken(error)));
                    }
                    Poll::Pending if is_first => return Poll::Pending,
                    _ => break,
                };
                continue;
            }
            let n = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..n]);
            self.unread.advance(n);
            if self.head > 0 {
                // A read of its own, as a client's early frames come behind it.
                self.head -= n;
                break;
            }
            // An error here is one of the stream, of which the next read tells.
            drop(self.input.flow_control().release_capacity(n));
        }
        Poll::Ready(Ok(()))
    }

    /// Takes as much as flow control lets through.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let (stream, follows) = match &mut self.output {
            Output::Head { .. } => return Poll::Ready(self.answer(bytes)),
            Output::Data(stream, follows) => (stream, follows),
        };
        if matches!(follows, Follows::Nothing) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = ready!(poll_room(stream, cx, bytes.len()))?;
        let bytes = &bytes[..n];
        let Follows::Content(body) = follows else {
            send(stream, self.queue.piece(bytes), false)?;
            return Poll::Ready(Ok(n));
        };
        let (content, end) = content(body, bytes);
        if let BodyEnd::Broken(_) = end {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let is_last = end != BodyEnd::More;
        if is_last || !content.is_empty() {
            send(stream, self.queue.piece(&content), is_last)?;
        }
        if is_last {
            *follows = Follows::Nothing;
        }
        Poll::Ready(Ok(n))
    }

    /// Takes bytes of the answer's head, and sends it when it is whole.
    fn answer(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Output::Head { respond, received } = &mut self.output else {
            return Ok(0);
        };
        let before = received.len();
        received.extend_from_slice(bytes);
        let mut parser = ResponseParser::default();
        let (response, end) = match parser.parse(received) {
            Outcome::NeedMore => return Ok(bytes.len()),
            Outcome::Done(response, end) if response.is_interim() => {
                let (head, _) = answer::head(&response);
                respond.send_informational(head).map_err(broken)?;
                received.clear();
                return Ok(end.saturating_sub(before));
            }
            Outcome::Done(response, end) => (response, end),
            Outcome::Bad(bad) => return Err(io::Error::other(bad)),
        };
        let (head, is_empty) = answer::head(&response);
        let follows = match response.status {
            101 => Follows::Frames,
            _ if is_empty => Follows::Nothing,
            _ => Follows::Content(response.body),
        };
        let stream = respond.send_response(head, is_empty).map_err(broken)?;
        self.output = Output::Data(stream, follows);
        Ok(end.saturating_sub(before))
    }

    /// Says that no more will be sent. Nothing waits here: what was taken is the connection's to send.
    pub(crate) fn end_output(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Head { .. } | Output::Data(_, Follows::Nothing) => Ok(()),
            Output::Data(stream, follows) => {
                *follows = Follows::Nothing;
                send(stream, self.queue.piece(&[]), true)
            }
        }
    }

    /// Says the same with fields behind the content.
    pub(crate) fn end_with(&mut self, trailer: &Fields<'_>) -> io::Result<()> {
        match &mut self.output {
            Output::Head { .. } | Output::Data(_, Follows::Nothing) => Ok(()),
            Output::Data(stream, follows) => {
                *follows = Follows::Nothing;
                let sent = stream.send_trailers(answer::fields(trailer));
                sent.map_err(broken)
            }
        }
    }

    /// The fields behind the content of the request, once that was read to its end.
    pub(crate) fn poll_trailer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<HeaderMap>>> {
        let trailer = pin!(self.input.trailers());
        trailer.poll(cx).map_err(broken)
    }

    /// It has come to something.
    pub(crate) fn bears_fruit(&self) {
        self.fruitless.set(self.fruitless.get().saturating_sub(1));
    }

    /// Ends the stream at once, which is what a reset of a connection is here (RFC 8441 section 5).
    pub(crate) fn reset(&mut self) {
        match &mut self.output {
            Output::Head { respond, .. } => respond.send_reset(Reason::CANCEL),
            Output::Data(stream, _) => stream.send_reset(Reason::CANCEL),
        }
    }

    /// Ready when the client has reset the stream.
    pub(crate) fn poll_taken_back(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.output {
            Output::Head { respond, .. } => respond.poll_reset(cx).map(drop),
            Output::Data(stream, _) => stream.poll_reset(cx).map(drop),
        }
    }

    /// Where the content of the request ends, of which the head says so much: with the stream's input,
    /// unless a length is there (RFC 9113 section 8.1.1).
    pub(crate) fn content(&self, body: Body) -> Body {
        match body {
            Body::Length(0) if !self.input.is_end_stream() => Body::UntilEnd,
            body => body,
        }
    }

    /// Bytes that were taken and have not gone out: the client's flow control holds them back, or the
    /// connection's socket does.
    pub(crate) fn queued(&self) -> u64 {
        self.queue.bytes()
    }

    /// More than 0 while something of the stream may not have come to the client's kernel. What is on
    /// its way there can be another stream's.
    pub(crate) fn undelivered(&self) -> u64 {
        let connection = self.connection.upgrade();
        let open = connection.map_or(0, |connection| connection.borrow().untaken());
        self.queue.bytes() + u64::from(!self.queue.is_empty()) + open
    }

    /// What TLS has come to on the connection.
    pub(crate) fn agreed(&self) -> Option<Agreed> {
        self.connection.upgrade()?.borrow().agreed()
    }

    /// What the kernel waits for from the client.
    pub(crate) fn awaited(&self) -> io::Result<sys::Awaited> {
        let connection = self.connection.upgrade();
        let connection = connection.ok_or(io::ErrorKind::NotConnected)?;
        connection.borrow().awaited()
    }
}

/// How many of `wanted` bytes may be sent now.
fn poll_room(
    stream: &mut SendStream<Piece>,
    cx: &mut Context<'_>,
    wanted: usize,
) -> Poll<io::Result<usize>> {
    stream.reserve_capacity(wanted);
    loop {
        let room = stream.capacity();
        if room > 0 || wanted == 0 {
            return Poll::Ready(Ok(room.min(wanted)));
        }
        match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

fn send(stream: &mut SendStream<Piece>, piece: Piece, is_last: bool) -> io::Result<()> {
    stream.send_data(piece, is_last).map_err(broken)
}

/// The bytes of an answer's content without their coding, and how far it goes.
fn content(body: &mut Body, bytes: &[u8]) -> (Vec<u8>, BodyEnd) {
    let mut content = Vec::with_capacity(bytes.len());
    let end = body.pass(bytes, |part, bytes| {
        if part == Part::Data {
            content.extend_from_slice(bytes);
        }
    });
    (content, end)
}

fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        let error = error.into_io();
        return error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_become_content_however_they_are_cut() {
        let chunks = b"5\r\nhello\r\n0a;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n";
        for cut in 0..chunks.len() {
            let mut body = Body::chunked();
            let (mut all, end) = content(&mut body, &chunks[..cut]);
            assert_eq!(end, BodyEnd::More);
            let (rest, end) = content(&mut body, &chunks[cut..]);
            assert!(matches!(end, BodyEnd::At(_)));
            all.extend(rest);
            assert_eq!(all, b"hello0123456789");
        }
    }

    #[test]
    fn content_of_a_length_ends_there() {
        let mut body = Body::Length(8);
        assert_eq!(
            content(&mut body, b"hello"),
            (b"hello".to_vec(), BodyEnd::More)
        );
        let last = content(&mut body, b"you and more");
        assert_eq!(last, (b"you".to_vec(), BodyEnd::At(3)));
    }
}
