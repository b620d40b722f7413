//! A proxy with its sockets, and backends of each kind.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use proxy::{
    Balancing, Config, Drain, Endpoint, Event, GatewayLimits, Health, Heartbeat, Limits, Listener,
    Options, Patience, Phase, Pool, Proxy, Record, Ring, Snapshot, Upstream,
};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

/// Bound for everything that should take milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) const WORKERS: usize = 2;

/// Access records that may wait.
pub(crate) const RECORDS: usize = 64;

pub(crate) const POOL: &str = "default/chat";

pub(crate) type Ws = WebSocketStream<TcpStream>;

/// A running proxy with one pool.
pub(crate) struct Rig {
    pub(crate) proxy: Proxy,
    pub(crate) config: Config,
    pub(crate) address: SocketAddr,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) records: mpsc::Receiver<Box<Record>>,
}

impl Rig {
    pub(crate) fn new(backends: &[SocketAddr]) -> Self {
        Self::with(backends, |_| {})
    }

    /// A pool on a free port of 127.0.0.1, changed by `edit` before it is applied.
    pub(crate) fn with(backends: &[SocketAddr], edit: impl FnOnce(&mut Pool)) -> Self {
        Self::on(Ipv4Addr::LOCALHOST.into(), backends, edit)
    }

    pub(crate) fn on(ip: IpAddr, backends: &[SocketAddr], edit: impl FnOnce(&mut Pool)) -> Self {
        Self::start(ip, backends, Patience::default(), edit)
    }

    /// One that gives the ends of sessions little time.
    pub(crate) fn impatient(
        backends: &[SocketAddr],
        [close, half]: [u64; 2],
        edit: impl FnOnce(&mut Pool),
    ) -> Self {
        let patience = Patience {
            close: Duration::from_millis(close),
            half: Duration::from_millis(half),
            ..Patience::default()
        };
        Self::start(Ipv4Addr::LOCALHOST.into(), backends, patience, edit)
    }

    pub(crate) fn start(
        ip: IpAddr,
        backends: &[SocketAddr],
        patience: Patience,
        edit: impl FnOnce(&mut Pool),
    ) -> Self {
        Self::run(ip, backends, patience, GatewayLimits::default(), edit)
    }

    /// One whose pools together may have no more.
    pub(crate) fn limited(
        backends: &[SocketAddr],
        limits: GatewayLimits,
        edit: impl FnOnce(&mut Pool),
    ) -> Self {
        let ip = Ipv4Addr::LOCALHOST.into();
        Self::run(ip, backends, Patience::default(), limits, edit)
    }

    fn run(
        ip: IpAddr,
        backends: &[SocketAddr],
        patience: Patience,
        limits: GatewayLimits,
        edit: impl FnOnce(&mut Pool),
    ) -> Self {
        let (sender, events) = mpsc::channel();
        let (record, records) = mpsc::sync_channel(RECORDS);
        let proxy = Proxy::start(Options {
            workers: WORKERS,
            beat: Arc::new(|_| {}),
            events: Some(sender),
            records: Some(record),
            patience,
            limits,
            rings: rings(),
        })
        .unwrap();
        let sockets = sockets(SocketAddr::new(ip, 0));
        let address = sockets.0;
        let mut pool = pool(&[address], backends);
        edit(&mut pool);
        let config = Config {
            pools: BTreeMap::from([(POOL.to_owned(), pool)]),
        };
        assert_eq!(proxy.missing_sockets(&config), [address]);
        proxy.apply(config.clone(), vec![sockets]).unwrap();
        assert!(proxy.missing_sockets(&config).is_empty());
        Self {
            proxy,
            config,
            address,
            events,
            records,
        }
    }

    /// Changes the pool and applies it; new addresses get sockets.
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Pool)) {
        edit(self.config.pools.get_mut(POOL).unwrap());
        self.apply();
    }

    pub(crate) fn apply(&self) {
        let missing = self.proxy.missing_sockets(&self.config);
        let sockets = missing.into_iter().map(sockets).collect();
        self.proxy.apply(self.config.clone(), sockets).unwrap();
    }

    pub(crate) async fn connect(&self) -> Ws {
        connect(self.address).await
    }

    /// Waits until the proxy looks as wanted.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let begun = Instant::now();
        loop {
            let snapshot = self.proxy.snapshot();
            if is(&snapshot) {
                return snapshot;
            }
            assert!(begun.elapsed() < SOON, "never: {what}; now {snapshot:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until a count has begun and goes no further, and gives it. That nothing happens is no event:
    /// two looks a while apart must do.
    pub(crate) async fn until_still(&self, count: impl Fn(&Snapshot) -> u64) -> u64 {
        let begun = Instant::now();
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let now = count(&self.proxy.snapshot());
            if now > 0 && now == before {
                return now;
            }
            assert!(begun.elapsed() < SOON, "it goes on: {now} after {before}");
            before = now;
        }
    }
}

/// What sessions are read by: in `ring`, which has some of these tests, a ring for each worker; else
/// none, and it is by epoll.
pub(crate) fn rings() -> Vec<Ring> {
    if env!("CARGO_CRATE_NAME") != "ring" {
        return Vec::new();
    }
    Ring::open_all(WORKERS).unwrap_or_else(|error| {
        println!("SKIPPED: no io_uring ({error}), by epoll instead");
        Vec::new()
    })
}

/// A pool with short time-outs and no heartbeats.
pub(crate) fn pool(addresses: &[SocketAddr], backends: &[SocketAddr]) -> Pool {
    Pool {
        listeners: vec![Listener {
            name: "ws".to_owned(),
            addresses: addresses.to_vec(),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            tls: None,
            routes: Vec::new(),
            plain_requests: None,
        }],
        upstreams: vec![upstream("echo", backends)],
        heartbeat: Heartbeat {
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
        },
        drain: Drain {
            timeout: Duration::ZERO,
            sessions_per_second: None,
            close_code: 1001,
        },
        access_log: None,
        limits: Limits::default(),
    }
}

/// A group of servers with short time-outs.
pub(crate) fn upstream(name: &str, backends: &[SocketAddr]) -> Upstream {
    Upstream {
        name: name.to_owned(),
        endpoints: backends.iter().copied().map(endpoint).collect(),
        balancing: Balancing::RoundRobin,
        slow_start: Duration::ZERO,
        endpoint_sessions: None,
        connect_timeout: Duration::from_secs(2),
        handshake_timeout: Duration::from_secs(5),
        proxy_protocol: None,
        tls: None,
        health: Health::default(),
        min_near_percent: None,
        rebalance: None,
    }
}

pub(crate) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address,
        weight: 1,
        phase: Phase::Ready,
        is_near: false,
    }
}

/// One listening socket per worker; port 0 means a free one.
pub(crate) fn sockets(address: SocketAddr) -> (SocketAddr, Vec<StdListener>) {
    let open = |address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(4096).unwrap();
        StdListener::from(socket)
    };
    let first = open(address);
    let address = first.local_addr().unwrap();
    let mut all = vec![first];
    all.extend((1..WORKERS).map(|_| open(address)));
    (address, all)
}

/// Within [`SOON`], or the test fails.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("takes too long")
}

pub(crate) fn unlimited() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None)
}

pub(crate) async fn try_connect(
    address: SocketAddr,
) -> Result<Ws, tokio_tungstenite::tungstenite::Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let url = format!("ws://{address}/");
    let connected =
        tokio_tungstenite::client_async_with_config(url, stream, Some(unlimited())).await;
    connected.map(|(ws, _)| ws)
}

pub(crate) async fn connect(address: SocketAddr) -> Ws {
    soon(try_connect(address)).await.unwrap()
}

/// A free local address on which nobody listens.
pub(crate) fn nowhere() -> SocketAddr {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A backend that runs `serve` for each connection that speaks WebSocket.
pub(crate) async fn backend<F>(serve: impl Fn(Ws) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let serve = Arc::new(serve);
        while let Ok((stream, _)) = listener.accept().await {
            let serve = Arc::clone(&serve);
            tokio::spawn(async move {
                stream.set_nodelay(true).unwrap();
                let accepted =
                    tokio_tungstenite::accept_async_with_config(stream, Some(unlimited())).await;
                // The proxy's check of a new endpoint connects and says nothing.
                if let Ok(ws) = accepted {
                    serve(ws).await;
                }
            });
        }
    });
    address
}

/// A backend that sends back what it gets.
pub(crate) async fn echo() -> SocketAddr {
    backend(|mut ws| async move {
        while let Some(Ok(message)) = ws.next().await {
            if (message.is_text() || message.is_binary()) && ws.send(message).await.is_err() {
                break;
            }
        }
    })
    .await
}

/// A backend that says `name` to each session, then sends back what it gets.
pub(crate) async fn named(name: &'static str) -> SocketAddr {
    backend(move |mut ws| async move {
        if ws.send(Message::text(name)).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = ws.next().await {
            if (message.is_text() || message.is_binary()) && ws.send(message).await.is_err() {
                break;
            }
        }
    })
    .await
}

/// A backend that answers the handshake by hand, then gives the bare socket to `serve`.
pub(crate) async fn raw_backend<F>(
    serve: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let serve = Arc::new(serve);
        while let Ok((mut stream, _)) = listener.accept().await {
            let serve = Arc::clone(&serve);
            tokio::spawn(async move {
                if read_head(&mut stream).await.is_some() {
                    stream.write_all(SWITCH).await.unwrap();
                    serve(stream).await;
                }
            });
        }
    });
    address
}

pub(crate) const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

pub(crate) const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\nHost: example.org\r\n\
    Upgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Reads up to the empty line; `None`: the connection ended before.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// A client that has done the handshake by hand.
pub(crate) async fn raw_client(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let head = soon(read_head(&mut stream)).await.expect("no answer");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// A frame with a payload of at most 125 bytes, unmasked.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> (u8, Vec<u8>) {
    let first = soon(stream.read_u8()).await.unwrap();
    let second = stream.read_u8().await.unwrap();
    let mut key = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut key).await.unwrap();
    }
    let mut payload = vec![0; usize::from(second & 0x7f)];
    stream.read_exact(&mut payload).await.unwrap();
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    (first, payload)
}

/// The answer of a client to a Ping with this payload.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[0x8a, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

/// An endpoint that takes no more connections and does not refuse them either: its queue is full.
/// It is so until what is returned is dropped.
pub(crate) fn black_hole() -> (SocketAddr, Vec<Socket>) {
    let stream = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = stream();
    listener
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut kept = vec![listener];
    for _ in 0..4 {
        // The first fills the queue; of the others the handshake is never finished.
        let socket = stream();
        socket.set_nonblocking(true).unwrap();
        let _under_way = socket.connect(&address);
        kept.push(socket);
    }
    (address.as_socket().unwrap(), kept)
}

pub(crate) fn close_frame(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame {
        code: CloseCode::from(code),
        reason: reason.into(),
    }
}

/// Reads until the Close frame, which must come soon; what came before is dropped.
pub(crate) async fn read_close<S>(ws: &mut WebSocketStream<S>) -> Option<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    soon(closed(ws)).await
}

/// Reads until the Close frame, whenever it comes; what came before is dropped.
pub(crate) async fn closed<S>(ws: &mut WebSocketStream<S>) -> Option<(u16, String)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match ws.next().await {
            Some(Ok(Message::Close(Some(close)))) => {
                return Some((close.code.into(), close.reason.to_string()));
            }
            Some(Ok(_)) => {}
            _ => return None,
        }
    }
}

/// Bytes that repeat nowhere at a distance of a power of two.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let byte = |i: usize| u8::try_from((i * 31 + i / 251) % 256).unwrap();
    (0..len).map(byte).collect()
}

/// Sends so many bytes in one message and has them back.
pub(crate) async fn echoes<S>(ws: &mut WebSocketStream<S>, len: usize)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let sent = pattern(len);
    let message = Message::binary(sent.clone());
    let (mut sink, mut stream) = ws.split();
    let sending = async { sink.send(message).await.unwrap() };
    let receiving = async { stream.next().await.unwrap().unwrap().into_data() };
    let ((), received) = soon(async { tokio::join!(sending, receiving) }).await;
    assert!(received == sent, "{len} bytes came back otherwise");
}

pub(crate) async fn round_trip<S>(ws: &mut WebSocketStream<S>, text: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    soon(ws.send(Message::text(text.to_owned()))).await.unwrap();
    loop {
        let message = soon(ws.next()).await.expect("ended").unwrap();
        if message.is_text() {
            assert_eq!(message.to_text().unwrap(), text);
            return;
        }
    }
}
