//! What must hold for any stream of bytes behind the upgrade: the tracker finds the frames that tungstenite's
//! parser finds, takes out what it is told to, and passes on all else as it came.
//!
//! The first byte says who sends and what is allowed, the second one how the rest is cut.

use std::io::Cursor;

use proxy::frame::{Allowance, Excess, Frames, Watch};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::cuts::cuts;

/// Payload by which answers to pings of the proxy are known here.
const PONG: [u8; 8] = *b"proxying";
/// Limits, where there are any.
const FRAME: u64 = 100;
const MESSAGE: u64 = 150;
const MESSAGES: u32 = 5;

/// Bytes of a longest head with what is read of the payload behind it.
const HEAD: usize = 14;

/// What a stream came to.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// What was passed on.
    pub passed: Vec<u8>,
    /// Places in that at which a frame begins or ends.
    pub boundaries: Vec<usize>,
    /// Whether it ends with a whole frame.
    pub at_boundary: bool,
    /// Frames, messages, frames against the standard, answers to pings that were taken out.
    pub counts: [u32; 4],
    /// Codes of Close frames.
    pub closes: Vec<Option<u16>>,
    /// What was more than is allowed.
    pub excess: Option<Excess>,
}

/// A stream, by the tracker and by tungstenite.
pub fn stream(bytes: &[u8]) {
    let Some((watch, seed, stream)) = setup(bytes) else {
        return;
    };
    let whole = tracked(stream, watch, &[stream.len()]);
    let cut = tracked(stream, watch, &cuts(stream, seed));
    let expected = parsed(stream, watch);
    for (found, how) in [(&whole, "whole"), (&cut, "cut")] {
        let wrong = found
            .boundaries
            .iter()
            .find(|at| !expected.boundaries.contains(at));
        assert_eq!(wrong, None, "no boundary, {how}");
        assert_eq!(found.passed, expected.passed, "passed on, {how}");
        assert_eq!(found.at_boundary, expected.at_boundary, "{how}");
        assert_eq!(found.counts, expected.counts, "{how}");
        assert_eq!(found.closes, expected.closes, "{how}");
        assert_eq!(found.excess, expected.excess, "{how}");
    }
}

/// What the bytes in front mean.
pub fn setup(bytes: &[u8]) -> Option<(Watch, u8, &[u8])> {
    let [flags, seed, stream @ ..] = bytes else {
        return None;
    };
    let set = |bit: u8| flags & bit != 0;
    let allowance = Allowance {
        frame: if set(8) { FRAME } else { u64::MAX },
        message: if set(16) { MESSAGE } else { u64::MAX },
        messages: if set(32) { MESSAGES } else { u32::MAX },
    };
    let watch = Watch {
        masked: set(1),
        pong: PONG,
        pongs: (flags >> 1) & 3,
        allowance,
    };
    Some((watch, *seed, stream))
}

/// By the tracker, as the relay drives it.
pub fn tracked(stream: &[u8], mut watch: Watch, ends: &[usize]) -> Found {
    let mut found = Found::default();
    let mut frames = Frames::default();
    let mut start = 0;
    for end in ends {
        let held = frames.held();
        assert!(held.len() < HEAD);
        let mut buf = [held, &stream[start..*end]].concat();
        start = *end;
        if watch.pongs == 0
            && watch.allowance.messages == u32::MAX
            && let Some(whole) = frames.pass_whole(&buf, watch.masked, watch.allowance.payload())
        {
            found.boundaries.push(found.passed.len());
            found.passed.extend_from_slice(&buf);
            found.counts[0] += whole.messages();
            found.counts[1] += whole.messages();
            continue;
        }
        let mut all = 0;
        let scan = frames.scan(&mut buf, watch, |_, n| all += n);
        if let Some(boundary) = scan.boundary {
            assert!(boundary <= scan.ready);
            found.boundaries.push(found.passed.len() + boundary);
        }
        found.passed.extend_from_slice(&buf[..scan.ready]);
        let [begun, messages, violations, pongs] = &mut found.counts;
        *begun += all;
        *messages += scan.messages;
        *violations += scan.violations;
        *pongs += scan.own_pongs;
        watch.pongs -= u8::try_from(scan.own_pongs).unwrap();
        if watch.allowance.messages < u32::MAX && found.excess.is_none() {
            watch.allowance.messages = watch.allowance.messages.saturating_sub(scan.counted);
        }
        found.closes.extend(scan.close);
        assert!(
            found.excess.is_none() || scan.excess.is_none(),
            "told twice"
        );
        found.excess = found.excess.or(scan.excess);
    }
    found.at_boundary = frames.at_boundary();
    found
}

/// By tungstenite's parser of heads, on bytes that are all there.
fn parsed(stream: &[u8], watch: Watch) -> Found {
    let mut found = Found {
        boundaries: vec![0],
        at_boundary: true,
        ..Found::default()
    };
    let mut at = 0;
    let mut message = 0_u64;
    let mut counted = 0;
    while let Some(head) = Head::parse(&stream[at..]) {
        let payload = &stream[at + head.len..];
        let length = usize::try_from(head.payload).map_or(payload.len(), |n| n.min(payload.len()));
        let payload = &payload[..length];
        // With a length in a longer form than need be nothing is read of the payload.
        let is_short = head.len <= 6;
        let pings = u32::from(watch.pongs) - found.counts[3];
        if head.is(Control::Pong) && is_short && head.payload == 8 && pings > 0 {
            if payload.len() < 8 {
                break;
            }
            // An extension's bits make it something else.
            if head.is_final && !head.is_extended && head.unmasked(payload) == PONG {
                found.counts[3] += 1;
                at += head.len + 8;
                continue;
            }
        }
        let reads_code = head.is(Control::Close) && is_short && head.payload >= 2;
        if reads_code && payload.len() < 2 {
            break;
        }
        if found.excess.is_none() {
            found.excess = head.excess(&mut message, &mut counted, watch.allowance);
        }
        let [begun, messages, violations, _] = &mut found.counts;
        *begun += 1;
        *messages += u32::from(head.ends_message());
        *violations += u32::from(head.is_violation(watch.masked));
        if head.is(Control::Close) {
            let code = || {
                let code = head.unmasked(&payload[..2]);
                u16::from_be_bytes([code[0], code[1]])
            };
            found.closes.push(reads_code.then(code));
        }
        let end = at + head.len + payload.len();
        let is_whole = payload.len() as u64 == head.payload;
        if found.excess.is_none() {
            found.passed.extend_from_slice(&stream[at..end]);
            found.at_boundary = is_whole;
            if is_whole {
                found.boundaries.push(found.passed.len());
            }
        }
        at = end;
        if !is_whole || head.is(Control::Close) {
            break;
        }
    }
    found
}

/// A head as tungstenite reads it.
struct Head {
    is_final: bool,
    is_extended: bool,
    opcode: OpCode,
    key: Option<[u8; 4]>,
    len: usize,
    payload: u64,
}

impl Head {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut copy = bytes[..bytes.len().min(HEAD)].to_vec();
        let first = *copy.first()?;
        let opcode = OpCode::from(first & 0x0f);
        // It refuses reserved opcodes without telling where their frames end.
        match opcode {
            OpCode::Data(Data::Reserved(_)) => copy[0] = (first & 0xf0) | 2,
            OpCode::Control(Control::Reserved(_)) => copy[0] = (first & 0xf0) | 9,
            OpCode::Data(_) | OpCode::Control(_) => {}
        }
        let mut cursor = Cursor::new(copy);
        let (header, payload) = FrameHeader::parse(&mut cursor).unwrap()?;
        Some(Self {
            is_final: header.is_final,
            is_extended: header.rsv1 || header.rsv2 || header.rsv3,
            opcode,
            key: header.mask,
            len: usize::try_from(cursor.position()).unwrap(),
            payload,
        })
    }

    fn is(&self, control: Control) -> bool {
        self.opcode == OpCode::Control(control)
    }

    fn is_control(&self) -> bool {
        matches!(self.opcode, OpCode::Control(_))
    }

    fn unmasked(&self, payload: &[u8]) -> Vec<u8> {
        let key = self.key.unwrap_or_default();
        let masked = payload.iter().zip(key.iter().cycle());
        masked.map(|(byte, key)| byte ^ key).collect()
    }

    fn ends_message(&self) -> bool {
        let is_data = matches!(
            self.opcode,
            OpCode::Data(Data::Continue | Data::Text | Data::Binary)
        );
        is_data && self.is_final
    }

    /// RFC 6455 sections 5.1, 5.2 and 5.5.
    fn is_violation(&self, must_mask: bool) -> bool {
        let is_reserved = matches!(
            self.opcode,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_))
        );
        self.key.is_some() != must_mask
            || is_reserved
            || (self.is_control() && (self.payload > 125 || !self.is_final))
            || self.payload.leading_zeros() == 0
    }

    /// What of it is more than is allowed.
    fn excess(&self, message: &mut u64, counted: &mut u32, allowed: Allowance) -> Option<Excess> {
        if !self.is_control() {
            if self.opcode != OpCode::Data(Data::Continue) {
                *message = 0;
            }
            *message = message.saturating_add(self.payload);
        }
        let counts = self.is_final || self.is_control() || self.payload == 0;
        *counted += u32::from(counts && !self.is(Control::Close));
        [
            (self.payload > allowed.frame, Excess::Frame),
            (*message > allowed.message, Excess::Message),
            (*counted > allowed.messages, Excess::Messages),
        ]
        .into_iter()
        .find_map(|(is_more, excess)| is_more.then_some(excess))
    }
}
