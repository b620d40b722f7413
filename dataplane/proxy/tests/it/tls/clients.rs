//! Clients that speak TLS, and those that do not or not well.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use proxy::{
    HandshakeResult,
    tls::{MinimumVersion, ServerTls, TicketKeys},
};
use rustls::{ProtocolVersion, version::TLS12};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

use super::support::{
    Authority, HOST, VERSIONS, connect, echo, listener, rig, secure_on, try_secure,
};
use crate::support::{REQUEST, Rig, echoes, listen, named, pattern, read_head, round_trip, soon};

#[tokio::test]
async fn messages_of_every_size_come_back_with_tls_on_both_sides() {
    let authority = Authority::new();
    let identity = authority.identity(&[HOST]);
    let backend = echo(Authority::server(&identity)).await;
    let rig = Rig::with(&[backend], |pool| {
        pool.listeners[0].tls = Some(listener(&[identity]));
        pool.upstreams[0].tls = Some(authority.to_endpoints());
    });
    for version in VERSIONS {
        let mut client = authority.client(&[version]);
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut ws = connect(rig.address, &Arc::new(client)).await;
        let (_, connection) = ws.get_ref().get_ref();
        assert_eq!(connection.protocol_version(), Some(version.version));
        assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));
        for len in [0, 1, 125, 16_383, 16_384, 16_385, 65_536, 300_000, 1 << 20] {
            echoes(&mut ws, len).await;
        }
        ws.close(None).await.unwrap();
    }
    let counters = rig
        .until("over", |now| now.counters.live_sessions == 0)
        .await
        .counters;
    assert_eq!(counters.handshakes(HandshakeResult::Upgraded), 2);
    assert_eq!(counters.from_clients.messages, 18);
    assert_eq!(counters.from_clients.violations, 0);
    assert_eq!(counters.from_backends.violations, 0);
    assert_eq!(counters.resets, 0);
}

#[tokio::test]
async fn the_record_tells_what_tls_came_to_and_of_no_tls_nothing() {
    let (mut rig, authority) = rig(&[crate::support::echo().await]);
    for (version, name) in VERSIONS.into_iter().zip(["1.2", "1.3"]) {
        let client = Arc::new(authority.client(&[version]));
        let mut ws = connect(rig.address, &client).await;
        ws.close(None).await.unwrap();
        let record = rig.record().await;
        assert_eq!(record.tls_version, Some(name));
        assert_eq!(record.server_name.as_deref(), Some(HOST));
        assert_eq!(record.http_version, Some("1.1"));
    }
    // Nobody is trusted who has made the certificate: the name was asked for all the same.
    let stranger = Arc::new(Authority::new().client(&VERSIONS));
    let refused = try_secure(rig.address, HOST, &stranger).await;
    assert!(refused.is_err());
    let record = rig.record().await;
    assert_eq!(record.server_name.as_deref(), Some(HOST));
    assert_eq!(record.http_version, None);

    rig.edit(|pool| pool.listeners[0].tls = None);
    let mut ws = rig.connect().await;
    ws.close(None).await.unwrap();
    let record = rig.record().await;
    assert_eq!((record.tls_version, record.server_name), (None, None));
    assert_eq!(record.http_version, Some("1.1"));
}

#[tokio::test]
async fn many_messages_in_flight_keep_their_order() {
    let (rig, authority) = rig(&[crate::support::echo().await]);
    let ws = connect(rig.address, &Arc::new(authority.client(&VERSIONS))).await;
    let (mut sink, mut stream) = ws.split();
    let send = async {
        for i in 0..128 {
            sink.send(Message::binary(pattern(65_536 + i)))
                .await
                .unwrap();
        }
    };
    let receive = async {
        for i in 0..128 {
            assert!(stream.next().await.unwrap().unwrap().into_data() == pattern(65_536 + i));
        }
    };
    soon(async { tokio::join!(send, receive) }).await;
}

#[tokio::test]
async fn records_that_come_in_pieces_are_put_together() {
    let (rig, authority) = rig(&[crate::support::echo().await]);
    let (listener, at) = listen().await;
    let address = rig.address;
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let proxy = TcpStream::connect(address).await.unwrap();
        proxy.set_nodelay(true).unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_proxy, mut to_proxy) = proxy.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_proxy, &mut to_client).await });
        let mut bytes = [0; 7];
        while let Ok(n @ 1..) = from_client.read(&mut bytes).await {
            to_proxy.write_all(&bytes[..n]).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    let mut ws = connect(at, &Arc::new(authority.client(&VERSIONS))).await;
    echoes(&mut ws, 20_000).await;
    round_trip(&mut ws, "and on").await;
}

#[tokio::test]
async fn keys_may_be_changed_in_between() {
    let (rig, authority) = rig(&[crate::support::echo().await]);
    let mut ws = connect(rig.address, &Arc::new(authority.client(&VERSIONS))).await;
    for _ in 0..3 {
        // Also asks the other end for new ones (RFC 8446 section 4.6.3).
        let (_, connection) = ws.get_mut().get_mut();
        connection.refresh_traffic_keys().unwrap();
        echoes(&mut ws, 40_000).await;
    }
}

#[tokio::test]
async fn the_backend_is_told_that_the_client_came_by_tls() {
    let (backend, at) = listen().await;
    let (rig, authority) = rig(&[at]);
    let client = Arc::new(authority.client(&VERSIONS));
    let mut stream = try_secure(rig.address, HOST, &client).await.unwrap();
    // What comes with the end of the client's handshake is its request, and frames behind it.
    let early = [REQUEST, b"\x81\x82\0\0\0\0hi"].concat();
    stream.write_all(&early).await.unwrap();
    loop {
        let (mut backend, _) = soon(backend.accept()).await.unwrap();
        // The proxy's check of a new endpoint says nothing.
        let Some(head) = soon(read_head(&mut backend)).await else {
            continue;
        };
        assert!(head.contains("\r\nX-Forwarded-Proto: https\r\n"), "{head}");
        assert!(head.contains(";proto=https\r\n"), "{head}");
        backend.write_all(crate::support::SWITCH).await.unwrap();
        let mut frame = [0; 8];
        soon(backend.read_exact(&mut frame)).await.unwrap();
        assert_eq!(&frame, b"\x81\x82\0\0\0\0hi");
        return;
    }
}

#[tokio::test]
async fn a_header_of_the_proxy_protocol_comes_before_tls() {
    let (mut rig, authority) = rig(&[named("a").await]);
    rig.edit(|pool| {
        pool.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        pool.listeners[0].proxy_protocol = true;
    });
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n";
    stream.write_all(header).await.unwrap();
    let client = Arc::new(authority.client(&VERSIONS));
    let stream = secure_on(stream, HOST, &client).await.unwrap();
    drop(super::support::upgrade(stream).await);
    let record = rig.record().await;
    assert_eq!(record.client, "192.0.2.7:4711".parse().unwrap());
}

#[tokio::test]
async fn a_version_or_protocol_that_is_not_spoken_is_refused_counted_and_recorded() {
    let authority = Authority::new();
    let identity = authority.identity(&[HOST]);
    let rig = Rig::with(&[named("a").await], |pool| {
        pool.access_log = Some(100);
        let keys = TicketKeys::default();
        let tls = ServerTls::new(&[identity], MinimumVersion::Tls13, &keys);
        pool.listeners[0].tls = Some(tls.unwrap());
    });
    let old = Arc::new(authority.client(&[&TLS12]));
    let error = try_secure(rig.address, HOST, &old).await.unwrap_err();
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    let mut other = authority.client(&VERSIONS);
    other.alpn_protocols = vec![b"h3".to_vec()];
    let error = try_secure(rig.address, HOST, &Arc::new(other))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
    // One that does not trust the certificate says so.
    let stranger = Arc::new(Authority::new().client(&VERSIONS));
    let error = try_secure(rig.address, HOST, &stranger).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    rig.until("all three counted", |now| {
        now.counters.handshakes(HandshakeResult::Tls) == 3
    })
    .await;
    for _ in 0..3 {
        let record = rig.record().await;
        assert_eq!(record.handshake, HandshakeResult::Tls);
        assert_eq!((record.status, record.host), (None, None));
    }
    let client = Arc::new(authority.client(&VERSIONS));
    let ws = connect(rig.address, &client).await;
    let (_, connection) = ws.get_ref().get_ref();
    assert_eq!(
        connection.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
}

#[tokio::test]
async fn plain_http_is_answered_400_and_nonsense_by_an_alert() {
    let (rig, _) = rig(&[named("a").await]);
    let answer = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        answer
    };
    let text = String::from_utf8(answer(REQUEST).await).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 400 ") && text.contains("wss://"),
        "{text}"
    );
    // An alert is a record of type 21 with two bytes, the first of which is 2 (RFC 8446 section 6).
    let alert = answer(&[0x80; 64]).await;
    assert_eq!((alert[0], alert.len(), alert[5]), (21, 7, 2));
    rig.until("counted", |now| {
        now.counters.handshakes(HandshakeResult::Tls) == 1
            && now.counters.handshakes(HandshakeResult::Refused) == 1
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_never_ends_takes_half_of_the_time_that_there_is() {
    let (mut rig, authority) = rig(&[named("a").await]);
    rig.edit(|pool| pool.upstreams[0].handshake_timeout = Duration::from_millis(600));
    // The beginning of a record that is said to have 512 bytes.
    let mut stalled = TcpStream::connect(rig.address).await.unwrap();
    stalled.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    let client = Arc::new(authority.client(&VERSIONS));
    let mut other = connect(rig.address, &client).await;
    assert_eq!(
        soon(other.next()).await.unwrap().unwrap(),
        Message::text("a")
    );
    round_trip(&mut other, "not held up").await;
    let end = soon(stalled.read(&mut [0; 64])).await;
    assert!(
        matches!(&end, Ok(0)) || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    );
    rig.until("counted", |now| {
        now.counters.handshakes(HandshakeResult::ClientTimeout) == 1
    })
    .await;
    // One that has come to TLS and then asks for nothing is told so by way of it.
    let mut silent = try_secure(rig.address, HOST, &client).await.unwrap();
    let head = soon(read_head(&mut silent)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 408 "), "{head}");
    assert_eq!(soon(silent.read_to_end(&mut Vec::new())).await.unwrap(), 36);
}
