//! Finds frame boundaries in a stream of bytes (RFC 6455 section 5.2), and nothing more.
//!
//! Payload of data frames is stepped over unread. Only a header, the code of a Close frame and the
//! payload of a Pong that may answer our own Ping are looked at; as long as such a *head* is
//! incomplete its bytes are held back, so what was passed on ends inside a frame only when payload
//! is missing. What breaks RFC 6455 but still tells where it ends is passed on and counted: the
//! receiver must fail the connection (section 7.1.7), as it would without a proxy.

/// Longest head: the first two bytes, 8 of length, 4 of masking key; as long is a masked Pong of
/// eight bytes.
pub const HEAD_MAX: usize = 14;

/// Payload of the pings we send.
pub type PingPayload = [u8; 8];

/// Position in one direction's stream of frames. A plain value: it can be moved to another owner
/// together with the socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frames {
    /// Payload of the frame under way that is still to come.
    remaining: u64,
    held: [u8; HEAD_MAX],
    held_len: u8,
    closing: bool,
    closed: bool,
}

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Whether the sender must mask: it is the client (section 5.1).
    pub masked: bool,
    /// Payload by which the answers to our own Pings are known.
    pub pong: PingPayload,
    /// How many of them may be on their way. What comes beyond is the sender's own and passes.
    pub pongs: u8,
}

/// What a slice of the stream contained.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Scan {
    /// Bytes at the front of the buffer that are to be passed on.
    pub ready: usize,
    /// Offset in these of the first frame boundary, where a frame may be inserted.
    pub boundary: Option<usize>,
    /// Frames begun.
    pub frames: u32,
    /// Data frames begun that end a message.
    pub messages: u32,
    /// Frames that break RFC 6455.
    pub violations: u32,
    /// Pongs removed, since they answer our own Pings.
    pub own_pongs: u32,
    /// Code of a Close frame that began here; the inner `None`: it has none.
    pub close: Option<Option<u16>>,
}

impl Frames {
    /// Whether everything passed on so far ends with a whole frame.
    pub fn at_boundary(&self) -> bool {
        self.remaining == 0
    }

    /// Whether a Close frame has passed whole; what follows it is not passed on (section 5.5.1).
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether a Close frame has begun.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Bytes held back, which belong before what is scanned next.
    pub fn held(&self) -> &[u8] {
        &self.held[..usize::from(self.held_len)]
    }

    /// Scans `buf`: the bytes held back before, then those just received. The first
    /// [`Scan::ready`] bytes of `buf` are then to be passed on.
    pub fn scan(&mut self, buf: &mut [u8], watch: Watch) -> Scan {
        self.held_len = 0;
        let mut scan = Scan::default();
        let mut kept = Kept::default();
        let mut pos = 0;
        loop {
            let left = buf.len() - pos;
            if self.remaining > 0 {
                let take = usize::try_from(self.remaining).map_or(left, |n| n.min(left));
                pos += take;
                self.remaining -= take as u64;
                if self.remaining > 0 {
                    break;
                }
            }
            if scan.boundary.is_none() {
                scan.boundary = Some(kept.len + (pos - kept.from));
            }
            self.closed = self.closing;
            if self.closed || pos == buf.len() {
                break;
            }
            let expects_pong = scan.own_pongs < watch.pongs.into();
            let Some(head) = Head::parse(&buf[pos..], expects_pong) else {
                // At most 13 bytes: a head is complete with 14.
                let tail = &buf[pos..];
                self.held[..tail.len()].copy_from_slice(tail);
                self.held_len = u8::try_from(tail.len()).unwrap_or(0);
                break;
            };
            if head.is_pong(watch.pong) {
                kept.close_gap(buf, pos);
                pos += head.len + 8;
                kept.from = pos;
                scan.own_pongs += 1;
                continue;
            }
            scan.frames += 1;
            scan.messages += u32::from(head.ends_message());
            scan.violations += u32::from(head.is_violation(watch.masked));
            if head.opcode() == CLOSE {
                self.closing = true;
                scan.close = Some(head.code);
            }
            pos += head.len;
            self.remaining = head.payload;
        }
        kept.close_gap(buf, pos);
        scan.ready = kept.len;
        scan
    }
}

/// What of a buffer is passed on: its first `len` bytes, and then those that begin at `from` and
/// were not moved up to them yet. However many frames are taken out, each byte is moved once.
#[derive(Default)]
struct Kept {
    len: usize,
    from: usize,
}

impl Kept {
    /// Moves up what lies before `to`.
    fn close_gap(&mut self, buf: &mut [u8], to: usize) {
        if self.from > self.len {
            buf.copy_within(self.from..to, self.len);
        }
        self.len += to - self.from;
    }
}

const CLOSE: u8 = 8;
const PONG: u8 = 10;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// A frame's header, and what is read of its payload.
struct Head {
    first: u8,
    masked: bool,
    /// Bytes of the header.
    len: usize,
    payload: u64,
    /// First two bytes of a Close frame's payload.
    code: Option<u16>,
    /// Payload of a Pong of eight bytes.
    pong: Option<PingPayload>,
}

impl Head {
    /// `None`: more bytes are needed.
    fn parse(buf: &[u8], read_pongs: bool) -> Option<Self> {
        let (&first, &second) = (buf.first()?, buf.get(1)?);
        let masked = second & MASKED != 0;
        let (payload, mut len) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(array(buf, 2)?)), 4),
            127 => (u64::from_be_bytes(array(buf, 2)?), 10),
            short => (u64::from(short), 2),
        };
        let key: [u8; 4] = if masked {
            len += 4;
            array(buf, len - 4)?
        } else {
            [0; 4]
        };
        let mut head = Self {
            first,
            masked,
            len,
            payload,
            code: None,
            pong: None,
        };
        // A longer form of the length (against section 5.2) would make a head of more than 14.
        if head.opcode() == CLOSE && payload >= 2 && len <= 6 {
            let code: [u8; 2] = array(buf, len)?;
            head.code = Some(u16::from_be_bytes([code[0] ^ key[0], code[1] ^ key[1]]));
        }
        if head.opcode() == PONG && payload == 8 && len <= 6 && read_pongs {
            let mut pong: PingPayload = array(buf, len)?;
            for (byte, key) in pong.iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
            head.pong = Some(pong);
        }
        Some(head)
    }

    fn opcode(&self) -> u8 {
        self.first & 0x0f
    }

    fn is_pong(&self, payload: PingPayload) -> bool {
        self.first == FIN | PONG && self.pong == Some(payload)
    }

    fn ends_message(&self) -> bool {
        self.opcode() <= 2 && self.first & FIN != 0
    }

    fn is_violation(&self, must_mask: bool) -> bool {
        let control = self.opcode() >= CLOSE;
        // Section 5.1: clients mask and servers do not. Section 5.5: control frames are short and
        // whole. Section 5.2: opcodes 3-7 and 11-15 are reserved, the length has 63 bits. Reserved
        // bits are an extension's business, which we do not know.
        self.masked != must_mask
            || (control && (self.payload > 125 || self.first & FIN == 0))
            || matches!(self.opcode(), 3..=7 | 11..=15)
            || self.payload >> 63 != 0
    }
}

fn array<const N: usize>(buf: &[u8], at: usize) -> Option<[u8; N]> {
    buf.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Watch = Watch {
        masked: false,
        pong: [0; 8],
        pongs: 0,
    };

    #[test]
    fn heads_of_each_length() {
        for (payload, head) in [(5, 2), (126, 4), (65_536, 10)] {
            let mut buf = vec![0x82];
            match head {
                2 => buf.push(5),
                4 => buf.extend([126, 0, 126]),
                _ => buf.extend([127, 0, 0, 0, 0, 0, 1, 0, 0]),
            }
            buf.extend(vec![7; payload]);
            let mut frames = Frames::default();
            let scan = frames.scan(&mut buf, SERVER);
            assert_eq!((scan.ready, scan.messages), (head + payload, 1));
            assert!(frames.at_boundary() && frames.held().is_empty());
        }
    }

    #[test]
    fn an_incomplete_head_is_held_and_leaves_a_boundary() {
        let mut frames = Frames::default();
        let scan = frames.scan(&mut [0x82, 1, b'x', 0x82, 126, 0], SERVER);
        assert_eq!(scan.ready, 3);
        assert!(frames.at_boundary());
        assert_eq!(frames.held(), [0x82, 126, 0]);
    }

    #[test]
    fn own_pong_is_removed_wherever_it_is_cut_and_others_pass() {
        let own = *b"12345678";
        let watch = Watch {
            masked: true,
            pong: own,
            pongs: 1,
        };
        let key = [9, 8, 7, 6];
        let pong = |payload: &[u8]| {
            let mut frame = vec![0x8a, 0x80 | u8::try_from(payload.len()).unwrap()];
            frame.extend(key);
            frame.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
            frame
        };
        let before = pong(b"87654321");
        let after = pong(b"123");
        let stream = [before.clone(), pong(&own), after.clone()].concat();
        for cut in 0..=stream.len() {
            let mut frames = Frames::default();
            let mut passed = Vec::new();
            let mut swallowed = 0;
            for part in [&stream[..cut], &stream[cut..]] {
                let mut buf = [frames.held(), part].concat();
                let scan = frames.scan(&mut buf, watch);
                passed.extend_from_slice(&buf[..scan.ready]);
                swallowed += scan.own_pongs;
            }
            assert_eq!(passed, [before.clone(), after.clone()].concat());
            assert_eq!(swallowed, 1);
        }
    }

    #[test]
    fn no_more_pongs_are_removed_than_pings_were_sent() {
        let pong = |n: u8| [&[0x8a, 8][..], b"12345678", &[0x82, 1, n]].concat();
        let mut buf: Vec<u8> = (0..5).flat_map(pong).collect();
        let watch = Watch {
            masked: false,
            pong: *b"12345678",
            pongs: 2,
        };
        let scan = Frames::default().scan(&mut buf, watch);
        assert_eq!(
            (scan.own_pongs, scan.frames, scan.boundary),
            (2, 8, Some(0))
        );
        let rest = (2..5).flat_map(pong);
        let expected: Vec<u8> = [0x82, 1, 0, 0x82, 1, 1].into_iter().chain(rest).collect();
        assert_eq!(&buf[..scan.ready], expected);
    }

    #[test]
    fn nothing_passes_behind_a_close() {
        let mut frames = Frames::default();
        let mut buf = [0x88, 4, 0x03, 0xe9, b'h', b'i', 0x81, 1, b'x'];
        let scan = frames.scan(&mut buf, SERVER);
        assert_eq!(scan.ready, 6);
        assert_eq!(scan.close, Some(Some(1001)));
        assert!(frames.is_closed());
        assert_eq!(frames.scan(&mut [0x81, 1, b'x'], SERVER).ready, 0);
    }

    #[test]
    fn a_length_of_64_bits_never_ends_and_is_counted() {
        let mut frames = Frames::default();
        let mut buf = [0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2];
        let scan = frames.scan(&mut buf, SERVER);
        assert_eq!((scan.ready, scan.violations), (12, 1));
        assert!(!frames.at_boundary());
    }

    #[test]
    fn the_first_boundary_is_told() {
        let mut frames = Frames::default();
        assert_eq!(frames.scan(&mut [0x82, 3, 1], SERVER).boundary, Some(0));
        assert_eq!(frames.scan(&mut [2], SERVER).boundary, None);
        let mut rest = [3, 0x82, 2, 1];
        assert_eq!(frames.scan(&mut rest, SERVER).boundary, Some(1));
    }
}
