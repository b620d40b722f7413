//! The client side of RFC 6455, as much of it as a probe needs: cheap, and without any buffering of its own.

use anyhow::{Result, bail, ensure};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Key of every handshake: the example of RFC 6455 section 1.3. A probe needs no fresh one, only the right answer.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`KEY`] (RFC 6455 section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A field's name with its colon.
const SEC_WEBSOCKET_KEY: &[u8] = b"sec-websocket-key:";

/// What a frame is (RFC 6455 section 5.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opcode {
    /// Continues a message.
    Continuation,
    /// Text.
    Text,
    /// Binary.
    Binary,
    /// Close, with code and reason.
    Close,
    /// Ping, to be answered.
    Ping,
    /// Pong.
    Pong,
}

impl Opcode {
    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    fn of(bits: u8) -> Result<Self> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            other => bail!("frame with opcode {other}"),
        })
    }
}

/// A frame from the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// Whether it ends its message.
    pub last: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Code and reason of a Close (RFC 6455 section 5.5.1).
    pub fn close(&self) -> (Option<u16>, String) {
        match self.payload.as_slice() {
            [high, low, reason @ ..] => (
                Some(u16::from_be_bytes([*high, *low])),
                String::from_utf8_lossy(reason).into_owned(),
            ),
            _ => (None, String::new()),
        }
    }
}

/// The opening handshake's request.
pub fn request(host: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// The key in a request's head.
pub fn key(head: &[u8]) -> Option<&[u8]> {
    let fields = head.split(|byte| *byte == b'\n');
    fields
        .filter_map(|line| line.split_at_checked(SEC_WEBSOCKET_KEY.len()))
        .find(|(name, _)| name.eq_ignore_ascii_case(SEC_WEBSOCKET_KEY))
        .map(|(_, value)| value.trim_ascii())
}

/// A server's answer to a request with this key.
pub fn accepted(key: &[u8]) -> String {
    let accept = derive_accept_key(key);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// Reads the answer to [`request`] out of `received`: its length once it is whole, an error when it is not a proper 101.
pub fn response(received: &[u8]) -> Result<Option<usize>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&received[..end]);
    let mut lines = text.split("\r\n");
    let status = lines.next().unwrap_or_default();
    ensure!(status.starts_with("HTTP/1.1 101"), "{status}");
    let accepted = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == ACCEPT
        });
    ensure!(accepted, "101 without the right Sec-WebSocket-Accept");
    Ok(Some(end + 4))
}

/// A whole client frame, masked with `mask` (RFC 6455 section 5.3). Payloads up to 125 bytes, which is all a probe sends.
pub fn frame(opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Result<Vec<u8>> {
    let length = u8::try_from(payload.len())
        .ok()
        .filter(|length| *length <= 125);
    let Some(length) = length else {
        bail!("a probe's payload is at most 125 bytes")
    };
    let mut bytes = vec![0x80 | opcode.bits(), 0x80 | length];
    bytes.extend(mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    Ok(bytes)
}

/// A client frame of any length, masked with `mask`, that ends its message or not (RFC 6455 section 5.2).
pub fn frame_of(last: bool, opcode: Opcode, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![u8::from(last) << 7 | opcode.bits()];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=125), _) => bytes.push(0x80 | length),
        (_, Ok(length)) => {
            bytes.push(0x80 | 0x7e);
            bytes.extend(length.to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 0x7f);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    bytes
}

/// Cuts the server's byte stream into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    received: Vec<u8>,
}

impl Decoder {
    /// Takes bytes from the wire.
    pub fn push(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        let [first, second, rest @ ..] = self.received.as_slice() else {
            return Ok(None);
        };
        ensure!(second & 0x80 == 0, "the server masked a frame");
        ensure!(first & 0x70 == 0, "reserved bits set without an extension");
        let (extra, length) = match second & 0x7f {
            126 => {
                let Some(length) = rest.first_chunk() else {
                    return Ok(None);
                };
                (2, usize::from(u16::from_be_bytes(*length)))
            }
            127 => {
                let Some(length) = rest.first_chunk() else {
                    return Ok(None);
                };
                (8, usize::try_from(u64::from_be_bytes(*length))?)
            }
            short => (0, usize::from(short)),
        };
        let Some(payload) = rest.get(extra..).and_then(|rest| rest.get(..length)) else {
            return Ok(None);
        };
        let frame = Frame {
            last: first & 0x80 != 0,
            opcode: Opcode::of(first & 0x0f)?,
            payload: payload.to_vec(),
        };
        self.received.drain(..2 + extra + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_the_example_of_the_rfc() {
        // RFC 6455 section 5.7: "A single-frame masked text message".
        let bytes = frame(Opcode::Text, b"Hello", [0x37, 0xfa, 0x21, 0x3d]).unwrap();
        assert_eq!(
            bytes,
            [
                0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58
            ]
        );
    }

    #[test]
    fn cuts_frames_wherever_the_stream_is_cut() {
        let mut stream = vec![0x81, 5];
        stream.extend(b"Hello");
        stream.extend([0x82, 126, 1, 0]);
        stream.extend([7; 256]);
        stream.extend([0x88, 6, 0x03, 0xe9]);
        stream.extend(b"away");
        for cut in 1..stream.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                decoder.push(part);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames.len(), 3, "cut at {cut}");
            assert_eq!(frames[0].payload, b"Hello");
            assert_eq!(frames[1].payload, [7; 256]);
            assert_eq!(frames[2].close(), (Some(1001), "away".into()));
        }
    }

    #[test]
    fn a_key_is_found_and_answered() {
        let request = request("host").replace("Sec-WebSocket-Key", "sec-websocket-KEY");
        assert_eq!(key(request.as_bytes()), Some(KEY.as_bytes()));
        assert_eq!(key(b"GET / HTTP/1.1\r\nHost: host\r\n\r\n"), None);
        let answer = accepted(KEY.as_bytes());
        assert_eq!(response(answer.as_bytes()).unwrap(), Some(answer.len()));
    }

    #[test]
    fn refuses_what_is_no_upgrade() {
        let good = format!(
            "HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {ACCEPT}\r\n\r\nrest"
        );
        assert_eq!(response(good.as_bytes()).unwrap(), Some(good.len() - 4));
        assert_eq!(response(b"HTTP/1.1 101 Switch").unwrap(), None);
        assert!(response(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").is_err());
        assert!(
            response(b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\n\r\n")
                .is_err()
        );
    }
}
