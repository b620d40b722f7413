//! A connection, with TLS or without. All that moves bytes goes through here; where there is no TLS
//! that costs one branch.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::tls::Tls;

/// A TCP connection, and TLS on it if that was agreed.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TcpStream,
    // `Box`: sessions without TLS pay one word for it.
    tls: Option<Box<Tls>>,
}

impl Stream {
    /// Does the handshake of `tls`, and speaks it from then on. An error of TLS holds a
    /// [`rustls::Error`].
    pub(crate) async fn secure(&mut self, tls: Tls) -> io::Result<()> {
        let tls = self.tls.insert(Box::new(tls));
        tls.handshake(&mut self.tcp).await
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether it has taken bytes that the kernel has not: they go out with a flush.
    pub(crate) fn holds(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.holds())
    }

    /// Bytes that the kernel was given, where these are not the ones that were written.
    pub(crate) fn sealed(&self) -> Option<u64> {
        self.tls.as_ref().map(|tls| tls.sent())
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { tcp, tls } = &mut *self;
        match tls {
            None => Pin::new(tcp).poll_read(cx, buf),
            Some(tls) => tls.poll_read(tcp, cx, buf),
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
        let Self { tcp, tls } = &mut *self;
        match tls {
            None => Pin::new(tcp).poll_write(cx, bytes),
            Some(tls) => tls.poll_write(tcp, cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, tls } = &mut *self;
        match tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.poll_flush(tcp, cx),
        }
    }

    /// Ends the output: with `close_notify` where TLS is spoken (RFC 8446 section 6.1), then with FIN.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, tls } = &mut *self;
        if let Some(tls) = tls {
            std::task::ready!(tls.poll_close(tcp, cx))?;
        }
        Pin::new(tcp).poll_shutdown(cx)
    }
}
