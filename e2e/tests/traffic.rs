//! What goes through: many sessions and large messages byte for byte, and what nobody should send.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::lab::{BACKEND_PORT, PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::forge::{self, Advertisement};
use e2e::testing::{Cluster, Event, Gateway, Manifest, Session, Watch, in_cluster, inside};
use e2e::ws::Opcode;
use e2e::{testing, wait};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use node_api::RouterState;

/// Sessions of one test; each costs the proxy two descriptors.
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

#[test]
fn thousands_of_sessions_byte_for_byte() -> Result<()> {
    // One descriptor each, and room for the lab's own.
    let wanted = MANY as u64 + 500;
    let (_, allowed) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if allowed < wanted {
        let why = format!("{allowed} open files are allowed, {wanted} are needed");
        testing::skipped("thousands_of_sessions_byte_for_byte", &why);
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, allowed, allowed)?;
    in_cluster(
        "thousands_of_sessions_byte_for_byte",
        &Manifest::article(),
        |cluster| {
            let mut sessions = Vec::new();
            // In portions, as a listen queue has an end.
            while sessions.len() < MANY {
                sessions.extend(Session::open_many(
                    cluster.lab.client(),
                    VIP_SERVER1,
                    PORT,
                    100,
                )?);
            }
            ensure!(
                cluster.sessions(Gateway::One)? == MANY as u64,
                "status counts {} sessions",
                cluster.sessions(Gateway::One)?
            );
            // Lengths around the borders of the length field (RFC 6455 section 5.2), and a few KiB.
            let lengths = [0, 1, 125, 126, 127, 1000, 4096, 9000];
            for round in 0..2 {
                let length = |number: usize| lengths[(number + round) % lengths.len()];
                for (number, session) in sessions.iter_mut().enumerate() {
                    // Every other one in fragments.
                    let frame = if number % 2 == 0 { usize::MAX } else { 700 };
                    session.send_message(&payload(number, length(number)), frame)?;
                }
                for (number, session) in sessions.iter_mut().enumerate() {
                    session
                        .expect_echo(&payload(number, length(number)))
                        .with_context(|| format!("session {number}"))?;
                }
            }
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
            cluster.wait_status(Gateway::One, "no session left", |report| {
                let live: u64 = report
                    .pools
                    .iter()
                    .flat_map(|pool| &pool.listeners)
                    .map(|listener| listener.sessions)
                    .sum();
                (live == 0).then_some(())
            })
        },
    )
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
            quiet.say("still here")?;
            quiet.undisturbed()
        },
    )
}

/// Sends `request` from the client to the proxy, and reads all that comes back until the end of the stream.
fn answer(cluster: &Cluster, request: &[u8]) -> Result<String> {
    let target = SocketAddrV4::new(VIP_SERVER1, PORT);
    inside(cluster.lab.client(), || {
        let mut stream = TcpStream::connect_timeout(&target.into(), Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        // The proxy may answer and close before all of it is sent.
        drop(stream.write_all(request));
        let mut received = Vec::new();
        // A reset after the answer is as good an end as any.
        drop(stream.read_to_end(&mut received));
        Ok(String::from_utf8_lossy(&received).into_owned())
    })
}

/// A request that must be refused, and the codes that say so.
struct Malformed {
    what: &'static str,
    request: String,
    codes: &'static [u16],
}

/// Handshakes that break RFC 6455 section 4.1, RFC 9110 or RFC 9112.
fn malformed_handshakes() -> Vec<Malformed> {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let version = "Sec-WebSocket-Version: 13\r\n";
    let upgrade = |method: &str, more: &str| {
        format!(
            "{method} / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{more}\r\n"
        )
    };
    let get = |more: &str| upgrade("GET", more);
    let case = |what, request, codes| Malformed {
        what,
        request,
        codes,
    };
    vec![
        case("no HTTP", "\x16\x03\x01\x02\r\n\r\n".into(), &[400]),
        case(
            "no upgrade",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n".into(),
            &[400, 426],
        ),
        case(
            "another version",
            get(&format!("{key}Sec-WebSocket-Version: 8\r\n")),
            &[426],
        ),
        case("no key", get(version), &[400]),
        case(
            "a short key",
            get(&format!("{version}Sec-WebSocket-Key: c2hvcnQ=\r\n")),
            &[400],
        ),
        case(
            "two hosts",
            get(&format!("{key}{version}Host: other\r\n")),
            &[400],
        ),
        case(
            "a body",
            get(&format!("{key}{version}Transfer-Encoding: chunked\r\n")),
            &[400, 413],
        ),
        case(
            "another method",
            upgrade("POST", &format!("{key}{version}")),
            &[400, 405],
        ),
        case(
            "a blank before a colon",
            get(&format!("{key}{version}X-Odd : 1\r\n")),
            &[400],
        ),
        case(
            "an endless header",
            format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 18)),
            &[400, 431],
        ),
    ]
}

#[test]
fn malformed_handshakes_are_answered_and_disturb_nobody() -> Result<()> {
    let test = "malformed_handshakes_are_answered_and_disturb_nobody";
    in_cluster(test, &Manifest::article(), |cluster| {
        let watch = Watch::start(cluster, &[VIP_SERVER1])?;
        let since = Instant::now();
        let cases = malformed_handshakes();
        for Malformed {
            what,
            request,
            codes,
        } in &cases
        {
            let answer = answer(cluster, request.as_bytes()).context(*what)?;
            let code = answer
                .strip_prefix("HTTP/1.1 ")
                .and_then(|rest| rest.get(..3)?.parse().ok());
            let answered = answer.lines().next();
            ensure!(
                code.is_some_and(|code| codes.contains(&code)),
                "{what}: answered {answered:?}"
            );
        }
        // Cut in the middle: nobody is there to be answered.
        inside(cluster.lab.client(), || {
            let mut stream = TcpStream::connect(SocketAddrV4::new(VIP_SERVER1, PORT))?;
            Ok(stream.write_all(b"GET / HTT")?)
        })?;
        wait::until(
            "malformed handshakes to be counted",
            Duration::from_secs(10),
            || {
                let counted = |result| {
                    cluster.count(Gateway::One, "wsha_proxy_handshakes", &[("result", result)])
                };
                let all = counted("refused")? == cases.len() as u64 && counted("client_gone")? == 1;
                Ok(all.then_some(()))
            },
        )?;
        watch.undisturbed(VIP_SERVER1, since)
    })
}

/// Packets that break RFC 9568 section 7.1, by the reason under which they are to be counted, with the TTL.
fn malformed_advertisements(
    proper: &Advertisement,
    source: Ipv4Addr,
) -> [(&'static str, Vec<u8>, u32); 6] {
    let good = proper.emit(source);
    let mut checksum = good.clone();
    checksum[6] ^= 0xff;
    [
        ("checksum", checksum, 255),
        ("ttl", good.clone(), 254),
        ("truncated", good[..10].to_vec(), 255),
        ("trailing_bytes", [good.as_slice(), &[0; 4]].concat(), 255),
        (
            "unknown_version",
            Advertisement {
                version: 4,
                ..proper.clone()
            }
            .emit(source),
            255,
        ),
        (
            "type",
            Advertisement {
                kind: 2,
                ..proper.clone()
            }
            .emit(source),
            255,
        ),
    ]
}

#[test]
fn malformed_advertisements_are_counted_and_disturb_nobody() -> Result<()> {
    let test = "malformed_advertisements_are_counted_and_disturb_nobody";
    in_cluster(test, &Manifest::article(), |cluster| {
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        let since = Instant::now();
        let source = cluster.lab.client().address();
        let vrid = cluster.router(Gateway::One, VIP_SERVER1)?.virtual_router_id;
        // From its content this one would win every election.
        let proper = Advertisement {
            version: 3,
            kind: 1,
            vrid,
            priority: 255,
            interval: 10,
            addresses: vec![VIP_SERVER1],
        };
        let counted = |gateway, reason: &str| {
            let labels = [("reason", reason)];
            cluster.count(gateway, "wsha_vrrp_discarded_advertisements", &labels)
        };
        for (reason, packet, ttl) in malformed_advertisements(&proper, source) {
            let [one, two] = Gateway::BOTH.map(|gateway| counted(gateway, reason));
            forge::send(cluster.lab.client(), &vec![(packet, ttl); 5])?;
            for (gateway, before) in Gateway::BOTH.into_iter().zip([one?, two?]) {
                let what = format!("5 packets to be counted as {reason} on {}", gateway.name());
                wait::until(&what, Duration::from_secs(10), || {
                    Ok((counted(gateway, reason)? == before + 5).then_some(()))
                })?;
            }
        }
        for (gateway, address) in [(Gateway::One, VIP_SERVER1), (Gateway::Two, VIP_SERVER2)] {
            watch.settles(cluster, address, gateway)?;
            watch.undisturbed(address, since)?;
            let risen = cluster.entered(gateway, address, RouterState::Active)?;
            ensure!(risen == 1, "{} lost {address} for a while", gateway.name());
        }
        watch.never_split()
    })
}

#[test]
fn an_orderly_stop_tells_every_client() -> Result<()> {
    in_cluster(
        "an_orderly_stop_tells_every_client",
        &Manifest::article(),
        |cluster| {
            let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
            let since = Instant::now();
            let mut told = Session::open_many(cluster.lab.client(), VIP_SERVER1, PORT, 300)?;
            let mut kept = Session::open_many(cluster.lab.client(), VIP_SERVER2, PORT, 20)?;
            cluster.stop(Gateway::One)?;
            for (number, session) in told.iter_mut().enumerate() {
                match session.next_event()? {
                    Event::Close(Some(1001), _) => {}
                    other => bail!("session {number} of {} was told {other:?}", told.len()),
                }
            }
            ensure!(
                cluster.lab.holders(VIP_SERVER1)? == ["server2"],
                "the address did not move at once and alone"
            );
            watch.settles(cluster, VIP_SERVER1, Gateway::Two)?;
            watch.serves(VIP_SERVER1, Instant::now())?;
            for session in &mut kept {
                session.say("still here")?;
                session.undisturbed()?;
            }
            watch.undisturbed(VIP_SERVER2, since)?;
            watch.never_split()
        },
    )
}

/// A backend that refuses costs the client nothing; one that dies tells its sessions by a Close.
#[test]
fn a_lost_backend_is_passed_over_and_its_sessions_told() -> Result<()> {
    in_cluster(
        "a_lost_backend_is_passed_over_and_its_sessions_told",
        &Manifest::article(),
        |cluster| {
            let mut sessions = Session::open_many(cluster.lab.client(), VIP_SERVER1, PORT, 9)?;
            let served = sessions
                .iter_mut()
                .map(|session| session.say("who"))
                .collect::<Result<Vec<_>>>()?;
            let lost = Ipv4Addr::new(192, 168, 1, 16);
            ensure!(
                served.contains(&lost),
                "{lost} serves nobody, at port {BACKEND_PORT}: {served:?}"
            );
            cluster.backends.processes()[0].signal(nix::sys::signal::Signal::SIGKILL)?;
            for (session, server) in sessions.iter_mut().zip(&served) {
                if *server == lost {
                    let event = session.next_event()?;
                    ensure!(
                        matches!(event, Event::Close(Some(1000..=4999), _)),
                        "a session of the lost backend got {event:?}"
                    );
                }
            }
            let mut fresh = Session::open_many(cluster.lab.client(), VIP_SERVER1, PORT, 9)?;
            for session in &mut fresh {
                ensure!(session.say("who")? != lost, "a dead backend answered");
            }
            for (session, server) in sessions.iter_mut().zip(&served) {
                if *server != lost {
                    ensure!(session.say("who")? == *server);
                }
            }
            Ok(())
        },
    )
}
