//! A client's or endpoint's connection: TCP, with TLS or without, or one stream of a connection of
//! HTTP/2. TCP without TLS is with a ring in sessions, where `io_uring` was asked for. All that moves bytes goes
//! through here; where it is plain TCP that costs a branch or two.

use std::{
    future::{Future, pending, poll_fn},
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready},
    net::TcpStream,
};

use crate::{
    forward,
    handshake::{Body, Fields},
    http2::{self, Http2Stream},
    ring::RingStream,
    sys::{self, Push},
    tls::{Agreed, Tls},
};

/// Where the kernel probes: silence after which it does, and how often it then does.
const PROBE_AFTER: Duration = Duration::from_mins(1);
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// What bytes are read from and written to.
#[derive(Debug)]
pub(crate) enum Stream {
    /// A TCP connection, and TLS on it if that was agreed.
    // `Box`: sessions without TLS pay one word for it.
    Tcp(TcpStream, Option<Box<Tls>>),
    /// Something else.
    // One variant: there is room for its mark in the descriptor of the other, and for no second.
    Other(Other),
}

/// What is no TCP connection of the event loop's own.
#[derive(Debug)]
pub(crate) enum Other {
    /// One of the streams of a client's connection.
    Http2(Box<Http2Stream>),
    /// A TCP connection that the event loop does not know.
    Ring(Box<RingStream>),
}

impl Stream {
    /// Does the handshake of `tls`, and speaks it from then on. An error of TLS holds a
    /// [`rustls::Error`].
    pub(crate) async fn secure(&mut self, tls: Box<Tls>) -> io::Result<()> {
        match self {
            Self::Tcp(tcp, spoken) => spoken.insert(tls).handshake(tcp).await,
            Self::Other(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether TLS protects it.
    pub(crate) fn is_secure(&self) -> bool {
        match self {
            Self::Tcp(_, tls) => tls.is_some(),
            // It is spoken where TLS has agreed on it, and nowhere else.
            Self::Other(Other::Http2(_)) => true,
            Self::Other(Other::Ring(_)) => false,
        }
    }

    /// The socket, if it is its own.
    fn socket(&self) -> Result<BorrowedFd<'_>, &Http2Stream> {
        match self {
            Self::Tcp(tcp, _) => Ok(tcp.as_fd()),
            Self::Other(Other::Ring(ring)) => Ok(ring.as_fd()),
            Self::Other(Other::Http2(stream)) => Err(stream),
        }
    }

    /// Whether TLS has agreed that HTTP/2 is spoken on it.
    pub(crate) fn carries_http2(&self) -> bool {
        match self {
            Self::Tcp(_, Some(tls)) => tls.carries_http2(),
            _ => false,
        }
    }

    /// Reads what has come by TCP alone. `None`: nothing has, or it must be asked with `poll_read`. By this nobody
    /// is woken.
    #[inline]
    pub(crate) fn read_ready(&self, room: &mut [u8]) -> Option<io::Result<usize>> {
        let Self::Tcp(tcp, None) = self else {
            return None;
        };
        let mut read = None;
        let asked = tcp.try_io(Interest::READABLE, || {
            let result = sys::receive(tcp, room);
            // Less than there is room for: there is no more, which a read that finds nothing would tell at the
            // price of a call.
            note(&mut read, result, |n| n > 0 && n < room.len())
        });
        drop(asked);
        read
    }

    /// Writes what TCP alone takes now. `None`: it takes nothing, or it must be asked with `poll_write`.
    #[inline]
    pub(crate) fn write_ready(&self, bytes: &[u8], push: Push) -> Option<io::Result<usize>> {
        let Self::Tcp(tcp, None) = self else {
            return None;
        };
        let mut written = None;
        let asked = tcp.try_io(Interest::WRITABLE, || {
            let result = sys::send(tcp, bytes, push);
            note(&mut written, result, |n| n < bytes.len())
        });
        drop(asked);
        written
    }

    /// Has the task woken when something comes by TCP alone. Ready: only a read tells whether something has.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(tcp, None) => tcp.poll_read_ready(cx).map(drop),
            Self::Tcp(_, Some(_)) | Self::Other(_) => Poll::Ready(()),
        }
    }

    /// Whether the peer of one by TCP alone has ended its output, and in order, as far as the event loop was told
    /// when it looked last. What came before that may still be to read.
    pub(crate) fn has_ended(&self) -> bool {
        let Self::Tcp(tcp, None) = self else {
            return false;
        };
        let told = pin!(tcp.ready(Interest::READABLE | Interest::ERROR));
        let told = told.poll(&mut Context::from_waker(Waker::noop()));
        let is_end = |ready: Ready| ready.is_read_closed() && !ready.is_error();
        matches!(told, Poll::Ready(Ok(ready)) if is_end(ready))
    }

    /// What TLS has come to with the client.
    pub(crate) fn agreed(&self) -> Option<Agreed> {
        match self {
            Self::Tcp(_, tls) => tls.as_ref().map(|tls| tls.agreed()),
            Self::Other(Other::Http2(stream)) => stream.agreed(),
            Self::Other(Other::Ring(_)) => None,
        }
    }

    /// Whether it is one stream of several.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Other(Other::Http2(_)))
    }

    /// The status that its client sees for one of HTTP/1.1.
    pub(crate) fn status(&self, of_http1: u16) -> u16 {
        match self {
            Self::Tcp(..) | Self::Other(Other::Ring(_)) => of_http1,
            Self::Other(Other::Http2(_)) => http2::status(of_http1),
        }
    }

    /// Whether it has taken bytes that the kernel has not: they go out with a flush.
    pub(crate) fn holds(&self) -> bool {
        matches!(self, Self::Tcp(_, Some(tls)) if tls.holds())
    }

    /// Bytes that the kernel was given, where these are not the ones that were written.
    pub(crate) fn sealed(&self) -> Option<u64> {
        match self {
            Self::Tcp(_, tls) => tls.as_ref().map(|tls| tls.sent()),
            Self::Other(_) => None,
        }
    }

    /// Bytes handed over that its peer has not taken: acknowledged by its kernel, or, where the
    /// kernel's word is about all streams of a connection, let through by its flow control.
    pub(crate) fn untaken(&self) -> u64 {
        match self.socket() {
            Ok(socket) => sys::unacknowledged(&socket).unwrap_or(0),
            Err(stream) => stream.queued(),
        }
    }

    /// Bytes handed over that have not been sent, as its peer or the way to it has no room for them.
    pub(crate) fn waiting(&self) -> u64 {
        let held = match self {
            Self::Tcp(_, Some(tls)) => tls.held(),
            _ => 0,
        };
        match self.socket() {
            Ok(socket) => held + sys::not_sent(&socket).unwrap_or(0),
            Err(stream) => stream.queued(),
        }
    }

    /// More than 0 for as long as something handed over, its end included, may not have come to the
    /// kernel of its peer.
    pub(crate) fn undelivered(&self) -> u64 {
        match self.socket() {
            Ok(socket) => sys::unacknowledged(&socket).unwrap_or(0),
            Err(stream) => stream.undelivered(),
        }
    }

    /// What the kernel waits for from its peer.
    pub(crate) fn awaited(&self) -> io::Result<sys::Awaited> {
        match self.socket() {
            Ok(socket) => sys::awaited(&socket),
            Err(stream) => stream.awaited(),
        }
    }

    /// Has the kernel probe a peer that is silent, or no longer. Of streams the whole connection is
    /// probed anyway.
    pub(crate) fn probe(&self, on: bool) {
        let Ok(socket) = self.socket() else { return };
        let socket = SockRef::from(&socket);
        // Where it cannot be set the peer's end is only noticed later.
        drop(if on {
            let probes = TcpKeepalive::new()
                .with_time(PROBE_AFTER)
                .with_interval(PROBE_EVERY);
            socket.set_tcp_keepalive(&probes)
        } else {
            socket.set_keepalive(false)
        });
    }

    /// Has it end as one that was cut off.
    pub(crate) fn reset(&mut self) {
        match self {
            // The next close of the socket sends RST (socket(7), SO_LINGER).
            Self::Tcp(tcp, _) => drop(SockRef::from(&*tcp).set_linger(Some(Duration::ZERO))),
            Self::Other(Other::Ring(ring)) => {
                drop(SockRef::from(&**ring).set_linger(Some(Duration::ZERO)));
            }
            Self::Other(Other::Http2(stream)) => stream.reset(),
        }
    }

    /// Ready when the stream was reset. Of a connection of its own that is for a read to tell.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Tcp(..) | Self::Other(Other::Ring(_)) => Poll::Pending,
            Self::Other(Other::Http2(stream)) => stream.poll_taken_back(cx),
        }
    }

    /// Where the content of its request ends that is to be framed as `body`.
    pub(crate) fn content(&self, body: Body) -> Body {
        match self {
            Self::Tcp(..) | Self::Other(Other::Ring(_)) => body,
            Self::Other(Other::Http2(stream)) => stream.content(body),
        }
    }

    /// The fields behind the content of its request, once that was read to its end: as they are written behind
    /// chunks, of which they are a part elsewhere.
    pub(crate) fn poll_trailer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let Self::Other(Other::Http2(stream)) = self else {
            return Poll::Ready(Ok(Vec::new()));
        };
        stream.poll_trailer(cx).map_ok(|trailer| {
            let mut section = Vec::new();
            for (name, value) in trailer.iter().flatten() {
                forward::put(&mut section, name.as_str(), value.as_bytes());
            }
            section
        })
    }

    /// Says that no more will be sent but these fields, where that can be said: elsewhere they are a part of
    /// what was written.
    pub(crate) fn end_with(&mut self, trailer: &[u8]) -> io::Result<()> {
        match (self, Fields::of_section(trailer)) {
            (Self::Other(Other::Http2(stream)), Some(trailer)) => stream.end_with(&trailer),
            _ => Ok(()),
        }
    }

    /// What it was for has come about, so that its client may ask for more.
    pub(crate) fn bears_fruit(&self) {
        if let Self::Other(Other::Http2(stream)) = self {
            stream.bears_fruit();
        }
    }

    /// Ends when the client takes its request back: by a reset of its stream, or by an end of its
    /// connection. Nothing is read for that.
    pub(crate) async fn taken_back(&mut self) {
        match self {
            // Of what the kernel tells of a socket this is that its peer sends no more, whether all that it has
            // sent was read or not: urgent data are not asked for.
            Self::Tcp(tcp, _) => {
                // Mostly nothing comes, of which to be told takes least in this way.
                drop(poll_fn(|cx| tcp.poll_read_ready(cx)).await);
                drop(tcp.ready(Interest::PRIORITY).await);
            }
            Self::Other(Other::Http2(stream)) => poll_fn(|cx| stream.poll_taken_back(cx)).await,
            // It is in a session.
            Self::Other(Other::Ring(_)) => pending().await,
        }
    }
}

/// Notes what a call came to, unless it would block. For the runtime it would, too, if it `is_last` that does not.
fn note(
    noted: &mut Option<io::Result<usize>>,
    result: io::Result<usize>,
    is_last: impl Fn(usize) -> bool,
) -> io::Result<()> {
    let blocks = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    if result.as_ref().is_err_and(blocks) {
        return result.map(drop);
    }
    let is_last = result.as_ref().is_ok_and(|n| is_last(*n));
    *noted = Some(result);
    if is_last {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(())
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Tcp(tcp, None)
    }
}

impl From<RingStream> for Stream {
    fn from(stream: RingStream) -> Self {
        Self::Other(Other::Ring(Box::new(stream)))
    }
}

impl From<Http2Stream> for Stream {
    fn from(stream: Http2Stream) -> Self {
        Self::Other(Other::Http2(Box::new(stream)))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(tcp, None) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tcp(tcp, Some(tls)) => tls.poll_read(tcp, cx, buf),
            Self::Other(Other::Http2(stream)) => stream.poll_read(cx, buf),
            Self::Other(Other::Ring(ring)) => ring.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    /// What is taken may wait for a flush ([`Stream::holds`]).
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(tcp, None) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tcp(tcp, Some(tls)) => tls.poll_write(tcp, cx, bytes),
            Self::Other(Other::Http2(stream)) => stream.poll_write(cx, bytes),
            Self::Other(Other::Ring(ring)) => ring.poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(tcp, Some(tls)) => tls.poll_flush(tcp, cx),
            // What a stream has taken is for its connection to send.
            Self::Tcp(_, None) | Self::Other(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ends the output: with `close_notify` where TLS is spoken (RFC 8446 section 6.1), then with FIN;
    /// with `END_STREAM` where it is one stream.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(tcp, tls) => {
                if let Some(tls) = tls {
                    std::task::ready!(tls.poll_close(tcp, cx))?;
                }
                Pin::new(tcp).poll_shutdown(cx)
            }
            Self::Other(Other::Http2(stream)) => Poll::Ready(stream.end_output()),
            Self::Other(Other::Ring(ring)) => Poll::Ready(ring.shutdown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_its_own_pays_nothing_for_those_that_are_shared() {
        let alone = size_of::<(TcpStream, Option<Box<Tls>>)>();
        assert_eq!(size_of::<Stream>(), alone);
    }
}
