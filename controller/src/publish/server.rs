//! Accepts gateway nodes: TLS, the token, the upgrade to a WebSocket (RFC 6455 section 4.2).

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
        SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE, WWW_AUTHENTICATE,
    },
    server::conn::http1,
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use node_api::{Protocol, stream::PATH};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    admit::{Admitted, Refusal, Reviewer},
    stream::{self, Ended},
};
use crate::{recompute::Published, registry::Registry};

/// From the first packet to the upgrade.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that have not been admitted yet; nodes beyond them wait.
const WAITING_ROOM: usize = 256;
/// The longest message of a node.
const LONGEST_MESSAGE: usize = 16 << 20;

/// What a stream keeps at hand for reading, and for writing. Hundreds are open, and most messages are short.
const BUFFER: usize = 4 << 10;

/// What every stream needs.
#[derive(Debug)]
pub struct Server<R> {
    /// Judges tokens.
    pub reviewer: R,
    /// What nodes say.
    pub registry: Arc<Registry>,
    /// What nodes are told.
    pub published: watch::Receiver<Option<Arc<Published>>>,
    /// Whether this replica reads from the API server now.
    pub live: watch::Receiver<bool>,
    /// Certificates as they are now.
    pub tls: watch::Receiver<Option<Arc<rustls::ServerConfig>>>,
    /// Name of this replica.
    pub replica: String,
    /// A side that says nothing for so long is gone.
    pub silence: Duration,
}

/// Serves for ever.
pub async fn serve<R: Reviewer>(listener: TcpListener, server: Arc<Server<R>>) {
    let room = Arc::new(Semaphore::new(WAITING_ROOM));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return; // it is never closed
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a gateway node");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let server = Arc::clone(&server);
        // Owned by nobody: it ends with its connection, or by its time-out.
        tokio::spawn(async move {
            match timeout(PATIENCE, handshake(stream, &server)).await {
                Ok(Some((socket, opening))) => {
                    drop(permit);
                    let node = opening.admitted.node.clone();
                    let ended = stream::run(socket, opening, &server).await;
                    log(&node, peer, &ended);
                }
                Ok(None) => {}
                Err(_) => tracing::debug!(%peer, "a connection was not upgraded in time"),
            }
        });
    }
}

fn log(node: &str, peer: SocketAddr, ended: &Ended) {
    tracing::info!(node, %peer, "a stream has ended: {ended}");
}

/// Whose stream is to be opened, and how.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) admitted: Admitted,
    /// When the token is over, seconds since the Unix epoch.
    pub(super) expires: Option<u64>,
    /// The version that both sides speak.
    pub(super) protocol: Protocol,
}

/// An upgraded connection.
pub(super) type Socket = WebSocketStream<TokioIo<Upgraded>>;

async fn handshake<R: Reviewer>(
    stream: TcpStream,
    server: &Arc<Server<R>>,
) -> Option<(Socket, Opening)> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot switch off the delay of small packets");
    }
    let config = server.tls.borrow().clone()?;
    let tls = match TlsAcceptor::from(config).accept(stream).await {
        Ok(tls) => tls,
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return None;
        }
    };
    let (sender, mut upgraded) = tokio::sync::mpsc::channel(1);
    let service = service_fn(|request: Request<Incoming>| {
        let sender = sender.clone();
        let server = Arc::clone(server);
        async move {
            let (answer, opening) = answer(&request, &server).await;
            if let Some(opening) = opening {
                let upgrade = hyper::upgrade::on(request);
                drop(sender.try_send((upgrade, opening)));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(tls), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended before its upgrade");
        return None;
    }
    let (upgrade, opening) = upgraded.try_recv().ok()?;
    let upgraded = upgrade.await.ok()?;
    let limits = WebSocketConfig::default()
        .max_message_size(Some(LONGEST_MESSAGE))
        .max_frame_size(Some(LONGEST_MESSAGE))
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER);
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await;
    Some((socket, opening))
}

type Answer = Response<Full<Bytes>>;

async fn answer<R: Reviewer>(
    request: &Request<Incoming>,
    server: &Server<R>,
) -> (Answer, Option<Opening>) {
    let headers = request.headers();
    if request.uri().path() != PATH {
        return (
            text(StatusCode::NOT_FOUND, "there is only the control stream"),
            None,
        );
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|_| {
        request.method() == Method::GET
            && has(headers, &CONNECTION, "upgrade")
            && has(headers, &UPGRADE, "websocket")
            && headers
                .get(SEC_WEBSOCKET_VERSION)
                .is_some_and(|it| it == "13")
    });
    let Some(key) = key else {
        let mut answer = text(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket");
        let websocket = HeaderValue::from_static("websocket");
        answer.headers_mut().insert(UPGRADE, websocket);
        return (answer, None);
    };
    let Some(protocol) = Protocol::choose(list(headers, &SEC_WEBSOCKET_PROTOCOL)) else {
        // As many as a node speaks, and one more.
        let offered = list(headers, &SEC_WEBSOCKET_PROTOCOL).take(3);
        let offered: Vec<_> = offered.collect();
        let why = format!(
            "this controller speaks {}, the node offers {}; update the older of the two",
            Protocol::spoken_in_words(),
            if offered.is_empty() {
                "no version".to_owned()
            } else {
                offered.join(" and ")
            }
        );
        return (text(StatusCode::BAD_REQUEST, &why), None);
    };
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let Some(token) = token.and_then(|value| value.strip_prefix("Bearer ")) else {
        return (unauthorized("a bearer token is needed"), None);
    };
    let admitted = match server.reviewer.review(token).await {
        Ok(admitted) => admitted,
        Err(refusal) => {
            tracing::warn!("a stream is refused: {refusal}");
            let why = refusal.to_string();
            let answer = match refusal {
                Refusal::NotAuthenticated(_) => unauthorized(&why),
                Refusal::Forbidden(_) => text(StatusCode::FORBIDDEN, &why),
                Refusal::Unavailable(_) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
            };
            return (answer, None);
        }
    };
    let expires = stream::expiry(token);
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accept = derive_accept_key(key.as_bytes());
    let name = HeaderValue::from_str(&protocol.to_string());
    let (Ok(accept), Ok(name)) = (HeaderValue::from_str(&accept), name) else {
        return (
            text(StatusCode::BAD_REQUEST, "the key cannot be answered"),
            None,
        );
    };
    let fields = answer.headers_mut();
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(SEC_WEBSOCKET_ACCEPT, accept);
    fields.insert(SEC_WEBSOCKET_PROTOCOL, name);
    let opening = Opening {
        admitted,
        expires,
        protocol,
    };
    (answer, Some(opening))
}

/// Whether the list in this field names `word`, whatever its case.
fn has(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    list(headers, name).any(|one| one.eq_ignore_ascii_case(word))
}

/// The list in this field (RFC 9110 section 5.6.1), over as many lines as it may have.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|one| !one.is_empty())
}

fn unauthorized(why: &str) -> Answer {
    let mut answer = text(StatusCode::UNAUTHORIZED, why);
    let bearer = HeaderValue::from_static("Bearer");
    answer.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    answer
}

fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(Full::from(format!("{text}\n")));
    *answer.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, plain);
    answer
}
