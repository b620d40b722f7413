//! Asks an endpoint what a check asks.
//!
//! What is asked goes over any stream of bytes: one of TLS is asked alike once it is open.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::{
    Error, Message, client::IntoClientRequest, error::ProtocolError, http::HeaderValue,
    protocol::WebSocketConfig,
};

use super::{CheckFailure, HealthCheck, Probe};
use crate::{
    endpoint::{Fault, Unreached, reach},
    handshake::{INTERIM_MAX, Outcome, ResponseParser},
    proxy_protocol,
    tls::ClientTls,
};

/// What a server may say before it answers a Ping.
const MESSAGE_MAX: usize = 1024 * 1024;

/// How long a server may take to close its side; it has passed by then.
const CLOSE: Duration = Duration::from_secs(1);

/// Payload of the Ping.
const PING: &[u8] = b"wsha";

/// Asks once. `None`: this host had not what it takes, which says nothing of the endpoint.
pub(super) async fn ask(
    address: SocketAddr,
    check: &HealthCheck,
    header: Option<proxy_protocol::Version>,
    tls: Option<ClientTls>,
) -> Option<Result<(), CheckFailure>> {
    let deadline = Instant::now() + check.timeout;
    let address = SocketAddr::new(address.ip(), check.port.unwrap_or_else(|| address.port()));
    // A port of its own for checks need not expect what clients' sessions begin with.
    let header = header.filter(|_| check.port.is_none());
    let header = header.map(proxy_protocol::own).unwrap_or_default();
    let mut stream = match timeout_at(deadline, reach(address, tls, header)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(Unreached::Local(_))) => return None,
        Ok(Err(Unreached::Fault(fault))) => {
            return Some(Err(match fault {
                Fault::Refused => CheckFailure::Refused,
                Fault::TimedOut => CheckFailure::ConnectTimeout,
                Fault::Unreachable => CheckFailure::Unreachable,
                _ => CheckFailure::Tls,
            }));
        }
        Err(_elapsed) => return Some(Err(CheckFailure::ConnectTimeout)),
    };
    let asked = async {
        match &check.probe {
            Probe::Tcp => Ok(()),
            Probe::Http {
                path,
                host,
                expected_statuses,
            } => {
                let host = host.clone().unwrap_or_else(|| address.to_string());
                let status = get(&mut stream, path, &host).await?;
                let passes = if expected_statuses.is_empty() {
                    (200..400).contains(&status)
                } else {
                    expected_statuses.contains(&status)
                };
                if passes {
                    Ok(())
                } else {
                    Err(CheckFailure::Status(status))
                }
            }
            Probe::WebSocket { path, host } => {
                let host = host.clone().unwrap_or_else(|| address.to_string());
                ping(stream, path, &host).await
            }
        }
    };
    let answer = timeout_at(deadline, asked).await;
    Some(answer.unwrap_or(Err(CheckFailure::Timeout)))
}

/// The status of the answer to a GET.
async fn get<S>(stream: &mut S, path: &str, host: &str) -> Result<u16, CheckFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\nConnection: \
         close\r\n\r\n"
    );
    let closed = |_: io::Error| CheckFailure::Closed;
    stream.write_all(request.as_bytes()).await.map_err(closed)?;
    stream.flush().await.map_err(closed)?;
    let mut received = Vec::with_capacity(1024);
    let mut parser = ResponseParser::default();
    let mut interim = 0;
    loop {
        match parser.parse(&received) {
            Outcome::NeedMore => {
                if stream.read_buf(&mut received).await.map_err(closed)? == 0 {
                    return Err(CheckFailure::Closed);
                }
            }
            Outcome::Bad(_) => return Err(CheckFailure::Malformed),
            Outcome::Done(response, end) if response.is_interim() && interim < INTERIM_MAX => {
                interim += 1;
                received.drain(..end);
                parser = ResponseParser::default();
            }
            Outcome::Done(response, _) => return Ok(response.status),
        }
    }
}

const AGENT: &str = concat!("wsha-check/", env!("CARGO_PKG_VERSION"));

/// Opens a session, sends a Ping, waits for its Pong (RFC 6455 section 5.5.3), and closes.
async fn ping<S>(stream: S, path: &str, host: &str) -> Result<(), CheckFailure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("ws://{host}{path}")
        .into_client_request()
        .map_err(|_| CheckFailure::Malformed)?;
    let agent = HeaderValue::from_static(AGENT);
    request.headers_mut().insert("user-agent", agent);
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX));
    let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
    let (mut session, _) = opened.map_err(failure)?;
    let ping = Message::Ping(PING.into());
    session.send(ping).await.map_err(failure)?;
    loop {
        match session.next().await {
            Some(Ok(Message::Pong(payload))) if payload == PING => break,
            Some(Ok(Message::Close(_))) | None => return Err(CheckFailure::Closed),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(failure(error)),
        }
    }
    // It has passed: how it ends is for good manners.
    let end = async {
        drop(session.close(None).await);
        while let Some(Ok(_)) = session.next().await {}
    };
    drop(timeout(CLOSE, end).await);
    Ok(())
}

fn failure(error: Error) -> CheckFailure {
    match error {
        Error::Http(answer) => CheckFailure::Status(answer.status().as_u16()),
        Error::Io(_)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(
            ProtocolError::HandshakeIncomplete | ProtocolError::ResetWithoutClosingHandshake,
        ) => CheckFailure::Closed,
        _ => CheckFailure::Malformed,
    }
}
