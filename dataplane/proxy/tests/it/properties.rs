//! What holds for any bytes, however they are cut.

use proptest::{collection::vec, prelude::*, sample::Index};
use proxy::{
    frame::{Allowance, Frames, PingPayload, Watch},
    handshake::{Outcome, RequestParser, ResponseParser},
};

use crate::support::{REQUEST, SWITCH};

/// Pieces of `bytes` cut at these places.
fn pieces<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    let starts = [0].into_iter().chain(places.clone());
    let ends = places.iter().copied().chain([bytes.len()]);
    starts
        .zip(ends)
        .map(|(start, end)| &bytes[start..end])
        .collect()
}

/// A head with some of its bytes changed.
fn mutated(head: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let nasty = prop::sample::select(b"\r\n\0 \t:;,/\x7f\xffAz0".to_vec());
    let edit = (any::<Index>(), prop_oneof![nasty, any::<u8>()], 0..3_u8);
    vec(edit, 0..4).prop_map(move |edits| {
        let mut head = head.to_vec();
        for (at, byte, how) in edits {
            let at = at.index(head.len());
            match how {
                0 => head[at] = byte,
                1 => head.insert(at, byte),
                _ => drop(head.remove(at)),
            }
        }
        head
    })
}

fn described<T: std::fmt::Debug, E: std::fmt::Debug>(outcome: &Outcome<T, E>) -> Option<String> {
    (!matches!(outcome, Outcome::NeedMore)).then(|| format!("{outcome:?}"))
}

proptest! {
    #[test]
    fn a_request_is_read_the_same_however_it_is_cut(
        head in prop_oneof![mutated(REQUEST), vec(any::<u8>(), 0..200)],
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let whole = described(&RequestParser::default().parse(&head));
        let mut parser = RequestParser::default();
        let mut received = Vec::new();
        let mut answer = None;
        for piece in pieces(&head, &cuts) {
            received.extend_from_slice(piece);
            answer = described(&parser.parse(&received));
            if answer.is_some() {
                break;
            }
        }
        prop_assert_eq!(answer, whole);
    }

    #[test]
    fn a_response_is_read_the_same_however_it_is_cut(
        head in prop_oneof![mutated(SWITCH), vec(any::<u8>(), 0..200)],
        cuts in vec(any::<Index>(), 0..6),
    ) {
        let whole = described(&ResponseParser::default().parse(&head));
        let mut parser = ResponseParser::default();
        let mut received = Vec::new();
        let mut answer = None;
        for piece in pieces(&head, &cuts) {
            received.extend_from_slice(piece);
            answer = described(&parser.parse(&received));
            if answer.is_some() {
                break;
            }
        }
        prop_assert_eq!(answer, whole);
    }
}

const OWN: PingPayload = *b"our ping";

#[derive(Clone, Debug)]
struct Frame {
    first: u8,
    masked: bool,
    payload: Vec<u8>,
    long: bool,
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.first];
        let mask = if self.masked { 0x80 } else { 0 };
        match self.payload.len() {
            len if self.long => {
                bytes.push(mask + 127);
                bytes.extend((len as u64).to_be_bytes());
            }
            len @ 0..126 => bytes.push(mask | u8::try_from(len).unwrap()),
            len => {
                bytes.push(mask + 126);
                bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        let key: [u8; 4] = if self.masked {
            [0xa5, 0x5a, 0x3c, 0xc3]
        } else {
            [0; 4]
        };
        if self.masked {
            bytes.extend(key);
        }
        bytes.extend(
            self.payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(b, k)| b ^ k),
        );
        bytes
    }

    fn is_own_pong(&self) -> bool {
        self.first == 0x8a && self.payload == OWN && !self.long
    }

    fn is_close(&self) -> bool {
        self.first & 0x0f == 8
    }
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let first = prop_oneof![
        4 => prop::sample::select(vec![0x81_u8, 0x82, 0x01, 0x80, 0x89, 0x8a, 0xc1]),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        vec(any::<u8>(), 0..20),
        vec(any::<u8>(), 120..300),
        Just(OWN.to_vec()),
    ];
    let frame = (first, any::<bool>(), payload, prop::bool::weighted(0.1));
    let frame = frame.prop_map(|(first, masked, payload, long)| Frame {
        first,
        masked,
        payload,
        long,
    });
    vec(frame, 0..12)
}

/// Feeds the pieces as the relay does; what is passed on, and each boundary that was told.
fn feed(pieces: &[&[u8]], mut watch: Watch) -> (Vec<u8>, Vec<usize>, Frames) {
    let mut frames = Frames::default();
    let mut passed = Vec::new();
    let mut boundaries = Vec::new();
    for piece in pieces {
        let mut buf = [frames.held(), piece].concat();
        let scan = frames.scan(&mut buf, watch, |_, _| {});
        watch.pongs -= u8::try_from(scan.own_pongs).unwrap();
        boundaries.extend(scan.boundary.map(|boundary| passed.len() + boundary));
        passed.extend_from_slice(&buf[..scan.ready]);
        if frames.at_boundary() {
            boundaries.push(passed.len());
        }
    }
    (passed, boundaries, frames)
}

proptest! {
    #[test]
    fn frames_pass_whole_and_boundaries_are_true_however_they_are_cut(
        frames in frames(),
        cuts in vec(any::<Index>(), 0..10),
        pongs in 0..4_u8,
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(Frame::bytes).collect();
        let mut expected = Vec::new();
        let mut ends = vec![0];
        let mut own = 0;
        for frame in &frames {
            if frame.is_own_pong() && own < pongs {
                own += 1;
                continue;
            }
            expected.extend(frame.bytes());
            ends.push(expected.len());
            if frame.is_close() {
                break;
            }
        }
        let watch = Watch { masked: true, pong: OWN, pongs, allowance: Allowance::ALL };
        let (passed, boundaries, last) = feed(&pieces(&stream, &cuts), watch);
        prop_assert!(last.at_boundary() && last.held().is_empty());
        prop_assert_eq!(passed, expected);
        for boundary in boundaries {
            prop_assert!(ends.contains(&boundary), "{} is inside a frame", boundary);
        }
    }

    #[test]
    fn any_bytes_pass_but_for_an_incomplete_head(
        stream in vec(any::<u8>(), 0..400),
        cuts in vec(any::<Index>(), 0..10),
    ) {
        let watch = Watch { masked: false, pong: OWN, pongs: 0, allowance: Allowance::ALL };
        let (passed, _, last) = feed(&pieces(&stream, &cuts), watch);
        let (at_once, _, same) = feed(&[&stream], watch);
        prop_assert_eq!(&passed, &at_once);
        prop_assert_eq!(last.at_boundary(), same.at_boundary());
        prop_assert!(stream.starts_with(&passed));
        if !last.is_closed() {
            prop_assert_eq!([&passed, last.held()].concat(), stream);
        }
    }
}
