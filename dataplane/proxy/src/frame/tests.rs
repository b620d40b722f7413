use super::*;

const SERVER: Watch = Watch {
    masked: false,
    pong: [0; 8],
    pongs: 0,
    allowance: Allowance::ALL,
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
        let scan = frames.scan(&mut buf, SERVER, |_, _| {});
        assert_eq!((scan.ready, scan.messages), (head + payload, 1));
        assert!(frames.at_boundary() && frames.held().is_empty());
    }
}

#[test]
fn an_incomplete_head_is_held_and_leaves_a_boundary() {
    let mut frames = Frames::default();
    let scan = frames.scan(&mut [0x82, 1, b'x', 0x82, 126, 0], SERVER, |_, _| {});
    assert_eq!(scan.ready, 3);
    assert!(frames.at_boundary());
    assert_eq!(frames.held(), [0x82, 126, 0]);
}

#[test]
fn frames_are_counted_by_what_they_are_for() {
    let mut all: Vec<u8> = (0..16)
        .filter(|op| *op != 8)
        .flat_map(|op| [0x80 | op, 0])
        .collect();
    all.extend([0x88, 0]);
    let mut counts = [0; 7];
    Frames::default().scan(&mut all, SERVER, |kind, n| counts[kind as usize] += n);
    // 3-7 and 11-15 have no meaning.
    assert_eq!(counts, [1, 1, 1, 1, 1, 1, 10]);
}

#[test]
fn own_pong_is_removed_wherever_it_is_cut_and_others_pass() {
    let own = *b"12345678";
    let watch = Watch {
        masked: true,
        pong: own,
        pongs: 1,
        ..SERVER
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
            let scan = frames.scan(&mut buf, watch, |_, _| {});
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
        pong: *b"12345678",
        pongs: 2,
        ..SERVER
    };
    let mut counts = [0; 7];
    let scan = Frames::default().scan(&mut buf, watch, |kind, n| counts[kind as usize] += n);
    assert_eq!(counts, [0, 0, 5, 0, 0, 3, 0]);
    assert_eq!((scan.own_pongs, scan.boundary), (2, Some(0)));
    let rest = (2..5).flat_map(pong);
    let expected: Vec<u8> = [0x82, 1, 0, 0x82, 1, 1].into_iter().chain(rest).collect();
    assert_eq!(&buf[..scan.ready], expected);
}

#[test]
fn nothing_passes_behind_a_close() {
    let mut frames = Frames::default();
    let mut buf = [0x88, 4, 0x03, 0xe9, b'h', b'i', 0x81, 1, b'x'];
    let scan = frames.scan(&mut buf, SERVER, |_, _| {});
    assert_eq!(scan.ready, 6);
    assert_eq!(scan.close, Some(Some(1001)));
    assert!(frames.is_closed());
    assert_eq!(
        frames.scan(&mut [0x81, 1, b'x'], SERVER, |_, _| {}).ready,
        0
    );
}

#[test]
fn a_length_of_64_bits_never_ends_and_is_counted() {
    let mut frames = Frames::default();
    let mut buf = [0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255, 1, 2];
    let scan = frames.scan(&mut buf, SERVER, |_, _| {});
    assert_eq!((scan.ready, scan.violations), (12, 1));
    assert!(!frames.at_boundary());
}

#[test]
fn the_first_boundary_is_told() {
    let mut frames = Frames::default();
    assert_eq!(
        frames.scan(&mut [0x82, 3, 1], SERVER, |_, _| {}).boundary,
        Some(0)
    );
    assert_eq!(frames.scan(&mut [2], SERVER, |_, _| {}).boundary, None);
    let mut rest = [3, 0x82, 2, 1];
    assert_eq!(frames.scan(&mut rest, SERVER, |_, _| {}).boundary, Some(1));
}

/// Unmasked frames, each by its first byte and how much payload it has.
type Sent<'a> = &'a [(u8, u8)];

fn stream(frames: Sent<'_>) -> Vec<u8> {
    let frame = |(first, len): &(u8, u8)| {
        let payload = std::iter::repeat_n(b'x', usize::from(*len));
        [*first, *len].into_iter().chain(payload)
    };
    frames.iter().flat_map(frame).collect()
}

#[test]
fn nothing_of_a_frame_beyond_what_is_allowed_passes_nor_behind_it_but_its_close_is_found() {
    let only = |allowance| Watch {
        allowance,
        ..SERVER
    };
    let frame = only(Allowance {
        frame: 10,
        ..Allowance::ALL
    });
    let message = only(Allowance {
        message: 20,
        ..Allowance::ALL
    });
    let messages = only(Allowance {
        messages: 3,
        ..Allowance::ALL
    });
    let (text, more, last, start, ping) = (0x81, 0x00, 0x80, 0x01, 0x89);
    let cases: [(Watch, Sent<'_>, Sent<'_>, Excess); 5] = [
        (
            frame,
            &[(text, 10), (text, 0)],
            &[(text, 11)],
            Excess::Frame,
        ),
        (
            message,
            &[
                (start, 10),
                (ping, 5),
                (more, 10),
                (last, 0),
                (text, 20),
                (start, 8),
            ],
            &[(last, 13)],
            Excess::Message,
        ),
        (
            messages,
            &[(start, 1), (more, 1), (last, 1), (text, 1), (text, 1)],
            &[(text, 1)],
            Excess::Messages,
        ),
        (messages, &[(ping, 1); 3], &[(ping, 1)], Excess::Messages),
        (
            messages,
            &[(start, 0), (more, 0), (more, 0)],
            &[(more, 0)],
            Excess::Messages,
        ),
    ];
    for (watch, good, bad, excess) in cases {
        let good = stream(good);
        let end = stream(&[(text, 1), (0x88, 0)]);
        let stream = [good.clone(), stream(bad), end].concat();
        for cut in 0..=stream.len() {
            let mut frames = Frames::default();
            let mut passed = Vec::new();
            let mut told = Vec::new();
            let mut left = watch;
            for part in [&stream[..cut], &stream[cut..]] {
                let mut buf = [frames.held(), part].concat();
                let scan = frames.scan(&mut buf, left, |_, _| {});
                passed.extend_from_slice(&buf[..scan.ready]);
                told.extend(scan.excess);
                if watch.allowance.messages < u32::MAX {
                    left.allowance.messages = left.allowance.messages.saturating_sub(scan.counted);
                }
                assert!(scan.boundary.is_none_or(|at| at <= scan.ready));
                assert!(told.is_empty() || frames.at_boundary());
            }
            assert_eq!(passed, good, "cut at {cut}");
            assert_eq!(told, [excess], "cut at {cut}");
            assert!(frames.is_closed(), "cut at {cut}");
        }
    }
}
