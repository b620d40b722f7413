//! What nobody should send: it is answered or counted, and disturbs nobody.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::forge::{self, Advertisement};
use e2e::testing::{Cluster, Gateway, Manifest, Watch, in_cluster, inside};
use e2e::wait;
use node_api::RouterState;

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
) -> [(&'static str, Vec<u8>, u32); 7] {
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
        (
            "zero_interval",
            Advertisement {
                interval: 0,
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
