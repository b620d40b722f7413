//! The bytes of both ends: frames as a generator and an echo server need them, and no more (RFC 6455 section 5.2).
//!
//! Messages are masked with a key of zero: to a proxy one key is as good as another, and what the generator saves on
//! masking is less for the core that it shares with the echo server.

use anyhow::{Result, ensure};

/// Bytes at the front of a payload that say whose message it is.
pub(super) const STAMP: usize = 8;

const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a frame is to the two ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Message,
    Close,
    Ping,
    Pong,
}

/// A whole frame in a slice.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) payload: &'a [u8],
    key: [u8; 4],
    /// Length of the frame, header included.
    pub(super) len: usize,
}

impl<'a> Frame<'a> {
    /// The frame at the front of `bytes`, once it is whole.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<Self>> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let (extra, payload) = match second & 0x7f {
            126 => match rest.first_chunk() {
                Some(length) => (2, u64::from(u16::from_be_bytes(*length))),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(length) => (8, u64::from_be_bytes(*length)),
                None => return Ok(None),
            },
            short => (0, u64::from(short)),
        };
        let mut rest = &rest[extra..];
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            let Some((found, behind)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            (key, rest) = (*found, behind);
        }
        let Some(payload) = rest.get(..usize::try_from(payload)?) else {
            return Ok(None);
        };
        ensure!(
            first & 0xf0 == 0x80,
            "a frame with a first byte of {first:#x}"
        );
        let kind = match first & 0x0f {
            1 | 2 => Kind::Message,
            CLOSE => Kind::Close,
            PING => Kind::Ping,
            PONG => Kind::Pong,
            other => anyhow::bail!("a frame of opcode {other}"),
        };
        Ok(Some(Self {
            kind,
            payload,
            key,
            len: bytes.len() - rest.len() + payload.len(),
        }))
    }

    /// The payload unmasked, for control frames alone: those of a proxy's own have a key.
    pub(super) fn control_payload(&self) -> Vec<u8> {
        let masked = self.payload.iter().zip(self.key.iter().cycle());
        masked.map(|(byte, key)| byte ^ key).collect()
    }

    /// Writes the server's answer to it, if it has one.
    pub(super) fn answer(&self, out: &mut Vec<u8>) -> Result<()> {
        match self.kind {
            Kind::Message => {
                ensure!(self.key == [0; 4], "a message is masked with a key");
                head(out, 0x82, self.payload.len(), false);
                out.extend_from_slice(self.payload);
            }
            Kind::Close => control(out, CLOSE, &self.control_payload(), false),
            Kind::Ping => control(out, PONG, &self.control_payload(), false),
            Kind::Pong => {}
        }
        Ok(())
    }
}

/// Writes a header; the key, if there is one, is zero.
fn head(out: &mut Vec<u8>, first: u8, len: usize, masked: bool) {
    out.push(first);
    let mask = u8::from(masked) << 7;
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ ..=125), _) => out.push(mask | len),
        (_, Ok(len)) => {
            out.push(mask | 0x7e);
            out.extend(len.to_be_bytes());
        }
        _ => {
            out.push(mask | 0x7f);
            out.extend((len as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend([0; 4]);
    }
}

fn control(out: &mut Vec<u8>, opcode: u8, payload: &[u8], masked: bool) {
    head(out, 0x80 | opcode, payload.len(), masked);
    out.extend_from_slice(payload);
}

/// A client's Close, code 1000.
pub(super) fn close(out: &mut Vec<u8>) {
    control(out, CLOSE, &1000_u16.to_be_bytes(), true);
}

/// A client's answer to a ping.
pub(super) fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    control(out, PONG, payload, true);
}

/// Messages of one size, each with its owner and number in front.
#[derive(Debug)]
pub(super) struct Messages {
    frame: Vec<u8>,
    head: usize,
}

impl Messages {
    pub(super) fn new(payload: usize) -> Self {
        let payload = payload.max(STAMP);
        let mut frame = Vec::with_capacity(payload + 14);
        head(&mut frame, 0x82, payload, true);
        let head = frame.len();
        frame.extend((b'a'..=b'z').cycle().take(payload));
        Self { frame, head }
    }

    /// Writes message `number` of session `owner`.
    pub(super) fn write(&self, out: &mut Vec<u8>, owner: u32, number: u32) {
        let from = out.len() + self.head;
        out.extend_from_slice(&self.frame);
        out[from..from + 4].copy_from_slice(&owner.to_be_bytes());
        out[from + 4..from + STAMP].copy_from_slice(&number.to_be_bytes());
    }

    /// Fails unless `payload` is that of message `number` of session `owner`.
    pub(super) fn check(&self, payload: &[u8], owner: u32, number: u32) -> Result<()> {
        let wanted = &self.frame[self.head..];
        ensure!(
            payload.len() == wanted.len() && payload[STAMP..] == wanted[STAMP..],
            "an echo came back changed"
        );
        ensure!(
            payload[..4] == owner.to_be_bytes() && payload[4..STAMP] == number.to_be_bytes(),
            "an echo of another session, or out of order"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_echoed_and_known_again_whatever_its_size() {
        for size in [64, 1024, 65_536] {
            let messages = Messages::new(size);
            let mut sent = Vec::new();
            messages.write(&mut sent, 7, 9);
            assert!(Frame::parse(&sent[..sent.len() - 1]).unwrap().is_none());
            let frame = Frame::parse(&sent).unwrap().unwrap();
            assert_eq!((frame.kind, frame.len), (Kind::Message, sent.len()));
            let mut echo = Vec::new();
            frame.answer(&mut echo).unwrap();
            let echo = Frame::parse(&echo).unwrap().unwrap();
            messages.check(echo.payload, 7, 9).unwrap();
            assert!(messages.check(echo.payload, 7, 10).is_err());
            assert!(messages.check(&echo.payload[1..], 7, 9).is_err());
        }
    }

    #[test]
    fn a_masked_ping_is_answered_with_its_payload() {
        let mut answer = Vec::new();
        let ping = [0x89, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        Frame::parse(&ping)
            .unwrap()
            .unwrap()
            .answer(&mut answer)
            .unwrap();
        assert_eq!(answer, [0x8a, 2, b'h', b'i']);
    }
}
