//! Frames of HTTP/2 (RFC 9113 section 6), and the head of the one request that is made.

use anyhow::{Context, Result, ensure};

/// What a client sends first (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest payload that either side may send, as nobody says otherwise here (section 6.5.2).
pub(super) const PAYLOAD_MAX: usize = 1 << 14;

/// What either side may send in a stream, and in all of a connection, before it is told of more (section 6.9.2).
pub(super) const WINDOW: u32 = (1 << 16) - 1;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// RFC 8441 section 3.
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// What the other side says of itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Settings {
    pub(super) initial_window: Option<u32>,
    pub(super) has_connect: bool,
}

/// A frame, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Frame<'a> {
    Data {
        stream: u32,
        payload: &'a [u8],
        /// What it takes of both windows: padding, too.
        taken: u32,
        is_last: bool,
    },
    Head {
        stream: u32,
        block: &'a [u8],
        is_last: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    Settings(Settings),
    Ping([u8; 8]),
    GoAway {
        code: u32,
    },
    /// Stream 0 is the connection.
    Window {
        stream: u32,
        more: u32,
    },
    Other,
}

impl<'a> Frame<'a> {
    /// The frame at the front of `bytes` and its length, once it is whole.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Option<(Self, usize)>> {
        let Some((head, rest)) = bytes.split_first_chunk::<9>() else {
            return Ok(None);
        };
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        let size = usize::try_from(length)?;
        ensure!(
            size <= PAYLOAD_MAX,
            "HTTP/2 is not spoken: it begins with {head:?}"
        );
        let Some(payload) = rest.get(..size) else {
            return Ok(None);
        };
        let is_last = flags & END_STREAM != 0;
        let frame = match kind {
            DATA => Self::Data {
                stream,
                payload: unpadded(payload, flags)?,
                taken: length,
                is_last,
            },
            HEADERS => {
                ensure!(flags & END_HEADERS != 0, "a head in several frames");
                let block = unpadded(payload, flags)?;
                let skipped = if flags & PRIORITY != 0 { 5 } else { 0 };
                let block = block.get(skipped..).context("a head too short")?;
                Self::Head {
                    stream,
                    block,
                    is_last,
                }
            }
            RST_STREAM => Self::Reset {
                stream,
                code: number(payload)?,
            },
            SETTINGS if flags & ACK == 0 => Self::Settings(settings(payload)),
            PING if flags & ACK == 0 => Self::Ping(payload.try_into().context("a ping's length")?),
            GOAWAY => Self::GoAway {
                code: number(payload.get(4..).unwrap_or_default())?,
            },
            WINDOW_UPDATE => Self::Window {
                stream,
                more: number(payload)? & 0x7fff_ffff,
            },
            CONTINUATION => anyhow::bail!("a head in several frames"),
            _ => Self::Other,
        };
        Ok(Some((frame, head.len() + size)))
    }
}

fn number(payload: &[u8]) -> Result<u32> {
    let number = payload.first_chunk().context("a frame too short")?;
    Ok(u32::from_be_bytes(*number))
}

fn unpadded(payload: &[u8], flags: u8) -> Result<&[u8]> {
    if flags & PADDED == 0 {
        return Ok(payload);
    }
    let (padding, rest) = payload.split_first().context("no length of padding")?;
    let length = rest.len().checked_sub((*padding).into());
    Ok(&rest[..length.context("more padding than frame")?])
}

fn settings(payload: &[u8]) -> Settings {
    let mut told = Settings::default();
    for [a, b, c, d, e, f] in payload.as_chunks().0 {
        let value = u32::from_be_bytes([*c, *d, *e, *f]);
        match u16::from_be_bytes([*a, *b]) {
            INITIAL_WINDOW_SIZE => told.initial_window = Some(value),
            ENABLE_CONNECT_PROTOCOL => told.has_connect = value == 1,
            _ => {}
        }
    }
    told
}

/// Whether a response's status is 200. Of its block only the start is read: the status comes first (RFC 9113
/// section 8.3), and 200 is one of the table that is always there (RFC 7541 appendix A).
pub(super) fn is_ok(mut block: &[u8]) -> bool {
    // Changes of the dynamic table's size (RFC 7541 section 6.3), of which nothing is used.
    while let Some((first, mut rest)) = block.split_first()
        && first & 0xe0 == 0x20
    {
        if first & 0x1f == 0x1f {
            let more = rest.iter().take_while(|byte| *byte & 0x80 != 0).count();
            rest = rest.get(more + 1..).unwrap_or_default();
        }
        block = rest;
    }
    block.first() == Some(&0x88)
}

fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    // No frame of ours is longer than the limit.
    let length = u32::try_from(length).unwrap_or_default();
    out.extend(&length.to_be_bytes()[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
}

/// What a connection begins with, where the other side may send so much in each stream and in all of them.
pub(super) fn begin(out: &mut Vec<u8>, stream_window: u32, connection_window: u32) {
    out.extend(PREFACE);
    let told = [(ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, stream_window)];
    head(out, told.len() * 6, SETTINGS, 0, 0);
    for (name, value) in told {
        out.extend(name.to_be_bytes());
        out.extend(value.to_be_bytes());
    }
    window_update(out, 0, connection_window - WINDOW);
}

pub(super) fn acknowledge_settings(out: &mut Vec<u8>) {
    head(out, 0, SETTINGS, ACK, 0);
}

pub(super) fn acknowledge_ping(out: &mut Vec<u8>, payload: [u8; 8]) {
    head(out, payload.len(), PING, ACK, 0);
    out.extend(payload);
}

pub(super) fn window_update(out: &mut Vec<u8>, stream: u32, more: u32) {
    head(out, 4, WINDOW_UPDATE, 0, stream);
    out.extend(more.to_be_bytes());
}

/// The bytes of a stream in as many frames as they need.
pub(super) fn data(out: &mut Vec<u8>, stream: u32, bytes: &[u8]) {
    for payload in bytes.chunks(PAYLOAD_MAX) {
        head(out, payload.len(), DATA, 0, stream);
        out.extend(payload);
    }
}

/// The end of a stream.
pub(super) fn end(out: &mut Vec<u8>, stream: u32) {
    head(out, 0, DATA, END_STREAM, stream);
}

/// Asks for a session (RFC 8441 section 4). No field is put into the dynamic table or compressed.
pub(super) fn connect(out: &mut Vec<u8>, stream: u32, authority: &str) {
    let mut block = Vec::new();
    // Names and whole fields of the static table by their numbers (RFC 7541 sections 6.1 and 6.2.2, appendix A).
    block.push(2);
    text(&mut block, "CONNECT");
    block.extend([0x80 | 7, 0x80 | 4, 1]);
    text(&mut block, authority);
    for (name, value) in [(":protocol", "websocket"), ("sec-websocket-version", "13")] {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    head(out, block.len(), HEADERS, END_HEADERS, stream);
    out.extend(block);
}

/// A string of less than 127 bytes (RFC 7541 section 5.2).
fn text(block: &mut Vec<u8>, text: &str) {
    block.push(u8::try_from(text.len()).unwrap_or_default() & 0x7f);
    block.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_are_written_wherever_they_are_cut() {
        let payload = vec![7; PAYLOAD_MAX + 5];
        let mut bytes = Vec::new();
        data(&mut bytes, 3, &payload);
        window_update(&mut bytes, 3, 99);
        end(&mut bytes, 3);
        let mut whole = Vec::new();
        let mut at = 0;
        for cut in 0..=bytes.len() {
            while let Some((frame, length)) = Frame::parse(&bytes[at..cut]).unwrap() {
                at += length;
                whole.push(frame);
            }
        }
        let data = |payload, is_last| Frame::Data {
            stream: 3,
            payload,
            taken: u32::try_from(payload.len()).unwrap(),
            is_last,
        };
        let more = Frame::Window {
            stream: 3,
            more: 99,
        };
        let expected = [
            data(&payload[5..], false),
            data(&payload[..5], false),
            more,
            data(&[], true),
        ];
        assert_eq!(whole, expected);
        assert!(Frame::parse(b"HTTP/1.1 400 Bad Request").is_err());
    }

    #[test]
    fn padding_is_no_payload_but_takes_of_the_window() {
        let bytes = [0, 0, 5, DATA, PADDED, 0, 0, 0, 1, 2, b'h', b'i', 0, 0];
        let (frame, _) = Frame::parse(&bytes).unwrap().unwrap();
        let expected = Frame::Data {
            stream: 1,
            payload: b"hi",
            taken: 5,
            is_last: false,
        };
        assert_eq!(frame, expected);
        let too_much = [0, 0, 1, DATA, PADDED, 0, 0, 0, 1, 1];
        assert!(Frame::parse(&too_much).is_err());
    }

    #[test]
    fn a_status_is_found_behind_changes_of_the_table() {
        assert!(is_ok(&[0x88, 0x61]));
        assert!(is_ok(&[0x20, 0x3f, 0xe1, 0x1f, 0x88]));
        // 404, and 503 in letters.
        assert!(!is_ok(&[0x8d]) && !is_ok(&[0x48, 3, b'5', b'0', b'3']) && !is_ok(&[]));
    }
}
