//! TLS on one connection.
//!
//! Ciphertext is read into, and written from, a buffer that all connections of a thread share: one
//! that is idle owns none. What is kept is what came of a record before the rest of it, and records
//! that the kernel did not take.

use std::{
    cell::RefCell,
    fmt,
    future::poll_fn,
    io,
    mem::take,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ClientConfig, Error, ProtocolVersion, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::HTTP_2;

/// The largest record: a header of five bytes, 2^14 bytes, and what a cipher may add (RFC 5246 section
/// 6.2.3, more than RFC 8446 section 5.2 allows).
const RECORD_MAX: usize = 5 + (1 << 14) + 2048;

/// Bytes of a handshake. The largest message that is taken has 2^16; who wraps each byte of it into a record
/// must not have all of them kept here.
const HANDSHAKE_MAX: usize = 1 << 16;

/// Bytes that are sealed at once: as much as the relay reads at once, and a record more.
const WRITE_MAX: usize = 17 << 14;

/// Room for that with what each record adds, and for reads of as much.
const SCRATCH: usize = WRITE_MAX + 3 * RECORD_MAX;

thread_local! {
    static CIPHERTEXT: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// The state of TLS on a connection. The socket is not in it, and handed to what needs it.
pub(crate) struct Tls {
    end: End,
    /// Ciphertext that came and is no whole record yet.
    received: Vec<u8>,
    /// Plaintext that came and was not asked for yet.
    plain: Vec<u8>,
    /// Records that the kernel has not taken.
    held: Vec<u8>,
    /// Bytes that it has taken.
    sent: u64,
    /// The peer has said that it sends no more.
    peer_closed: bool,
    /// We have said so.
    closed: bool,
    /// An error ended it.
    broken: bool,
    /// The server that the client has asked for, where that is to be told.
    server_name: Option<Box<str>>,
}

/// What a client and we have agreed on, for those who read of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Agreed {
    /// The version of TLS, as `1.3`.
    pub(crate) version: Option<&'static str>,
    /// The server that it has asked for, if it has.
    pub(crate) server_name: Option<String>,
}

/// Which end of the connection this is.
enum End {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What is to be written, as soon as the connection lets it.
enum Output<'a> {
    Nothing,
    Data(&'a [u8]),
    /// `close_notify`.
    Close,
}

/// What a turn of the state machine has brought.
enum Turn {
    /// Another turn may bring more.
    More,
    /// The peer sends no more.
    PeerClosed,
    /// It needs more ciphertext.
    Idle,
    /// The output has become so many bytes.
    Sealed(usize),
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    // Both ends are boxed from the start: by value they would be in the future of every handshake, with TLS or
    // without, more than once.

    /// The server's end. The client has sent `received` so far.
    pub(super) fn server(
        config: Arc<ServerConfig>,
        received: Vec<u8>,
        name: Option<String>,
    ) -> Result<Box<Self>, Error> {
        let end = End::Server(UnbufferedServerConnection::new(config)?);
        let mut tls = Self::new(end, received);
        tls.server_name = name.map(String::into_boxed_str);
        Ok(tls)
    }

    /// The client's end.
    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Box<Self>, Error> {
        let end = End::Client(UnbufferedClientConnection::new(config, name)?);
        Ok(Self::new(end, Vec::new()))
    }

    fn new(end: End, received: Vec<u8>) -> Box<Self> {
        Box::new(Self {
            end,
            received,
            plain: Vec::new(),
            held: Vec::new(),
            sent: 0,
            peer_closed: false,
            closed: false,
            broken: false,
            server_name: None,
        })
    }

    /// Whether records wait for the kernel to take them.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes of these records.
    pub(crate) fn held(&self) -> u64 {
        self.held.len() as u64
    }

    /// Bytes that the kernel has taken.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the client and we have agreed on HTTP/2 (RFC 7301).
    pub(crate) fn carries_http2(&self) -> bool {
        match &self.end {
            End::Client(_) => false,
            End::Server(end) => end.alpn_protocol() == Some(HTTP_2),
        }
    }

    /// What was agreed on so far.
    pub(crate) fn agreed(&self) -> Agreed {
        let version = match &self.end {
            End::Client(end) => end.protocol_version(),
            End::Server(end) => end.protocol_version(),
        };
        Agreed {
            version: match version {
                Some(ProtocolVersion::TLSv1_2) => Some("1.2"),
                Some(ProtocolVersion::TLSv1_3) => Some("1.3"),
                _ => None,
            },
            server_name: self.server_name.as_deref().map(str::to_owned),
        }
    }

    /// Comes to keys for both directions with the peer. What the peer sends behind that stays here to be
    /// read.
    pub(crate) async fn handshake(&mut self, tcp: &mut TcpStream) -> io::Result<()> {
        let mut begun = false;
        let mut came = self.received.len();
        poll_fn(|cx| {
            if !begun {
                begun = true;
                let mut received = take(&mut self.received);
                let processed = self.process(&mut received, &mut ReadBuf::new(&mut []));
                self.or_alert(processed, tcp, cx)?;
            }
            loop {
                ready!(self.poll_flush(tcp, cx))?;
                if !self.is_handshaking() {
                    return Poll::Ready(Ok(()));
                }
                if came > HANDSHAKE_MAX {
                    let error = Error::General("its handshake is too long".to_owned());
                    return Poll::Ready(self.or_alert(Err(error), tcp, cx));
                }
                came += ready!(self.poll_receive(tcp, cx, &mut ReadBuf::new(&mut [])))?;
            }
        })
        .await
    }

    fn is_handshaking(&self) -> bool {
        match &self.end {
            End::Client(end) => end.is_handshaking(),
            End::Server(end) => end.is_handshaking(),
        }
    }

    /// As of a socket: nothing read is the end, which is an error where the peer has not announced it
    /// (RFC 8446 section 6.1).
    pub(crate) fn poll_read(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What the peer's messages of the handshake made us say must not wait for data of ours. If that
        // fails, what can still be read tells why.
        drop(self.poll_flush(tcp, cx));
        let before = buf.filled().len();
        if !self.plain.is_empty() {
            let n = self.plain.len().min(buf.remaining());
            buf.put_slice(&self.plain[..n]);
            self.plain.drain(..n);
            if self.plain.is_empty() {
                self.plain = Vec::new();
            }
        }
        while buf.filled().len() == before && !self.peer_closed {
            ready!(self.poll_receive(tcp, cx, buf))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what the socket has, and gives what can be read of it to `buf` as far as that has room. How many
    /// bytes the socket had.
    fn poll_receive(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        CIPHERTEXT.with_borrow_mut(|scratch| {
            let start = self.received.len();
            // Plaintext is shorter; and a record must have room whole, behind others of its message.
            let end = buf.remaining().max(start + RECORD_MAX).min(scratch.len());
            let mut room = ReadBuf::new(&mut scratch[start..end]);
            ready!(Pin::new(&mut *tcp).poll_read(cx, &mut room))?;
            let n = room.filled().len();
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            scratch[..start].copy_from_slice(&self.received);
            let processed = self.process(&mut scratch[..start + n], buf);
            Poll::Ready(self.or_alert(processed, tcp, cx).map(|()| n))
        })
    }

    /// Opens the records in `bytes`, and keeps what is none yet.
    fn process(&mut self, bytes: &mut [u8], buf: &mut ReadBuf<'_>) -> Result<(), Error> {
        let mut start = 0;
        let outcome = loop {
            let (n, turn) = self.turn(&mut bytes[start..], buf, &Output::Nothing, &mut []);
            start += n;
            match turn {
                Ok(Turn::More) => {}
                // What follows the end is to be ignored (RFC 8446 section 6.1).
                Ok(Turn::PeerClosed) => start = bytes.len(),
                Ok(Turn::Idle | Turn::Sealed(_)) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let rest = &bytes[start..];
        if rest.is_empty() {
            self.received = Vec::new();
        } else {
            self.received.clear();
            self.received.extend_from_slice(rest);
        }
        outcome
    }

    /// One turn of the state machine; also how many of `bytes` it is done with.
    fn turn(
        &mut self,
        bytes: &mut [u8],
        buf: &mut ReadBuf<'_>,
        output: &Output<'_>,
        room: &mut [u8],
    ) -> (usize, Result<Turn, Error>) {
        let Self {
            end, plain, held, ..
        } = self;
        let read = |payload: &[u8]| {
            let (now, later) = payload.split_at(payload.len().min(buf.remaining()));
            buf.put_slice(now);
            plain.extend_from_slice(later);
        };
        let (done, turn) = match end {
            End::Client(end) => advance(end.process_tls_records(bytes), read, held, output, room),
            End::Server(end) => advance(end.process_tls_records(bytes), read, held, output, room),
        };
        self.peer_closed |= matches!(turn, Ok(Turn::PeerClosed));
        (done, turn)
    }

    /// Tells the peer of an error, if it can be told, and no more is done after it.
    fn or_alert(
        &mut self,
        outcome: Result<(), Error>,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let Err(error) = outcome else { return Ok(()) };
        // The alert stands there already, and comes out before anything is looked at.
        while self.has_output() {
            let turn = self.turn(
                &mut [],
                &mut ReadBuf::new(&mut []),
                &Output::Nothing,
                &mut [],
            );
            if turn.1.is_err() {
                break;
            }
        }
        self.broken = true;
        drop(self.poll_flush(tcp, cx));
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    fn has_output(&self) -> bool {
        match &self.end {
            End::Client(end) => end.wants_write(),
            End::Server(end) => end.wants_write(),
        }
    }

    /// Takes bytes once all taken before are with the kernel; then it takes all that there is room for.
    pub(crate) fn poll_write(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(tcp, cx))?;
        let bytes = &bytes[..bytes.len().min(WRITE_MAX)];
        CIPHERTEXT.with_borrow_mut(|scratch| {
            let n = self.seal(&Output::Data(bytes), scratch)?;
            let mut records = &scratch[..n];
            // Records of the handshake came first, if there were any.
            while self.held.is_empty() && !records.is_empty() {
                match Pin::new(&mut *tcp).poll_write(cx, records)? {
                    Poll::Ready(n) => {
                        self.sent += n as u64;
                        records = &records[n..];
                    }
                    Poll::Pending => break,
                }
            }
            self.held.extend_from_slice(records);
            Poll::Ready(Ok(bytes.len()))
        })
    }

    /// Makes records of `output`; how many bytes of `room` they take.
    fn seal(&mut self, output: &Output<'_>, room: &mut [u8]) -> io::Result<usize> {
        let mut received = take(&mut self.received);
        let sealed = loop {
            if self.broken || self.closed {
                break Err(io::ErrorKind::BrokenPipe.into());
            }
            let nowhere = &mut ReadBuf::new(&mut []);
            let (n, turn) = self.turn(&mut received, nowhere, output, room);
            received.drain(..n);
            match turn {
                Ok(Turn::More | Turn::PeerClosed) => {}
                Ok(Turn::Sealed(n)) => break Ok(n),
                Ok(Turn::Idle) => break Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => {
                    self.broken = true;
                    break Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        };
        self.received = received;
        sealed
    }

    /// Hands the kernel what it has not taken yet.
    pub(crate) fn poll_flush(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pos = 0;
        let outcome = loop {
            if pos == self.held.len() {
                break Poll::Ready(Ok(()));
            }
            match Pin::new(&mut *tcp).poll_write(cx, &self.held[pos..]) {
                Poll::Ready(Ok(n)) => pos += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.sent += pos as u64;
        if pos == self.held.len() {
            self.held = Vec::new();
        } else {
            self.held.drain(..pos);
        }
        outcome
    }

    /// Says that no more will be sent.
    pub(crate) fn poll_close(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.closed && !self.broken && !self.is_handshaking() {
            let mut alert = [0; 256];
            let n = self.seal(&Output::Close, &mut alert)?;
            self.held.extend_from_slice(&alert[..n]);
            self.closed = true;
        }
        self.poll_flush(tcp, cx)
    }
}

/// Does what the state machine asks for; also how many bytes of what came are done with.
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    mut read: impl FnMut(&[u8]),
    held: &mut Vec<u8>,
    output: &Output<'_>,
    room: &mut [u8],
) -> (usize, Result<Turn, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let turn = match state {
        Ok(ConnectionState::ReadTraffic(mut records)) => loop {
            match records.next_record() {
                Some(Ok(record)) => {
                    read(record.payload);
                    discard += record.discard;
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Turn::More),
            }
        },
        Ok(ConnectionState::EncodeTlsData(message)) => encode(message, held),
        Ok(ConnectionState::TransmitTlsData(message)) => {
            // It is with what goes out first.
            message.done();
            Ok(Turn::More)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Turn::PeerClosed),
        Ok(ConnectionState::WriteTraffic(mut write)) => {
            let sealed = match output {
                Output::Nothing => return (discard, Ok(Turn::Idle)),
                Output::Data(bytes) => write.encrypt(bytes, room),
                Output::Close => write.queue_close_notify(room),
            };
            sealed.map(Turn::Sealed).map_err(|error| match error {
                EncryptError::EncryptExhausted => Error::EncryptError,
                EncryptError::InsufficientSize(_) => Error::General(error.to_string()),
            })
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => Ok(Turn::Idle),
        // Early data is allowed to nobody: it could be played again (RFC 8446 section 8).
        Ok(state) => Err(Error::General(format!("{state:?} was not asked for"))),
        Err(error) => Err(error),
    };
    (discard, turn)
}

fn encode<Data>(mut message: EncodeTlsData<'_, Data>, held: &mut Vec<u8>) -> Result<Turn, Error> {
    let start = held.len();
    // Without room it says how much it needs.
    if let Err(EncodeError::InsufficientSize(needs)) = message.encode(&mut []) {
        held.resize(start + needs.required_size, 0);
    }
    match message.encode(&mut held[start..]) {
        Ok(_) => Ok(Turn::More),
        Err(error) => Err(Error::General(error.to_string())),
    }
}
