//! What `e2e/backend/echo.js` is, with tungstenite: the same server and the same client.

use std::fmt::Write as _;
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio_tungstenite::tungstenite;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Error, Message, WebSocket};

/// Bound against hangs for anything that is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

const MIB: usize = 1 << 20;

/// Serves for as long as the process lives.
pub(crate) fn serve(listener: TcpListener, address: String) -> Result<()> {
    let last = Arc::new(Mutex::new(String::new()));
    let named = thread::Builder::new().name("tungstenite".into());
    named.spawn(move || {
        for stream in listener.incoming().flatten() {
            let (last, address) = (Arc::clone(&last), address.clone());
            // A session that breaks is the client's to notice.
            thread::spawn(move || drop(session(stream, &address, &last)));
        }
    })?;
    Ok(())
}

fn session(stream: TcpStream, address: &str, last: &Mutex<String>) -> Result<()> {
    let client = stream.peer_addr()?.ip();
    #[expect(clippy::result_large_err, reason = "the library's own type")]
    let choose = |request: &Request, mut response: Response| {
        let offered = request.headers().get("sec-websocket-protocol");
        if offered.is_some() {
            let chosen = HeaderValue::from_static("chat");
            response
                .headers_mut()
                .insert("sec-websocket-protocol", chosen);
        }
        Ok(response)
    };
    let mut ws =
        tungstenite::accept_hdr(stream, choose).map_err(|error| anyhow::anyhow!("{error}"))?;
    loop {
        let message = match ws.read() {
            Ok(message) => message,
            Err(Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        match message {
            Message::Text(text) => {
                let mut words = text.splitn(3, ' ');
                let mut next = || words.next().unwrap_or_default();
                let (word, first, rest) = (next(), next(), next());
                match word {
                    "who" => ws.send(Message::text(format!("{address} {client}")))?,
                    "close" => ws.close(Some(close(first.parse()?, rest)))?,
                    "ping" => ws.send(Message::Ping(first.to_owned().into()))?,
                    "last" => {
                        let last = last.lock().unwrap_or_else(PoisonError::into_inner).clone();
                        ws.send(Message::text(last))?;
                    }
                    _ => ws.send(Message::Text(text))?,
                }
            }
            Message::Binary(_) => ws.send(message)?,
            Message::Pong(payload) if !payload.is_empty() => {
                let payload = String::from_utf8_lossy(&payload).into_owned();
                ws.send(Message::text(format!("pong {payload}")))?;
            }
            Message::Close(Some(frame)) => {
                let told = format!("{} {}", u16::from(frame.code), frame.reason);
                *last.lock().unwrap_or_else(PoisonError::into_inner) = told;
            }
            _ => {}
        }
    }
}

fn close(code: u16, reason: &str) -> CloseFrame {
    CloseFrame {
        code: code.into(),
        reason: reason.to_owned().into(),
    }
}

type Client = WebSocket<TcpStream>;

fn opened(at: SocketAddrV4) -> Result<(Client, String)> {
    let stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("ws://{at}/").into_client_request()?;
    let offered = HeaderValue::from_static("other, chat");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", offered);
    let (ws, response) =
        tungstenite::client(request, stream).map_err(|error| anyhow::anyhow!("{error}"))?;
    let chosen = response.headers().get("sec-websocket-protocol");
    let chosen = chosen.context("no subprotocol")?.to_str()?.to_owned();
    Ok((ws, chosen))
}

fn echoed(ws: &mut Client, message: &Message) -> Result<&'static str> {
    ws.send(message.clone())?;
    Ok(if ws.read()? == *message {
        "same"
    } else {
        "different"
    })
}

fn text(ws: &mut Client) -> Result<String> {
    match ws.read()? {
        Message::Text(text) => Ok(text.to_string()),
        other => bail!("no text but {other:?}"),
    }
}

/// Reads until the end; what the server's Close said.
fn ended(ws: &mut Client) -> Result<(u16, String)> {
    let mut told = None;
    loop {
        match ws.read() {
            Ok(Message::Close(Some(frame))) => {
                told = Some((frame.code.into(), frame.reason.to_string()));
            }
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return told.context("no Close with a code"),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a client saw, one line for each thing that it tried.
pub(crate) fn attempt(at: SocketAddrV4) -> Result<String> {
    let mut lines = String::new();
    let (mut ws, subprotocol) = opened(at)?;
    writeln!(lines, "subprotocol: {subprotocol}")?;
    let large: Vec<u8> = b"a large message, "
        .iter()
        .copied()
        .cycle()
        .take(MIB)
        .collect();
    for (what, message) in [
        ("text", Message::text("Grüße, 世界 🎉")),
        ("empty", Message::text("")),
        ("binary", Message::binary((0..=255).collect::<Vec<u8>>())),
        ("large", Message::binary(large)),
    ] {
        writeln!(lines, "{what}: {}", echoed(&mut ws, &message)?)?;
    }
    for (data, part, is_last) in [
        (Data::Text, "in ", false),
        (Data::Continue, "three ", false),
        (Data::Continue, "parts", true),
    ] {
        let frame = Frame::message(part, OpCode::Data(data), is_last);
        ws.send(Message::Frame(frame))?;
    }
    writeln!(lines, "fragmented: {}", text(&mut ws)?)?;
    ws.send(Message::Ping("mine".into()))?;
    match ws.read()? {
        Message::Pong(payload) => writeln!(lines, "ping: {}", String::from_utf8_lossy(&payload))?,
        other => bail!("no pong but {other:?}"),
    }
    ws.send(Message::text("ping yours"))?;
    // The Ping itself is told, too, and answered.
    let answer = loop {
        match ws.read()? {
            Message::Ping(_) => ws.flush()?,
            Message::Text(text) => break text,
            other => bail!("no answer but {other:?}"),
        }
    };
    writeln!(lines, "pinged: {answer}")?;
    ws.close(Some(close(4001, "my reason")))?;
    writeln!(lines, "closing: {}", ended(&mut ws)?.0)?;
    let (mut ws, _) = opened(at)?;
    let last = loop {
        ws.send(Message::text("last"))?;
        let last = text(&mut ws)?;
        if last.starts_with("4001") {
            break last;
        }
    };
    writeln!(lines, "closed with: {last}")?;
    ws.send(Message::text("close 4002 their reason"))?;
    let (code, reason) = ended(&mut ws)?;
    writeln!(lines, "closed by: {code} {reason}")?;
    let (mut ws, _) = opened(at)?;
    writeln!(lines, "extensions:")?;
    let again = Message::text("again and ".repeat(20_000));
    writeln!(lines, "compressed: {}", echoed(&mut ws, &again)?)?;
    ws.close(Some(close(1000, "")))?;
    writeln!(lines, "closing: {}", ended(&mut ws)?.0)?;
    Ok(lines)
}
