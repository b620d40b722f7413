//! Many sessions and large messages, compared byte for byte.

use std::thread;

use anyhow::{Context, Result, bail, ensure};
use e2e::lab::{PORT, VIP_SERVER1};
use e2e::testing::{Cluster, Event, Gateway, Manifest, Session, in_cluster, skipped};
use e2e::ws::Opcode;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Sessions of one test.
const MANY: usize = 2500;
const MIB: usize = 1 << 20;

/// Bytes that differ from place to place and from session to session.
fn payload(seed: usize, length: usize) -> Vec<u8> {
    let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64: quick, and without a period that could hide a shift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Lets this process and those that it starts have `wanted` open files. Says why not, where that is not allowed.
fn allow_open_files(wanted: u64) -> Result<Option<String>> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Root may raise the hard limit too, unless it is root of a container only.
    match setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard.max(wanted)) {
        Ok(()) => Ok(None),
        Err(Errno::EPERM) => Ok(Some(format!(
            "{hard} open files are allowed, {wanted} are needed"
        ))),
        Err(errno) => Err(errno).context("cannot raise the limit of open files"),
    }
}

/// Opens [`MANY`] sessions. The servers answer a third of them in small frames and a third in large ones.
fn open_many(cluster: &Cluster) -> Result<Vec<Session>> {
    let paths = ["/", "/frames/700", "/frames/65536"];
    let mut sessions = Vec::new();
    // In portions, as a listen queue has an end.
    for path in paths.into_iter().cycle() {
        let portion = (MANY - sessions.len()).min(100);
        if portion == 0 {
            break;
        }
        let client = cluster.lab.client();
        sessions.extend(Session::open_many_for(
            client,
            VIP_SERVER1,
            PORT,
            path,
            portion,
        )?);
    }
    Ok(sessions)
}

/// Sends a message on each session, every other one in fragments, and then takes the echoes. `round` varies lengths.
fn echo_all(sessions: &mut [(usize, &mut Session)], round: usize) -> Result<()> {
    // Around the borders of the length field (RFC 6455 section 5.2), and a few KiB.
    let lengths = [0, 1, 125, 126, 127, 1000, 4096, 9000];
    let length = |number: usize| lengths[(number + round) % lengths.len()];
    for (number, session) in &mut *sessions {
        let frame = if *number % 2 == 0 { usize::MAX } else { 700 };
        session.send_message(&payload(*number, length(*number)), frame)?;
    }
    for (number, session) in sessions {
        session
            .expect_echo(&payload(*number, length(*number)))
            .with_context(|| format!("session {number}"))?;
    }
    Ok(())
}

/// Few send 16 MiB at a time, some frames of 64 KiB, and all others small messages over and over meanwhile.
fn large_among_small(sessions: &mut [Session]) -> Result<()> {
    let (mut large, mut medium, mut small) = (Vec::new(), Vec::new(), Vec::new());
    for (number, session) in sessions.iter_mut().enumerate() {
        let list = match number {
            _ if number % 313 == 0 => &mut large,
            _ if number % 39 == 2 => &mut medium,
            _ => &mut small,
        };
        list.push((number, session));
    }
    ensure!(
        large.len() == 8 && medium.len() >= 64,
        "{} and {} sessions",
        large.len(),
        medium.len()
    );
    thread::scope(|scope| {
        let echo = |(number, session): (usize, &mut Session), length: usize| {
            // One frame of all of it, or many.
            let frame = if number % 2 == 0 {
                usize::MAX
            } else {
                64 << 10
            };
            session
                .echo(&payload(number, length), frame)
                .with_context(|| format!("session {number}, {length} bytes"))
        };
        let mut busy: Vec<_> = large
            .into_iter()
            .map(|entry| scope.spawn(move || echo(entry, 16 * MIB)))
            .collect();
        busy.push(scope.spawn(move || {
            medium.into_iter().try_for_each(|(number, session)| {
                session.echo(&payload(number, 64 << 10), usize::MAX)?;
                session.echo(&payload(number, 200 << 10), 64 << 10)
            })
        }));
        let mut rounds = 0;
        while rounds == 0 || busy.iter().any(|thread| !thread.is_finished()) {
            echo_all(&mut small, rounds)?;
            rounds += 1;
        }
        println!("{rounds} rounds of small messages beside the large ones");
        busy.into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
    })
}

#[test]
fn thousands_of_sessions_byte_for_byte() -> Result<()> {
    let test = "thousands_of_sessions_byte_for_byte";
    // Each session costs the proxy, which inherits the limit, two descriptors, and this process one.
    if let Some(why) = allow_open_files(2 * MANY as u64 + 500)? {
        skipped(test, &why);
        return Ok(());
    }
    let mut manifest = Manifest::article();
    // A session answers pings only while it is looked at, and they are looked at in turn.
    manifest
        .pool()
        .spec
        .push("heartbeat: { interval: 10m }".into());
    in_cluster(test, &manifest, |cluster| {
        let mut sessions = open_many(cluster)?;
        cluster.wait_sessions(Gateway::One, MANY as u64)?;
        let mut all: Vec<_> = sessions.iter_mut().enumerate().collect();
        echo_all(&mut all, 0)?;
        let frames = |sessions: &[Session]| sessions.iter().map(Session::frames).sum::<u64>();
        ensure!(
            frames(&sessions) > MANY as u64,
            "the servers sent no message in fragments"
        );
        large_among_small(&mut sessions)?;
        for session in &mut sessions {
            session.close()?;
        }
        for (number, session) in sessions.iter_mut().enumerate() {
            match session.next_event()? {
                Event::Close(Some(1000), _) => {}
                other => bail!("session {number} was answered {other:?} to its Close"),
            }
        }
        drop(sessions);
        cluster.wait_sessions(Gateway::One, 0)
    })
}

#[test]
fn large_messages_byte_for_byte() -> Result<()> {
    in_cluster(
        "large_messages_byte_for_byte",
        &Manifest::article(),
        |cluster| {
            let mut quiet = Session::open(cluster.lab.client(), VIP_SERVER1)?;
            let mut session = Session::open(cluster.lab.client(), VIP_SERVER1)?;
            for (name, length, frame) in [
                ("64 KiB in one frame", 64 << 10, usize::MAX),
                (
                    "one byte less than a 16-bit length holds, and one more",
                    0xffff,
                    0xfffe,
                ),
                ("1 MiB in frames of 64 KiB", MIB, 64 << 10),
                ("100,000 bytes in frames of 1,000", 100_000, 1000),
                ("16 MiB in one frame", 16 * MIB, usize::MAX),
                ("16 MiB in frames of 64 KiB", 16 * MIB, 64 << 10),
            ] {
                session
                    .echo(&payload(length, length), frame)
                    .context(name)?;
            }
            // Empty frames within a message are frames like others.
            session.send(false, Opcode::Binary, b"")?;
            session.send(false, Opcode::Continuation, b"between")?;
            session.send(true, Opcode::Continuation, b"")?;
            session.expect_echo(b"between")?;
            // As the servers send messages in fragments.
            let mut answered =
                Session::open_many_for(cluster.lab.client(), VIP_SERVER1, PORT, "/frames/1000", 1)?;
            for session in &mut answered {
                session.echo(&payload(3, 100_000), usize::MAX)?;
                ensure!(
                    session.frames() == 100,
                    "{} frames came instead of 100",
                    session.frames()
                );
                session.echo(&payload(4, 100_000), 700)?;
            }
            quiet.say("still here")?;
            quiet.undisturbed()
        },
    )
}
