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
    refused: bool,
    /// Payload of the message under way, frames that have begun included.
    message: u64,
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
    /// What may pass.
    pub allowance: Allowance,
}

/// What the sender may send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Allowance {
    /// Bytes of payload of a frame.
    pub frame: u64,
    /// Bytes of payload of a message, over all its frames.
    pub message: u64,
    /// Messages now, as [`Scan::counted`] counts.
    pub messages: u32,
}

impl Allowance {
    /// Whatever it likes.
    pub const ALL: Self = Self {
        frame: u64::MAX,
        message: u64::MAX,
        messages: u32::MAX,
    };

    /// Bytes of payload of a message of one frame.
    pub fn payload(&self) -> u64 {
        self.frame.min(self.message)
    }
}

/// What a frame was beyond.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Excess {
    /// [`Allowance::frame`].
    Frame,
    /// [`Allowance::message`].
    Message,
    /// [`Allowance::messages`].
    Messages,
}

/// What a frame is for (section 5.2), as it is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Goes on with a message.
    Continuation,
    /// Begins, or is, a message of text.
    Text,
    /// The same, of anything.
    Binary,
    /// Ends the session.
    Close,
    /// Asks for a Pong.
    Ping,
    /// Answers a Ping, or is sent unasked.
    Pong,
    /// What no standard has given a meaning to.
    Reserved,
}

impl Kind {
    /// Every value, in the order of its declaration.
    pub const ALL: [Self; 7] = [
        Self::Continuation,
        Self::Text,
        Self::Binary,
        Self::Close,
        Self::Ping,
        Self::Pong,
        Self::Reserved,
    ];

    const fn of(opcode: u8) -> Self {
        match opcode {
            CONTINUATION => Self::Continuation,
            TEXT => Self::Text,
            BINARY => Self::Binary,
            CLOSE => Self::Close,
            PING => Self::Ping,
            PONG => Self::Pong,
            _ => Self::Reserved,
        }
    }

    /// The value as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Continuation => "continuation",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Reserved => "reserved",
        }
    }
}

/// What a slice of the stream contained.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Scan {
    /// Bytes at the front of the buffer that are to be passed on.
    pub ready: usize,
    /// Offset in these of the first frame boundary, where a frame may be inserted.
    pub boundary: Option<usize>,
    /// Data frames begun that end a message.
    pub messages: u32,
    /// Frames that break RFC 6455.
    pub violations: u32,
    /// Pongs removed, since they answer our own Pings.
    pub own_pongs: u32,
    /// Code of a Close frame that began here; the inner `None`: it has none.
    pub close: Option<Option<u16>>,
    /// Messages begun that a limit counts: frames that end one, control frames but for a Close, and
    /// fragments without payload, of which a message could have no end.
    pub counted: u32,
    /// Why a frame that began here is not passed on, nor anything behind it.
    pub excess: Option<Excess>,
}

impl Frames {
    /// Whether everything passed on so far ends with a whole frame.
    pub fn at_boundary(&self) -> bool {
        self.remaining == 0 || self.refused
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
    /// [`Scan::ready`] bytes of `buf` are then to be passed on. `begun` is told of the frames that begin,
    /// and how many of a kind, but for Pongs that are removed: to gather them in a [`Scan`] costs more than to count them.
    pub fn scan(&mut self, buf: &mut [u8], watch: Watch, mut begun: impl FnMut(Kind, u32)) -> Scan {
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
                scan.boundary = Some(if self.refused {
                    kept.len
                } else {
                    kept.len + (pos - kept.from)
                });
            }
            self.closed = self.closing;
            if self.closed || pos == buf.len() {
                break;
            }
            if !self.refused {
                let most = watch.allowance.messages.saturating_sub(scan.counted);
                let allowed = watch.allowance.payload();
                let passed = whole(&buf[pos..], watch.masked, allowed, most);
                begun(Kind::Text, passed.texts);
                begun(Kind::Binary, passed.binaries);
                scan.messages += passed.messages();
                scan.counted += passed.messages();
                if passed.messages() > 0 {
                    self.message = passed.last;
                }
                pos += passed.len;
                if pos == buf.len() {
                    break;
                }
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
                if !self.refused {
                    kept.close_gap(buf, pos);
                    kept.from = pos + head.len + 8;
                }
                pos += head.len + 8;
                scan.own_pongs += 1;
                continue;
            }
            if !self.refused {
                scan.excess = self.excess(&head, &mut scan.counted, watch.allowance);
                if scan.excess.is_some() {
                    // The sender's Close is still to be found, so what follows is looked at.
                    kept.close_gap(buf, pos);
                    self.refused = true;
                }
            }
            begun(Kind::of(head.opcode()), 1);
            scan.messages += u32::from(head.ends_message());
            scan.violations += u32::from(head.is_violation(watch.masked));
            if head.opcode() == CLOSE {
                self.closing = true;
                scan.close = Some(head.code);
            }
            pos += head.len;
            self.remaining = head.payload;
        }
        if !self.refused {
            kept.close_gap(buf, pos);
        }
        scan.ready = kept.len;
        scan
    }

    /// Passes on all of `buf` if that is messages of one frame each that [`whole`] knows, and nothing is under way: what
    /// comes nearly always, and takes least so. `allowed` is what each may have of payload.
    #[inline]
    pub fn pass_whole(&mut self, buf: &[u8], masked: bool, allowed: u64) -> Option<Whole> {
        let is_amid = self.remaining > 0 || self.held_len > 0 || self.closing || self.refused;
        if is_amid {
            return None;
        }
        let whole = whole(buf, masked, allowed, u32::MAX);
        if whole.len != buf.len() {
            return None;
        }
        self.message = whole.last;
        Some(whole)
    }

    /// Whether a frame that begins is more than what is allowed. Only heads are looked at: nothing
    /// need be kept to know how long a message is.
    fn excess(&mut self, head: &Head, counted: &mut u32, allowance: Allowance) -> Option<Excess> {
        let is_control = head.opcode() >= CLOSE;
        if !is_control {
            let before = if head.opcode() == CONTINUATION {
                self.message
            } else {
                0
            };
            self.message = before.saturating_add(head.payload);
        }
        // A Close ends what a limit would have to end.
        let counts = head.first & FIN != 0 || is_control || head.payload == 0;
        *counted += u32::from(counts && head.opcode() != CLOSE);
        if head.payload > allowance.frame {
            Some(Excess::Frame)
        } else if self.message > allowance.message {
            Some(Excess::Message)
        } else if *counted > allowance.messages {
            Some(Excess::Messages)
        } else {
            None
        }
    }
}

/// Messages of one frame each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Whole {
    /// Bytes of them, headers included.
    pub len: usize,
    /// How many are text.
    pub texts: u32,
    /// How many are anything else.
    pub binaries: u32,
    /// Payload of the last.
    last: u64,
}

impl Whole {
    /// How many there are.
    pub fn messages(&self) -> u32 {
        self.texts + self.binaries
    }
}

/// Steps over messages of one frame whose length has 7 or 16 bits, masked as they must be and within what is
/// allowed: nearly all there are, and by far the most where many are small. Where it stops is the end, a frame of
/// which something is still to come, or one that has to be looked at closely.
#[inline]
fn whole(buf: &[u8], masked: bool, allowed: u64, most: u32) -> Whole {
    let (mask_bit, key) = if masked { (MASKED, 4) } else { (0, 0) };
    let mut whole = Whole::default();
    let mut rest = buf;
    while let [first, second, tail @ ..] = rest
        && whole.messages() < most
    {
        // Reserved bits are an extension's business, compression's above all.
        let is_text = match first & !RESERVED {
            WHOLE_TEXT => true,
            WHOLE_BINARY => false,
            _ => break,
        };
        let (payload, head) = match (second ^ mask_bit, tail) {
            (short @ 0..=125, _) => (u16::from(short), 2 + key),
            (126, [high, low, ..]) => (u16::from_be_bytes([*high, *low]), 4 + key),
            _ => break,
        };
        if u64::from(payload) > allowed {
            break;
        }
        let Some(behind) = rest.get(head + usize::from(payload)..) else {
            break;
        };
        whole.texts += u32::from(is_text);
        whole.binaries += u32::from(!is_text);
        whole.last = payload.into();
        rest = behind;
    }
    whole.len = buf.len() - rest.len();
    whole
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

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const WHOLE_TEXT: u8 = FIN | TEXT;
const WHOLE_BINARY: u8 = FIN | BINARY;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
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
    #[inline]
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
mod tests;
