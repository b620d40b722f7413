//! A client that speaks HTTP/2, and sessions in its streams.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream, client::SendRequest, ext::Protocol};
use http::{Method, Request, Response, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::{
    support::{Rig, SOON, listen, read_head, soon, unlimited},
    tls::support::{Authority, HOST, Tls, VERSIONS, secure_on},
};

pub(crate) type Session = WebSocketStream<Duplex>;

/// A client with one connection.
pub(crate) struct Client {
    pub(crate) requests: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub(crate) async fn connect(rig: &Rig, authority: &Authority) -> Self {
        let stream = TcpStream::connect(rig.address).await.unwrap();
        Self::on(stream, authority).await
    }

    pub(crate) async fn on(stream: TcpStream, authority: &Authority) -> Self {
        stream.set_nodelay(true).unwrap();
        let mut config = authority.client(&VERSIONS);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream: Tls = secure_on(stream, HOST, &Arc::new(config)).await.unwrap();
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        // A stream that it does not read leaves the others room.
        let mut builder = h2::client::Builder::new();
        builder.initial_connection_window_size(8 << 20);
        let (requests, connection) = soon(builder.handshake(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let begun = Instant::now();
        // It may be asked once its settings have come (RFC 8441 section 3).
        while !requests.is_extended_connect_protocol_enabled() {
            assert!(begun.elapsed() < SOON, "RFC 8441 is not offered");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Self {
            requests,
            connection,
        }
    }

    /// The answer to a request, and where its stream is written to.
    pub(crate) async fn try_ask(
        &self,
        request: Request<()>,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, output) = requests.send_request(request, false)?;
        Ok((response.await?, output))
    }

    pub(crate) async fn ask(
        &self,
        request: Request<()>,
    ) -> (Response<RecvStream>, SendStream<Bytes>) {
        soon(self.try_ask(request)).await.unwrap()
    }

    /// A stream that has become a session, its frames by hand.
    pub(crate) async fn raw_session(&self) -> Duplex {
        let (response, output) = self.ask(websocket(&[])).await;
        assert_eq!(response.status(), StatusCode::OK, "{response:?}");
        Duplex {
            input: response.into_body(),
            unread: Bytes::new(),
            output,
        }
    }

    pub(crate) async fn session(&self) -> Session {
        let stream = self.raw_session().await;
        WebSocketStream::from_raw_socket(stream, Role::Client, Some(unlimited())).await
    }

    /// Waits for the end of the connection.
    pub(crate) async fn over(self) {
        // Who ends last may find that the other is gone.
        let _how = soon(self.connection).await.unwrap();
    }
}

/// A request for a session, with more fields.
pub(crate) fn websocket(fields: &[(&str, &str)]) -> Request<()> {
    let mut request = asking("websocket", fields);
    let version = http::HeaderValue::from_static("13");
    request
        .headers_mut()
        .insert("sec-websocket-version", version);
    request
}

/// An extended CONNECT with nothing but these fields.
pub(crate) fn asking(protocol: &'static str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://{HOST}/room?x=1"))
        .extension(Protocol::from_static(protocol));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// Both directions of a stream.
pub(crate) struct Duplex {
    pub(crate) input: RecvStream,
    unread: Bytes,
    pub(crate) output: SendStream<Bytes>,
}

impl Duplex {
    /// Reads on until the stream is reset; why it was.
    pub(crate) async fn reset(&mut self) -> Option<Reason> {
        loop {
            match soon(self.input.data()).await.expect("no reset") {
                Ok(data) => drop(self.input.flow_control().release_capacity(data.len())),
                Err(error) => return error.reason(),
            }
        }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.unread.is_empty() {
            match ready!(this.input.poll_data(cx)) {
                Some(data) => this.unread = data.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread[..n]);
        this.unread.advance(n);
        let released = this.input.flow_control().release_capacity(n);
        Poll::Ready(released.map_err(io::Error::other))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let output = &mut self.output;
        output.reserve_capacity(bytes.len());
        while output.capacity() == 0 {
            match ready!(output.poll_capacity(cx)) {
                Some(room) => {
                    room.map_err(io::Error::other)?;
                }
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let n = output.capacity().min(bytes.len());
        let data = Bytes::copy_from_slice(&bytes[..n]);
        let sent = output.send_data(data, false);
        Poll::Ready(sent.map(|()| n).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.output.send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(io::Error::other))
    }
}

/// A backend that gives `serve` the head of each handshake and the bare socket, on which `switch` is to
/// answer.
pub(crate) async fn backend_by_hand<F>(
    serve: impl Fn(String, TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The proxy's check of a new endpoint says nothing.
            if let Some(head) = read_head(&mut stream).await {
                tokio::spawn(serve(head, stream));
            }
        }
    });
    address
}

/// Answers a handshake as it should be.
pub(crate) async fn switch(head: &str, stream: &mut TcpStream) {
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then_some(value)
    });
    let accept = derive_accept_key(key.expect("no key").as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}
