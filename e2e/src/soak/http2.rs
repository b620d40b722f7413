//! Connections of HTTP/2, each with sessions of several clients in its streams (RFC 8441).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddrV4;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf, Bytes};
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;

use super::stream::secure;

/// Sessions that share a connection, at most.
const SHARED: usize = 8;

/// What may come for all streams of a connection: one that is not read leaves the others room.
const WINDOW: u32 = 4 << 20;

/// How often a connection is asked whether it lives: one whose address has moved would else not hear of it while flow
/// control lets nothing out.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The connections of all clients, by where they lead.
#[derive(Debug)]
pub(super) struct Connections {
    tls: Arc<ClientConfig>,
    open: RefCell<HashMap<SocketAddrV4, Vec<Weak<Connection>>>>,
    /// How many there were.
    pub(super) count: Cell<u64>,
}

/// A connection, for as long as a session is in it.
#[derive(Debug)]
pub(super) struct Connection {
    requests: SendRequest<Bytes>,
    driver: AbortHandle,
    is_cut: Cell<bool>,
}

impl Connection {
    async fn open(target: SocketAddrV4, tls: &Arc<ClientConfig>) -> Result<Self> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        let stream = secure(stream, tls).await?;
        let agreed = stream.get_ref().1.alpn_protocol();
        ensure!(agreed == Some(b"h2"), "HTTP/2 is not spoken");
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(WINDOW);
        let (requests, mut connection) = builder.handshake(stream).await?;
        let mut pings = connection.ping_pong().context("no pings")?;
        tokio::select! {
            // The settings come before the answer, and extended CONNECT may be asked for once they have
            // (RFC 8441 section 3).
            answered = pings.ping(Ping::opaque()) => {
                answered?;
            }
            ended = &mut connection => {
                ended?;
                bail!("HTTP/2: the connection ended");
            }
        }
        ensure!(
            requests.is_extended_connect_protocol_enabled(),
            "HTTP/2: no extended CONNECT"
        );
        let driver = spawn_local(async move {
            tokio::select! {
                // Each stream tells of its end.
                _ = connection => {}
                () = live(pings) => {}
            }
        });
        Ok(Self {
            requests,
            driver: driver.abort_handle(),
            is_cut: Cell::new(false),
        })
    }

    /// Cuts it off, as when its host is gone.
    pub(super) fn cut(&self) {
        self.is_cut.set(true);
        self.driver.abort();
    }

    pub(super) fn is_cut(&self) -> bool {
        self.is_cut.get()
    }

    fn takes_more(self: &Rc<Self>) -> bool {
        Rc::strong_count(self) < SHARED && !self.is_cut() && !self.driver.is_finished()
    }
}

async fn live(mut pings: PingPong) {
    loop {
        sleep(HEARTBEAT).await;
        if pings.ping(Ping::opaque()).await.is_err() {
            // The connection ends by itself.
            std::future::pending::<()>().await;
        }
    }
}

impl Connections {
    pub(super) fn new(tls: Arc<ClientConfig>) -> Self {
        Self {
            tls,
            open: RefCell::default(),
            count: Cell::new(0),
        }
    }

    /// Asks for a session, in a connection that there is or in a new one.
    pub(super) async fn ask(&self, target: SocketAddrV4, path: &str) -> Result<Http2Stream> {
        if let Some(connection) = self.shared(target)
            && let Ok(requests) = connection.requests.clone().ready().await
        {
            return ask(connection, requests, target, path).await;
        }
        // There is none, or it takes no more streams.
        let connection = Rc::new(Connection::open(target, &self.tls).await?);
        self.count.set(self.count.get() + 1);
        self.keep(target, &connection);
        let requests = connection.requests.clone();
        ask(connection, requests, target, path).await
    }

    fn keep(&self, target: SocketAddrV4, connection: &Rc<Connection>) {
        let mut open = self.open.borrow_mut();
        let open = open.entry(target).or_default();
        open.retain(|connection| connection.strong_count() > 0);
        open.push(Rc::downgrade(connection));
    }

    fn shared(&self, target: SocketAddrV4) -> Option<Rc<Connection>> {
        let open = self.open.borrow();
        let mut open = open.get(&target)?.iter().filter_map(Weak::upgrade);
        open.find(Connection::takes_more)
    }
}

async fn ask(
    connection: Rc<Connection>,
    requests: SendRequest<Bytes>,
    target: SocketAddrV4,
    path: &str,
) -> Result<Http2Stream> {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{target}{path}"))
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(())?;
    let (response, output) = requests.ready().await?.send_request(request, false)?;
    let response = response.await?;
    ensure!(
        response.status() == StatusCode::OK,
        "HTTP/2 {}",
        response.status()
    );
    Ok(Http2Stream {
        input: response.into_body(),
        unread: Bytes::new(),
        output,
        connection,
    })
}

/// A session's stream.
#[derive(Debug)]
pub(super) struct Http2Stream {
    input: RecvStream,
    unread: Bytes,
    output: SendStream<Bytes>,
    pub(super) connection: Rc<Connection>,
}

impl Http2Stream {
    /// Ends the output.
    pub(super) fn end(&mut self) {
        // One that has ended needs no end.
        drop(self.output.send_data(Bytes::new(), true));
    }

    pub(super) fn reset(&mut self) {
        self.output.send_reset(Reason::CANCEL);
    }

    /// Reads what is there: 0 at the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        while self.unread.is_empty() {
            match ready!(self.input.poll_data(cx)) {
                Some(Ok(data)) => self.unread = data,
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(0)),
            }
        }
        let length = self.unread.len().min(buffer.len());
        self.unread.copy_to_slice(&mut buffer[..length]);
        // An error is the stream's, of which the next read tells.
        drop(self.input.flow_control().release_capacity(length));
        Poll::Ready(Ok(length))
    }

    /// Takes as much as flow control lets through.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.output.reserve_capacity(bytes.len());
        while self.output.capacity() == 0 {
            match ready!(self.output.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                // Reading tells how it ended.
                Some(Err(_)) | None => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
            }
        }
        let length = self.output.capacity().min(bytes.len());
        let data = Bytes::copy_from_slice(&bytes[..length]);
        let sent = self.output.send_data(data, false);
        Poll::Ready(match sent {
            Ok(()) => Ok(length),
            Err(_) => Err(ErrorKind::BrokenPipe.into()),
        })
    }
}

/// The end of a stream that was reset, or of its connection. That the client broke a rule nobody may say.
fn broken(error: h2::Error) -> io::Error {
    let is_plain = error.reason().is_none_or(|reason| {
        matches!(
            reason,
            Reason::CANCEL | Reason::NO_ERROR | Reason::REFUSED_STREAM
        )
    });
    if is_plain {
        io::Error::new(ErrorKind::ConnectionReset, error)
    } else {
        io::Error::other(error)
    }
}
