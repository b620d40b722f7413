//! Which endpoints get sessions, when some of them are not well.

mod checks;
mod counts;
mod ejection;
mod retry;
mod zones;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use futures_util::{SinkExt, StreamExt};
use proxy::{EndpointProblem, Snapshot};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use crate::support::{Rig, Ws, listen, read_head, soon};

/// What a server does with a request.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// Opens the session, says its name, and sends back what it gets.
    Well,
    /// Opens the session and does nothing in it.
    Mute,
    /// Answers with a status.
    Status(u16),
    /// Ends the connection by a reset.
    Reset,
    /// Does not answer.
    Hang,
    /// Answers what is no HTTP.
    Nonsense,
}

/// A server that is told how well it is.
struct Server {
    address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    name: &'static str,
    /// For clients, and for checks.
    modes: Mutex<[Mode; 2]>,
    handshakes: AtomicUsize,
    checks: AtomicUsize,
}

impl Server {
    async fn new(name: &'static str) -> Self {
        let (listener, address) = listen().await;
        let inner = Arc::new(Inner {
            name,
            modes: Mutex::new([Mode::Well; 2]),
            handshakes: AtomicUsize::new(0),
            checks: AtomicUsize::new(0),
        });
        let served = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&served).serve(stream));
            }
        });
        Self { address, inner }
    }

    async fn bad(name: &'static str, mode: Mode) -> Self {
        let server = Self::new(name).await;
        server.be(mode);
        server
    }

    /// To clients and checks alike.
    fn be(&self, mode: Mode) {
        *self.inner.modes.lock().unwrap() = [mode; 2];
    }

    fn be_to_checks(&self, mode: Mode) {
        self.inner.modes.lock().unwrap()[1] = mode;
    }

    /// Handshakes of clients so far.
    fn handshakes(&self) -> usize {
        self.inner.handshakes.load(Relaxed)
    }
}

impl Inner {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        // One that only looks whether a connection can be opened says nothing.
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        let is_check = head.contains("wsha-check/");
        let (count, mode) = {
            let modes = self.modes.lock().unwrap();
            if is_check {
                (&self.checks, modes[1])
            } else {
                (&self.handshakes, modes[0])
            }
        };
        count.fetch_add(1, Relaxed);
        match mode {
            Mode::Status(status) => answer(&mut stream, status).await,
            Mode::Reset => stream.set_zero_linger().unwrap(),
            Mode::Nonsense => stream.write_all(b"nonsense\r\n\r\n").await.unwrap(),
            Mode::Hang => hang(stream).await,
            Mode::Well | Mode::Mute => {
                let Some(mut ws) = switch(stream, &head).await else {
                    return;
                };
                if matches!(mode, Mode::Mute) {
                    hang(ws).await;
                    return;
                }
                let _told = ws.send(Message::text(self.name)).await;
                while let Some(Ok(message)) = ws.next().await {
                    if message.is_text() && ws.send(message).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}

/// Keeps what it has until the test is over.
async fn hang<T>(kept: T) {
    std::future::pending::<()>().await;
    drop(kept);
}

async fn answer(stream: &mut TcpStream, status: u16) {
    let answer = format!("HTTP/1.1 {status} So\r\nContent-Length: 4\r\n\r\nfull");
    let _gone = stream.write_all(answer.as_bytes()).await;
}

/// A session where one was asked for; otherwise all is well.
async fn switch(mut stream: TcpStream, head: &str) -> Option<Ws> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let key = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let Some((_, key)) = key else {
        answer(&mut stream, 200).await;
        return None;
    };
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await.ok()?;
    Some(WebSocketStream::from_raw_socket(stream, Role::Server, None).await)
}

/// Whom the next client gets.
async fn next(rig: &Rig) -> String {
    greeting(&mut rig.connect().await).await
}

async fn greeting(ws: &mut Ws) -> String {
    let message = soon(ws.next()).await.unwrap().unwrap();
    message.to_text().unwrap().to_owned()
}

fn problem(snapshot: &Snapshot, index: usize) -> Option<EndpointProblem> {
    snapshot.endpoints[index].problem
}

fn usable(snapshot: &Snapshot) -> usize {
    snapshot.upstreams[0].usable
}
