//! Proxies before and behind this one: the PROXY protocol, and chains of forwarded requests.

use std::{net::SocketAddr, time::Duration};

use proptest::{collection::vec, prelude::*, sample::Index};
use proxy::{
    Balancing, ConsistentHash, HandshakeResult, HashKey,
    handshake::Outcome,
    proxy_protocol::{Header, Version, header, own, parse},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::support::{
    REQUEST, Rig, SWITCH, connect, echo, listen, named, read_head, round_trip, soon,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn proxied(source: &str, destination: &str) -> Header {
    Header::Proxied {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// A header of version 2 with these bytes behind the signature.
fn binary(rest: &[u8]) -> Vec<u8> {
    [SIGNATURE, rest].concat()
}

/// What is right, and what it says.
fn good() -> Vec<(Vec<u8>, Header)> {
    let four = [
        &[0x21, 0x11, 0, 12][..],
        &[192, 0, 2, 7, 10, 0, 0, 1],
        &[0x12, 0x34, 0, 80],
    ];
    let mut six = vec![0x21, 0x21, 0, 36 + 5];
    for last in [7, 1] {
        six.extend([
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last,
        ]);
    }
    // Ports, then a further value (PP2_TYPE_NOOP).
    six.extend([0xff, 0xff, 0, 0, 0x04, 0, 2, 9, 9]);
    let text = |text: &str| text.as_bytes().to_vec();
    let both = proxied("192.0.2.7:4660", "10.0.0.1:80");
    vec![
        (binary(&four.concat()), both),
        (
            binary(&six),
            proxied("[2001:db8::7]:65535", "[2001:db8::1]:0"),
        ),
        (binary(&[0x20, 0, 0, 0]), Header::Local),
        // With LOCAL all behind the command is skipped.
        (binary(&[0x20, 0xff, 0, 3, 1, 2, 3]), Header::Local),
        // No TCP.
        (binary(&[0x21, 0, 0, 0]), Header::Local),
        (binary(&[0x21, 0x12, 0, 1, 7]), Header::Local),
        (text("PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n"), both),
        (
            text("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
            proxied("255.255.255.255:65535", "255.255.255.255:65535"),
        ),
        (
            text("PROXY TCP6 2001:DB8::7 2001:db8:0:0:0:0:0:1 65535 0\r\n"),
            proxied("[2001:db8::7]:65535", "[2001:db8::1]:0"),
        ),
        (text("PROXY UNKNOWN\r\n"), Header::Local),
        // Section 2.1: what follows is to be ignored.
        (b"PROXY UNKNOWN \xff\0\x80\r\n".to_vec(), Header::Local),
        (
            text(&format!("PROXY UNKNOWN {}\r\n", "f".repeat(91))),
            Header::Local,
        ),
    ]
}

fn bad() -> Vec<Vec<u8>> {
    let long = format!("PROXY UNKNOWN {}\r\n", "f".repeat(92));
    let lines = [
        "GET / HTTP/1.1\r\n",
        "POST",
        "PROXY\r\n",
        "PROXY  TCP4 192.0.2.7 10.0.0.1 4660 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\rx",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4660 80 \r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 4660\r\n",
        "PROXY TCP4 192.0.2.07 10.0.0.1 4660 80\r\n",
        "PROXY TCP4 192.0.2 10.0.0.1 4660 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 04660 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 +4660 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 4660 80\r\n",
        "PROXY TCP6 192.0.2.7 10.0.0.1 4660 80\r\n",
        "PROXY TCP6 fe80::1%eth0 fe80::2 4660 80\r\n",
        "PROXY UDP4 192.0.2.7 10.0.0.1 4660 80\r\n",
        "PROXY UNKNOWNX\r\n",
        &long,
    ];
    let binaries: [&[u8]; 7] = [
        &[0x11, 0x11, 0, 12],
        &[0x22, 0x11, 0, 12],
        &[0x21, 0x41, 0, 12],
        &[0x21, 0x13, 0, 12],
        // Too long, also with LOCAL.
        &[0x21, 0x11, 0x0f, 0xf1],
        &[0x20, 0x00, 0xff, 0xff],
        // No room for both addresses and ports.
        &[0x21, 0x11, 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    let lines = lines.iter().map(|line| line.as_bytes().to_vec());
    lines
        .chain(binaries.iter().map(|rest| binary(rest)))
        .chain([b"\r\n\r\n\0\r\nQUIX".to_vec()])
        .collect()
}

#[test]
fn headers_are_read_whole_and_no_byte_further() {
    for (bytes, expected) in good() {
        let shown = bytes.escape_ascii();
        for end in 0..bytes.len() {
            assert_eq!(
                parse(&bytes[..end]),
                Outcome::NeedMore,
                "{shown} up to {end}"
            );
        }
        let behind = [&bytes[..], REQUEST].concat();
        assert_eq!(
            parse(&behind),
            Outcome::Done(expected, bytes.len()),
            "{shown}"
        );
    }
}

#[test]
fn a_header_of_the_proxy_s_own_speaks_of_nobody() {
    for version in [Version::V1, Version::V2] {
        let header = own(version);
        let end = header.len();
        assert_eq!(parse(header), Outcome::Done(Header::Local, end));
    }
}

#[test]
fn what_is_not_exactly_a_header_is_refused() {
    for bytes in bad() {
        let shown = bytes.escape_ascii();
        assert!(matches!(parse(&bytes), Outcome::Bad(_)), "{shown}");
    }
}

#[test]
fn what_is_sent_is_what_is_read() {
    let four: SocketAddr = "192.0.2.7:1".parse().unwrap();
    let mapped: SocketAddr = "[::ffff:192.0.2.7]:1".parse().unwrap();
    let six: SocketAddr = "[2001:db8::1]:65535".parse().unwrap();
    for version in [Version::V1, Version::V2] {
        for (from, to, expected) in [
            (four, four, (four, four)),
            (mapped, four, (four, four)),
            (six, six, (six, six)),
            // One family for both.
            (four, six, (mapped, six)),
            (six, four, (six, mapped)),
        ] {
            let bytes = header(version, from, to);
            let (source, destination) = expected;
            let expected = Header::Proxied {
                source,
                destination,
            };
            assert_eq!(parse(&bytes), Outcome::Done(expected, bytes.len()));
        }
    }
}

proptest! {
    #[test]
    fn a_header_is_read_the_same_however_it_is_cut(
        which in any::<Index>(),
        edits in vec((any::<Index>(), any::<u8>()), 0..3),
        rest in vec(any::<u8>(), 0..40),
    ) {
        let good = good();
        let (mut bytes, _) = good[which.index(good.len())].clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(rest);
        let whole = parse(&bytes);
        for end in 0..bytes.len() {
            let answer = parse(&bytes[..end]);
            if answer != Outcome::NeedMore {
                prop_assert_eq!(&answer, &whole, "at {} of {:?}", end, bytes);
                break;
            }
        }
        if let Outcome::Done(_, end) = whole {
            prop_assert!(end <= bytes.len() && end <= 4096);
        }
    }
}

/// A backend that gives away what it gets up to the end of the request, and answers 101.
async fn recording() -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let (listener, address) = listen().await;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut got = Vec::new();
                // Both headers of the protocol could contain an empty line, a request's end does not.
                while !got.ends_with(b"==\r\nSec-WebSocket-Version: 13\r\n\r\n")
                    && !got.ends_with(b"proto=http\r\n\r\n")
                {
                    match stream.read_u8().await {
                        Ok(byte) => got.push(byte),
                        Err(_) => return,
                    }
                }
                sender.send(got).await.unwrap();
                stream.write_all(SWITCH).await.unwrap();
                let _rest = stream.read_u8().await;
            });
        }
    });
    (address, receiver)
}

fn trusting(pool: &mut proxy::Pool, networks: &[&str]) {
    let networks = networks.iter().map(|network| network.parse().unwrap());
    pool.listeners[0].trusted_proxies = networks.collect();
}

fn request(fields: &str) -> Vec<u8> {
    let request = str::from_utf8(REQUEST).unwrap();
    let fields = format!("{fields}Host:");
    request.replacen("Host:", &fields, 1).into_bytes()
}

async fn send(rig: &Rig, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

#[tokio::test]
async fn a_trusted_proxy_s_chain_is_kept_and_added_to() {
    let (backend, mut heads) = recording().await;
    let mut rig = Rig::with(&[backend], |pool| trusting(pool, &["127.0.0.0/8"]));
    let fields = "X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7;proto=https\r\n\
        X-Forwarded-For: 127.0.0.9\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 192.0.2.7\r\n\
        X-Forwarded-Host: chat.example\r\nX-Forwarded-Port: 443\r\n";
    // A client would like that: RFC 9110 section 7.6.1 forbids it.
    let fields = format!("{fields}Connection: x-forwarded-for, forwarded\r\n");
    let _client = send(&rig, &request(&fields)).await;
    let head = String::from_utf8(soon(heads.recv()).await.unwrap()).unwrap();
    for line in [
        "X-Forwarded-For: 192.0.2.7, 127.0.0.9, 127.0.0.1",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: chat.example",
        "X-Forwarded-Port: 443",
        "X-Real-IP: 192.0.2.7",
        "Forwarded: for=192.0.2.7;proto=https, for=127.0.0.1;host=\"example.org\";proto=http",
    ] {
        let count = head.split("\r\n").filter(|other| *other == line).count();
        assert_eq!(count, 1, "{line} in {head}");
    }
    assert_eq!(head.matches("orwarded").count(), 5, "{head}");

    // What it does not say is said here, and behind what is malformed nothing is added.
    let _client = send(&rig, &request("Forwarded: for=\"192.0.2.7\r\n")).await;
    let head = String::from_utf8(soon(heads.recv()).await.unwrap()).unwrap();
    for line in [
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: http",
        "Forwarded: for=127.0.0.1;host=\"example.org\";proto=http",
    ] {
        assert!(
            head.split("\r\n").any(|other| other == line),
            "{line} in {head}"
        );
    }
    assert!(!head.contains("192.0.2.7"), "{head}");

    rig.edit(|pool| trusting(pool, &["127.0.0.2/32"]));
    let _client = send(&rig, &request(&fields)).await;
    let head = String::from_utf8(soon(heads.recv()).await.unwrap()).unwrap();
    assert!(
        !head.contains("192.0.2.7") && !head.contains("https"),
        "{head}"
    );
}

#[tokio::test]
async fn clients_behind_a_proxy_are_told_apart_by_their_own_addresses() {
    let names = ["a", "b", "c", "d"];
    let mut backends = Vec::new();
    for name in names {
        backends.push(named(name).await);
    }
    let rig = Rig::with(&backends, |pool| {
        trusting(pool, &["127.0.0.0/8"]);
        pool.upstreams[0].balancing = Balancing::ConsistentHash(ConsistentHash {
            key: HashKey::SourceAddress,
            max_load_percent: None,
        });
    });
    let mut chosen = Vec::new();
    for i in 0..32_u8 {
        for _again in 0..2 {
            let mut client =
                send(&rig, &request(&format!("X-Forwarded-For: 192.0.2.{i}\r\n"))).await;
            assert!(soon(read_head(&mut client)).await.is_some());
            // A frame with the backend's name.
            let mut frame = [0; 3];
            soon(client.read_exact(&mut frame)).await.unwrap();
            chosen.push(frame[2]);
        }
    }
    for pair in chosen.chunks(2) {
        assert_eq!(pair[0], pair[1], "the same client elsewhere");
    }
    chosen.sort_unstable();
    chosen.dedup();
    assert_eq!(chosen, b"abcd");
}

#[tokio::test]
async fn a_required_header_says_who_the_client_is_and_what_it_connected_to() {
    let (backend, mut heads) = recording().await;
    let rig = Rig::with(&[backend], |pool| {
        trusting(pool, &["127.0.0.0/8"]);
        pool.listeners[0].proxy_protocol = true;
        pool.upstreams[0].proxy_protocol = Some(Version::V2);
    });
    let source: SocketAddr = "[2001:db8::7]:4711".parse().unwrap();
    let destination: SocketAddr = "[2001:db8::1]:443".parse().unwrap();
    for version in [Version::V1, Version::V2] {
        let bytes = header(version, source, destination);
        // Whoever it names is not a trusted proxy.
        let mut client = send(
            &rig,
            &[bytes, request("X-Forwarded-For: 1.1.1.1\r\n")].concat(),
        )
        .await;
        let got = soon(heads.recv()).await.unwrap();
        let Outcome::Done(
            Header::Proxied {
                source: from,
                destination: to,
            },
            end,
        ) = parse(&got)
        else {
            panic!("no header: {}", got.escape_ascii());
        };
        assert_eq!((from, to), (source, destination));
        let head = str::from_utf8(&got[end..]).unwrap();
        for line in [
            "X-Forwarded-For: 2001:db8::7",
            "X-Forwarded-Port: 443",
            "Forwarded: for=\"[2001:db8::7]\";host=\"example.org\";proto=http",
        ] {
            assert!(
                head.split("\r\n").any(|other| other == line),
                "{line} in {head}"
            );
        }
        assert!(
            soon(read_head(&mut client))
                .await
                .unwrap()
                .starts_with("HTTP/1.1 101")
        );
    }
    // The proxy's own connection, sent byte by byte.
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    client.set_nodelay(true).unwrap();
    let own = client.local_addr().unwrap();
    for byte in [&binary(&[0x20, 0, 0, 0])[..], REQUEST].concat() {
        client.write_all(&[byte]).await.unwrap();
    }
    let got = soon(heads.recv()).await.unwrap();
    let Outcome::Done(Header::Proxied { source, .. }, _) = parse(&got) else {
        panic!("no header: {}", got.escape_ascii());
    };
    assert_eq!(source, own);
}

/// What the client gets until the proxy ends the connection, by FIN or by a reset.
async fn answer(rig: &Rig, bytes: &[u8]) -> Vec<u8> {
    let mut stream = send(rig, bytes).await;
    let mut answer = Vec::new();
    drop(soon(stream.read_to_end(&mut answer)).await);
    answer
}

async fn counted(rig: &Rig, result: HandshakeResult, times: u64) {
    let what = format!("{times} times {}", result.label());
    rig.until(&what, |now| now.counters.handshakes(result) == times)
        .await;
}

#[tokio::test]
async fn without_a_good_header_from_a_trusted_proxy_nothing_is_answered() {
    let backend = named("a").await;
    let mut rig = Rig::with(&[backend], |pool| {
        trusting(pool, &["127.0.0.0/8"]);
        pool.listeners[0].proxy_protocol = true;
        pool.upstreams[0].handshake_timeout = Duration::from_millis(200);
    });
    assert_eq!(answer(&rig, REQUEST).await, b"");
    assert_eq!(answer(&rig, b"PROXY TCP4 nonsense\r\n").await, b"");
    counted(&rig, HandshakeResult::ProxyHeader, 2).await;
    // One that does not end has the handshake's time.
    assert_eq!(answer(&rig, b"PROXY TCP4 192.0.2.7").await, b"");
    counted(&rig, HandshakeResult::ClientTimeout, 1).await;
    // A request that does not end behind a good one is answered.
    let late = [b"PROXY UNKNOWN\r\n", &REQUEST[..40]].concat();
    assert!(answer(&rig, &late).await.starts_with(b"HTTP/1.1 408 "));
    // Of others not even a good one is read.
    rig.edit(|pool| trusting(pool, &["127.0.0.2/32"]));
    assert_eq!(answer(&rig, b"PROXY UNKNOWN\r\n").await, b"");
    counted(&rig, HandshakeResult::ProxyHeader, 3).await;
    // Where none is required one is no request.
    rig.edit(|pool| pool.listeners[0].proxy_protocol = false);
    assert!(
        answer(&rig, b"PROXY UNKNOWN\r\n\r\n")
            .await
            .starts_with(b"HTTP/1.1 400 ")
    );
}

#[tokio::test]
async fn two_proxies_in_a_row_agree_on_the_client() {
    let (backend, mut heads) = recording().await;
    let behind = Rig::with(&[backend], |pool| {
        trusting(pool, &["127.0.0.0/8"]);
        pool.listeners[0].proxy_protocol = true;
    });
    for version in [Version::V1, Version::V2] {
        let before = Rig::with(&[behind.address], |pool| {
            trusting(pool, &["127.0.0.0/8"]);
            pool.upstreams[0].proxy_protocol = Some(version);
        });
        let _client = send(&before, &request("X-Forwarded-For: 192.0.2.7\r\n")).await;
        let head = String::from_utf8(soon(heads.recv()).await.unwrap()).unwrap();
        // The one behind has it from the header alone: 192.0.2.7 is no proxy that it trusts.
        let line = "X-Forwarded-For: 192.0.2.7";
        assert!(head.split("\r\n").any(|other| other == line), "{head}");
    }
}

#[tokio::test]
async fn a_listener_that_would_accept_nobody_is_refused() {
    let backend = echo().await;
    let rig = Rig::new(&[backend]);
    let mut config = rig.config.clone();
    let pool = config.pools.values_mut().next().unwrap();
    pool.listeners[0].proxy_protocol = true;
    let error = rig.proxy.apply(config, Vec::new()).unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("NoTrustedProxies"), "{error}");
    round_trip(&mut connect(rig.address).await, "still served").await;
}
