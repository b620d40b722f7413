//! What a session of a client runs over.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates;
use super::http2::Http2Stream;
use crate::ws;

/// How a client comes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Way {
    /// A connection without TLS.
    Plain,
    /// One with TLS.
    Tls,
    /// A stream of one that it may share with other sessions (RFC 8441).
    Http2,
}

/// A session's bytes.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Http2(Box<Http2Stream>),
}

impl Stream {
    /// A connection of HTTP/1.1 that has become a session, and what came behind the answer.
    pub(super) async fn upgrade(
        target: SocketAddrV4,
        tls: Option<&Arc<ClientConfig>>,
        path: &str,
    ) -> Result<(Self, Vec<u8>)> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let mut stream = match tls {
            None => Self::Plain(stream),
            Some(tls) => Self::Tls(Box::new(secure(stream, tls).await?)),
        };
        let request = ws::request(&target.to_string());
        let request = request.replacen("GET / ", &format!("GET {path} "), 1);
        let mut left = request.as_bytes();
        while !left.is_empty() {
            let sent = poll_fn(|cx| stream.poll_write(cx, left)).await?;
            left = &left[sent..];
        }
        poll_fn(|cx| stream.poll_flush(cx)).await?;
        let mut received = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let length = poll_fn(|cx| stream.poll_read(cx, &mut buffer)).await?;
            ensure!(length > 0, "upgrading: the connection ended");
            received.extend_from_slice(&buffer[..length]);
            if let Some(end) = ws::response(&received)? {
                return Ok((stream, received.split_off(end)));
            }
        }
    }

    /// Has it end with a reset when it is dropped.
    pub(super) fn reset(&mut self) -> Result<()> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            Self::Http2(stream) => {
                stream.reset();
                return Ok(());
            }
        };
        let linger = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        linger.context("cannot have the connection reset")
    }

    /// Ends the output without a word, where that is not what a drop does.
    pub(super) fn leave(&mut self) {
        if let Self::Http2(stream) = self {
            stream.end();
        }
    }

    /// Cuts the connection off, with all the sessions that share it. `false`: it has none but this.
    pub(super) fn cut(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Tls(_) => false,
            Self::Http2(stream) => {
                stream.connection.cut();
                true
            }
        }
    }

    /// Whether a client has cut the connection off.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self, Self::Http2(stream) if stream.connection.is_cut())
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(scratch);
        let read = match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, &mut buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, &mut buf),
            Self::Http2(stream) => return stream.poll_read(cx, scratch),
        };
        match read {
            // The stream ended without TLS's own word for that, as when a proxy is killed.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(0))
            }
            read => read.map_ok(|()| buf.filled().len()),
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
            Self::Http2(stream) => stream.poll_write(cx, bytes),
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Plain(_) | Self::Http2(_) => Poll::Ready(Ok(())),
        }
    }
}

/// Speaks TLS on `stream`.
pub(super) async fn secure(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
) -> Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::clone(config));
    let secured = connector.connect(certificates::name(), stream).await;
    secured.context("TLS")
}
