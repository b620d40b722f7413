//! Endpoints that speak TLS, rightly or not.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proxy::{
    EndpointProblem, Event, HandshakeResult,
    handshake::Outcome,
    proxy_protocol::{Version, parse},
    tls::ClientTls,
};
use rcgen::{KeyPair, date_time_ymd};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::support::{Authority, HOST, echo};
use crate::support::{POOL, REQUEST, Rig, listen, read_head, round_trip, soon, try_connect};

/// What becomes of an endpoint, and of the client where there is no other.
async fn fails(endpoint: SocketAddr, tls: ClientTls, expected: EndpointProblem) {
    let rig = Rig::with(&[endpoint], |pool| pool.upstreams[0].tls = Some(tls));
    let error = soon(try_connect(rig.address))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("502"), "{expected:?}: {error}");
    rig.until(&format!("{expected:?}"), |now| {
        let endpoint = &now.endpoints[0];
        endpoint.problem == Some(expected)
            && !endpoint.usable
            && now.counters.handshakes(HandshakeResult::BadGateway) == 1
    })
    .await;
}

#[tokio::test]
async fn one_that_is_not_what_it_should_be_gets_no_sessions_and_its_reason() {
    let authority = Authority::new();
    let server = |names: &[&str]| Authority::server(&authority.identity(names));
    let wrong_name = echo(server(&["other.example"])).await;
    fails(
        wrong_name,
        authority.to_endpoints(),
        EndpointProblem::WrongHostname,
    )
    .await;

    let stranger = Authority::new();
    let untrusted = echo(Authority::server(&stranger.identity(&[HOST]))).await;
    fails(
        untrusted,
        authority.to_endpoints(),
        EndpointProblem::UntrustedCertificate,
    )
    .await;

    let key = KeyPair::generate().unwrap();
    let expired = authority.identity_with(&[HOST], &key, |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let expired = echo(Authority::server(&expired)).await;
    fails(
        expired,
        authority.to_endpoints(),
        EndpointProblem::ExpiredCertificate,
    )
    .await;

    let plain = crate::support::echo().await;
    fails(plain, authority.to_endpoints(), EndpointProblem::TlsFailed).await;

    let asking = echo(authority.asking_server(&authority.identity(&[HOST]))).await;
    fails(
        asking,
        authority.to_endpoints(),
        EndpointProblem::TlsRefused,
    )
    .await;
    let identity = stranger.identity(&["client"]);
    let wrong = ClientTls::new(HOST, authority.pem.as_bytes(), Some(&identity));
    fails(asking, wrong.unwrap(), EndpointProblem::TlsRefused).await;
}

#[tokio::test]
async fn one_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new();
    let asking = echo(authority.asking_server(&authority.identity(&[HOST]))).await;
    let identity = authority.identity(&["client"]);
    let rig = Rig::with(&[asking], |pool| {
        let tls = ClientTls::new(HOST, authority.pem.as_bytes(), Some(&identity));
        pool.upstreams[0].tls = Some(tls.unwrap());
    });
    round_trip(&mut rig.connect().await, "let in").await;
    rig.until("sound", |now| now.endpoints[0].usable).await;
}

#[tokio::test]
async fn where_one_fails_the_next_is_tried() {
    let authority = Authority::new();
    let bad = echo(Authority::server(&authority.identity(&["other.example"]))).await;
    let asking = echo(authority.asking_server(&authority.identity(&[HOST]))).await;
    let good = echo(Authority::server(&authority.identity(&[HOST]))).await;
    for backends in [[bad, good], [asking, good], [good, bad], [good, asking]] {
        let rig = Rig::with(&backends, |pool| {
            pool.upstreams[0].tls = Some(authority.to_endpoints());
        });
        for _ in 0..4 {
            round_trip(&mut rig.connect().await, "the good one").await;
        }
    }
}

/// A client that says the last word of its request when little of its time is left.
async fn late(address: SocketAddr, pause: Duration) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    let (first, last) = REQUEST.split_at(REQUEST.len() - 1);
    client.write_all(first).await.unwrap();
    tokio::time::sleep(pause).await;
    client.write_all(last).await.unwrap();
    soon(read_head(&mut client)).await.unwrap()
}

#[tokio::test]
async fn one_that_had_no_time_to_connect_counts_as_sound() {
    let authority = Authority::new();
    let config = Authority::server(&authority.identity(&[HOST]));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, at) = listen().await;
    let (slow, is_slow) = tokio::sync::watch::channel(Duration::ZERO);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, is_slow) = (acceptor.clone(), is_slow.clone());
            tokio::spawn(async move {
                let pause = *is_slow.borrow();
                tokio::time::sleep(pause).await;
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let _said = stream.read_to_end(&mut Vec::new()).await;
                }
            });
        }
    });
    let rig = Rig::with(&[at], |pool| {
        pool.upstreams[0].tls = Some(authority.to_endpoints());
        pool.upstreams[0].connect_timeout = Duration::from_millis(1900);
        pool.upstreams[0].handshake_timeout = Duration::from_secs(2);
    });
    rig.until("sound", |now| now.upstreams[0].usable == 1).await;
    // Less than it may take, and more than the client leaves it.
    slow.send(Duration::from_secs(1)).unwrap();
    let mut answer = String::new();
    // A host that is busy may leave the client itself no time.
    for _ in 0..3 {
        answer = late(rig.address, Duration::from_millis(1500)).await;
        if answer.starts_with("HTTP/1.1 504 ") {
            break;
        }
    }
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(rig.proxy.snapshot().endpoints[0].problem, None);
    let mut lost = rig
        .events
        .try_iter()
        .skip_while(|event| *event != usable(1));
    assert!(!lost.any(|event| event == usable(0)));
}

fn usable(count: usize) -> Event {
    Event::UsableEndpoints {
        pool: POOL.to_owned(),
        upstream: "echo".to_owned(),
        count,
    }
}

#[tokio::test]
async fn the_header_of_the_proxy_protocol_comes_before_tls_and_with_checks_too() {
    let authority = Authority::new();
    let (listener, at) = listen().await;
    let rig = Rig::with(&[at], |pool| {
        pool.upstreams[0].tls = Some(authority.to_endpoints());
        pool.upstreams[0].proxy_protocol = Some(Version::V2);
    });
    let config = Authority::server(&authority.identity(&[HOST]));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let address = rig.address;
    let client = tokio::spawn(async move { crate::support::raw_client(address).await });
    let mut checked = false;
    loop {
        let (mut stream, _) = soon(listener.accept()).await.unwrap();
        let mut header = Vec::new();
        let proxied = loop {
            header.push(soon(stream.read_u8()).await.unwrap());
            if let Outcome::Done(header, _) = parse(&header) {
                break matches!(header, proxy::proxy_protocol::Header::Proxied { .. });
            }
        };
        let mut stream = soon(acceptor.accept(stream)).await.unwrap();
        match soon(read_head(&mut stream)).await {
            None => checked |= !proxied,
            Some(head) => {
                assert!(
                    proxied && head.contains("X-Forwarded-Proto: http\r\n"),
                    "{head}"
                );
                let switch = crate::support::SWITCH;
                stream.write_all(switch).await.unwrap();
                drop(soon(client).await.unwrap());
                break;
            }
        }
    }
    // The check of the new endpoint came before or comes after.
    if !checked {
        rig.until("sound", |now| now.endpoints[0].usable).await;
    }
}
