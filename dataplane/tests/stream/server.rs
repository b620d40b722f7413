//! A replica of the controller, played by the test: real TLS, real WebSocket, every message by hand.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use node_api::{
    Decoded, Protocol,
    stream::{Hello, ResourceName, Revision, ToController, ToNode, Welcome},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc as queue, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, StatusCode},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// Against hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The authority of one test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Where it is given to the agent.
    pub(crate) fn write(&self, path: PathBuf) -> PathBuf {
        fs::write(&path, &self.pem).unwrap();
        path
    }

    fn acceptor(&self) -> TlsAcceptor {
        let names = ["wsha-controller", "127.0.0.1", "127.0.0.2"];
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names.map(str::to_owned)).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// How a replica treats whoever connects.
#[derive(Clone)]
pub(crate) struct Manners {
    pub(crate) token: String,
    /// Which of the versions offered it takes.
    pub(crate) subprotocol: String,
    pub(crate) silence: Duration,
    pub(crate) epoch: &'static str,
}

impl Default for Manners {
    fn default() -> Self {
        Self {
            token: "the-token".to_owned(),
            subprotocol: Protocol::NEWEST.to_string(),
            silence: Duration::from_secs(30),
            epoch: "",
        }
    }
}

/// One replica; away once it is dropped.
pub(crate) struct Replica {
    manners: Arc<Mutex<Manners>>,
    connections: mpsc::Receiver<Connection>,
    end: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Replica {
    /// Serves at `address` from a thread of the test's network namespace.
    pub(crate) fn start(authority: &Authority, address: &str) -> Self {
        let address: SocketAddr = address.parse().unwrap();
        let acceptor = authority.acceptor();
        let manners = Arc::new(Mutex::new(Manners::default()));
        let (accepted, connections) = mpsc::channel();
        let (end, ended) = watch::channel(false);
        let (ready, is_ready) = mpsc::channel();
        let shared = Arc::clone(&manners);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::bind(address).await.unwrap();
                ready.send(()).unwrap();
                let mut ended = ended;
                loop {
                    let (tcp, _) = tokio::select! {
                        accepted = listener.accept() => accepted.unwrap(),
                        _ = ended.changed() => return,
                    };
                    let manners = shared.lock().unwrap().clone();
                    let serving = serve(tcp, acceptor.clone(), manners, accepted.clone());
                    tokio::spawn(serving);
                }
            });
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self {
            manners,
            connections,
            end,
            thread: Some(thread),
        }
    }

    /// From the next connection on.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.manners.lock().unwrap());
    }

    /// The next node that was let in, after both said who they are.
    pub(crate) fn accept(&self) -> Connection {
        self.connections.recv_timeout(PATIENCE).unwrap()
    }

    /// Those that were let in since.
    pub(crate) fn newcomers(&self) -> impl Iterator<Item = Connection> {
        self.connections.try_iter()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.end.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// What the test says to a connection.
enum Order {
    Tell(String),
    Close(u16, &'static str),
    /// Neither reads nor answers any more.
    Hang,
}

/// A node on the other end.
pub(crate) struct Connection {
    pub(crate) hello: Hello,
    orders: queue::UnboundedSender<Order>,
    heard: mpsc::Receiver<ToController>,
}

impl Connection {
    pub(crate) fn tell(&self, message: &ToNode) {
        self.tell_text(serde_json::to_string(message).unwrap());
    }

    pub(crate) fn tell_text(&self, text: String) {
        self.orders.send(Order::Tell(text)).ok().unwrap();
    }

    /// Tells content; returns its revision.
    pub(crate) fn upsert(&self, name: &str, content: &impl serde::Serialize) -> Revision {
        let revision = Revision::of(content).unwrap();
        self.tell(&ToNode::Upsert {
            name: ResourceName::from(name),
            revision: revision.clone(),
            body: serde_json::to_value(content).unwrap(),
        });
        revision
    }

    pub(crate) fn synced(&self, sequence: i64, keep: &[&str]) {
        let keep = keep.iter().map(|name| ResourceName::from(*name));
        self.tell(&ToNode::Synced {
            sequence,
            keep: Some(keep.collect()),
        });
    }

    pub(crate) fn close(&self, code: u16, reason: &'static str) {
        self.orders.send(Order::Close(code, reason)).ok().unwrap();
    }

    pub(crate) fn hang(&self) {
        self.orders.send(Order::Hang).ok().unwrap();
    }

    /// The first message from now on of which `pick` makes something.
    pub(crate) fn hear<T>(&self, what: &str, pick: impl Fn(ToController) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.heard.recv_timeout(left);
            let message =
                message.unwrap_or_else(|error| unreachable!("never heard {what}: {error}"));
            if let Some(picked) = pick(message) {
                return picked;
            }
        }
    }

    /// Waits for acknowledgements, in any order.
    pub(crate) fn hear_acks(&self, expected: &[(&str, Option<&Revision>)]) {
        let mut missing = expected.to_vec();
        while !missing.is_empty() {
            let (name, revision) = self.hear(&format!("acks of {missing:?}"), |message| {
                let ToController::Ack { name, revision } = message else {
                    return None;
                };
                Some((name.to_string(), revision))
            });
            missing.retain(|one| (one.0, one.1) != (name.as_str(), revision.as_ref()));
        }
    }

    /// Everything heard so far.
    pub(crate) fn heard_so_far(&self) -> Vec<ToController> {
        self.heard.try_iter().collect()
    }
}

#[allow(clippy::result_large_err, reason = "the handshake's own type")]
async fn serve(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    manners: Manners,
    accepted: mpsc::Sender<Connection>,
) {
    let Ok(tls) = acceptor.accept(tcp).await else {
        return;
    };
    let expected = format!("Bearer {}", manners.token);
    let check = |request: &Request, mut response: Response| {
        assert_eq!(request.uri().path(), node_api::stream::PATH);
        let header = |name| request.headers().get(name).and_then(|it| it.to_str().ok());
        let offered = Protocol::spoken().collect::<Vec<_>>().join(", ");
        assert_eq!(header("sec-websocket-protocol"), Some(offered.as_str()));
        if header("authorization") != Some(expected.as_str()) {
            let mut refusal = ErrorResponse::new(Some("token expired".to_owned()));
            *refusal.status_mut() = StatusCode::UNAUTHORIZED;
            return Err(refusal);
        }
        let protocol = HeaderValue::from_str(&manners.subprotocol).unwrap();
        response
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(tls, check).await else {
        return;
    };
    let welcome = ToNode::Welcome(Welcome {
        version: "0.1.0".to_owned(),
        replica: "replica".to_owned(),
        silence_ms: u64::try_from(manners.silence.as_millis()).unwrap(),
        epoch: manners.epoch.to_owned(),
    });
    let text = serde_json::to_string(&welcome).unwrap();
    if socket.send(Message::Text(text.into())).await.is_err() {
        return;
    }
    let (orders, mut to_do) = queue::unbounded_channel();
    let (said, heard) = mpsc::channel();
    let mut newcomer = Some((accepted, orders, heard));
    loop {
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                let Message::Text(text) = message else { continue };
                let Decoded::Message(message) = ToController::decode(&text).unwrap() else {
                    unreachable!("{text}");
                };
                match (message, newcomer.take()) {
                    (ToController::Hello(hello), Some((accepted, orders, heard))) => {
                        let hello = *hello;
                        let connection = Connection { hello, orders, heard };
                        if accepted.send(connection).is_err() {
                            return;
                        }
                    }
                    (message, None) => drop(said.send(message)),
                    (message, Some(_)) => unreachable!("before the hello: {message:?}"),
                }
            }
            order = to_do.recv() => match order {
                Some(Order::Tell(text)) => drop(socket.send(Message::Text(text.into())).await),
                Some(Order::Close(code, reason)) => {
                    let code = CloseCode::from(code);
                    let reason = reason.into();
                    drop(socket.close(Some(CloseFrame { code, reason })).await);
                }
                Some(Order::Hang) => std::future::pending().await,
                // The test dropped its end.
                None => return,
            }
        }
    }
}

/// Writes a token as a kubelet does: the file is replaced.
pub(crate) fn write_token(path: &Path, token: &str) {
    let new = path.with_extension("new");
    fs::write(&new, token).unwrap();
    fs::rename(&new, path).unwrap();
}
