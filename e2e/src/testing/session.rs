//! A WebSocket client that sends what a test wants and reports all it gets.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustls::pki_types::CertificateDer;

use super::Client;
use super::wire::{Trust, Wire};
use crate::lab::PORT;
use crate::ws::{self, Decoder, Frame, Opcode};

/// Bound against hangs for anything that a client waits for: so long may nothing come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a session brought.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A whole message, and whether it is text.
    Message {
        /// Text, else binary.
        text: bool,
        /// All of it.
        payload: Vec<u8>,
    },
    /// A Close frame with code and reason.
    Close(Option<u16>, String),
    /// The stream ended without a Close frame.
    Fin,
    /// The connection was reset.
    Reset,
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    stream: Wire,
    decoder: Decoder,
    message: Option<(bool, Vec<u8>)>,
    sent: u32,
    /// Bytes and frames of messages that came so far.
    received: u64,
    frames: u64,
    pongs: bool,
}

impl Session {
    /// Opens a session from `host` to a virtual address.
    pub fn open<'a>(client: impl Into<Client<'a>>, address: impl Into<IpAddr>) -> Result<Self> {
        Self::open_at(client, address, PORT)
    }

    /// As [`Self::open`], at another port.
    pub fn open_at<'a>(
        client: impl Into<Client<'a>>,
        address: impl Into<IpAddr>,
        port: u16,
    ) -> Result<Self> {
        let mut opened = Self::open_many(client, address, port, 1)?;
        opened.pop().context("no session")
    }

    /// As [`Self::open_at`], over TLS with whom `trust` trusts.
    pub fn open_tls<'a>(
        client: impl Into<Client<'a>>,
        address: impl Into<IpAddr>,
        port: u16,
        trust: &Trust,
    ) -> Result<Self> {
        let target = SocketAddr::new(address.into(), port);
        let stream = client.into().within(|| connect(target))?;
        let mut wire = Wire::new(stream, Some(trust))?;
        wire.write_all(ws::request(&target.to_string()).as_bytes())?;
        wire.flush()?;
        Self::upgraded(wire)
    }

    /// The certificate that it was shown, where it is over TLS.
    pub fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.stream.certificate()
    }

    /// Whether its TLS session goes on with one from before.
    pub fn is_resumed(&self) -> bool {
        self.stream.is_resumed()
    }

    /// Opens `count` sessions, all handshakes under way at once.
    pub fn open_many<'a>(
        client: impl Into<Client<'a>>,
        address: impl Into<IpAddr>,
        port: u16,
        count: usize,
    ) -> Result<Vec<Self>> {
        Self::open_many_for(client, address, port, "/", count)
    }

    /// As [`Self::open_many`], for a path: the servers echo binary messages in frames of at most N bytes for
    /// `/frames/N`.
    pub fn open_many_for<'a>(
        client: impl Into<Client<'a>>,
        address: impl Into<IpAddr>,
        port: u16,
        path: &str,
        count: usize,
    ) -> Result<Vec<Self>> {
        let target = SocketAddr::new(address.into(), port);
        let request =
            ws::request(&target.to_string()).replacen("GET / ", &format!("GET {path} "), 1);
        let streams: Vec<TcpStream> = client.into().within(|| {
            let ask = |_| {
                let mut stream = connect(target)?;
                stream.write_all(request.as_bytes())?;
                Ok(stream)
            };
            (0..count).map(ask).collect()
        })?;
        let wires = streams.into_iter().map(Wire::Plain);
        wires.map(Self::upgraded).collect()
    }

    /// Reads the answer to the upgrade.
    fn upgraded(mut stream: Wire) -> Result<Self> {
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let length = stream
                .read(&mut buffer)
                .context("cannot read the answer to the upgrade")?;
            ensure!(
                length > 0,
                "the connection ended before the upgrade was answered"
            );
            received.extend_from_slice(&buffer[..length]);
            if let Some(end) = ws::response(&received)? {
                let mut decoder = Decoder::default();
                decoder.push(&received[end..]);
                return Ok(Self {
                    stream,
                    decoder,
                    message: None,
                    sent: 0,
                    received: 0,
                    frames: 0,
                    pongs: true,
                });
            }
        }
    }

    /// Sends one frame.
    pub fn send(&mut self, last: bool, opcode: Opcode, payload: &[u8]) -> Result<()> {
        self.sent = self.sent.wrapping_add(1);
        let mask = self.sent.wrapping_mul(0x9e37_79b9).to_be_bytes();
        let bytes = ws::frame_of(last, opcode, payload, mask);
        self.send_raw(&bytes)
    }

    /// Sends a binary message in frames of at most `frame` bytes, with a ping between the first two.
    pub fn send_message(&mut self, payload: &[u8], frame: usize) -> Result<()> {
        let mut parts = payload.chunks(frame.max(1)).peekable();
        let Some(first) = parts.next() else {
            return self.send(true, Opcode::Binary, payload);
        };
        self.send(parts.peek().is_none(), Opcode::Binary, first)?;
        if parts.peek().is_some() {
            self.send(true, Opcode::Ping, b"between")?;
        }
        while let Some(part) = parts.next() {
            self.send(parts.peek().is_none(), Opcode::Continuation, part)?;
        }
        Ok(())
    }

    /// Sends raw bytes, whatever they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("cannot send")?;
        self.stream.flush().context("cannot send")
    }

    /// Leaves pings unanswered from now on, as a client whose network is gone does.
    pub fn never_pong(&mut self) {
        self.pongs = false;
    }

    /// How many frames of messages came so far.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The next event within `bound`, `None` if nothing came. Pings are answered.
    pub fn poll(&mut self, bound: Duration) -> Result<Option<Event>> {
        let deadline = Instant::now() + bound;
        let mut buffer = vec![0; 64 << 10];
        loop {
            while let Some(frame) = self.decoder.next_frame()? {
                if let Some(event) = self.take(frame)? {
                    return Ok(Some(event));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // Zero would wait for ever.
            self.stream
                .tcp()
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(Some(Event::Fin)),
                Ok(length) => {
                    self.received += length as u64;
                    self.decoder.push(&buffer[..length]);
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Ok(Some(Event::Reset));
                }
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }

    /// The next event, waiting as long as it takes short of a hang.
    pub fn next_event(&mut self) -> Result<Event> {
        loop {
            let before = self.received;
            if let Some(event) = self.poll(PATIENCE)? {
                return Ok(event);
            }
            // A large message may take long on a slow machine; no hang, while some of it comes.
            ensure!(
                self.received > before,
                "a session brought nothing for {} s",
                PATIENCE.as_secs()
            );
        }
    }

    fn take(&mut self, frame: Frame) -> Result<Option<Event>> {
        match frame.opcode {
            Opcode::Close => {
                let (code, reason) = frame.close();
                // The other side may be gone already; that the Close came is what counts.
                drop(self.send(
                    true,
                    Opcode::Close,
                    frame.payload.get(..2).unwrap_or_default(),
                ));
                return Ok(Some(Event::Close(code, reason)));
            }
            Opcode::Ping if self.pongs => self.send(true, Opcode::Pong, &frame.payload)?,
            Opcode::Ping | Opcode::Pong => {}
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                self.frames += 1;
                let begins = frame.opcode != Opcode::Continuation;
                ensure!(
                    begins == self.message.is_none(),
                    "a {:?} frame out of place",
                    frame.opcode
                );
                let (_, payload) = self
                    .message
                    .get_or_insert_with(|| (frame.opcode == Opcode::Text, Vec::new()));
                payload.extend(frame.payload);
                if frame.last
                    && let Some((text, payload)) = self.message.take()
                {
                    return Ok(Some(Event::Message { text, payload }));
                }
            }
        }
        Ok(None)
    }

    /// Says `text` to the article's server; the address of the one that answered.
    pub fn say(&mut self, text: &str) -> Result<Ipv4Addr> {
        self.send(true, Opcode::Text, text.as_bytes())?;
        let answer = match self.next_event()? {
            Event::Message {
                text: true,
                payload,
            } => String::from_utf8(payload)?,
            other => bail!("no answer to {text:?} but {other:?}"),
        };
        let (server, heard) = answer
            .strip_prefix("Server ")
            .and_then(|rest| rest.split_once("  received from client: "))
            .with_context(|| format!("not the article's answer: {answer:?}"))?;
        ensure!(heard == text, "{heard:?} came back for {text:?}");
        Ok(server.parse()?)
    }

    /// Sends `payload` in frames of at most `frame` bytes and compares the echo byte for byte.
    pub fn echo(&mut self, payload: &[u8], frame: usize) -> Result<()> {
        self.send_message(payload, frame)?;
        self.expect_echo(payload)
    }

    /// Takes the next message and compares it byte for byte.
    pub fn expect_echo(&mut self, payload: &[u8]) -> Result<()> {
        match self.next_event()? {
            Event::Message {
                text: false,
                payload: back,
            } => {
                ensure!(
                    back.len() == payload.len(),
                    "{} bytes came back of {}",
                    back.len(),
                    payload.len()
                );
                ensure!(
                    back == payload,
                    "the payload of {} bytes came back changed",
                    payload.len()
                );
                Ok(())
            }
            other => bail!("no echo of {} bytes but {}", payload.len(), brief(&other)),
        }
    }

    /// Starts the closing handshake with code 1000.
    pub fn close(&mut self) -> Result<()> {
        self.send(true, Opcode::Close, &1000_u16.to_be_bytes())
    }

    /// Fails if anything but silence has come: a session that nothing was meant to touch.
    pub fn undisturbed(&mut self) -> Result<()> {
        match self.poll(Duration::ZERO)? {
            None => Ok(()),
            Some(event) => bail!(
                "a session that should not have noticed got {}",
                brief(&event)
            ),
        }
    }
}

fn connect(target: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, PATIENCE)
        .with_context(|| format!("cannot connect to {target}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn brief(event: &Event) -> String {
    match event {
        Event::Message { text, payload } => {
            format!("a message (text: {text}) of {} bytes", payload.len())
        }
        other => format!("{other:?}"),
    }
}
