//! What changes while a handshake is under way.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proxy::{Ended, Heartbeat, Phase};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
};

use crate::support::{
    POOL, REQUEST, Rig, SWITCH, echo, endpoint, listen, named, pool, read_frame, read_head, soon,
};

/// A backend that says when it has the request, and answers it when it is let.
struct Waiting {
    address: SocketAddr,
    asked: mpsc::Receiver<()>,
    go: Arc<Notify>,
}

impl Waiting {
    async fn new() -> Self {
        let (listener, address) = listen().await;
        let (sender, asked) = mpsc::channel(16);
        let go = Arc::new(Notify::new());
        let let_go = Arc::clone(&go);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (sender, go) = (sender.clone(), Arc::clone(&let_go));
                tokio::spawn(async move {
                    if read_head(&mut stream).await.is_some() {
                        sender.send(()).await.unwrap();
                        go.notified().await;
                        stream.write_all(SWITCH).await.unwrap();
                        stream.write_all(b"\x81\x02hi").await.unwrap();
                        let _ended = stream.read_to_end(&mut Vec::new()).await;
                    }
                });
            }
        });
        Self { address, asked, go }
    }

    /// A client whose request is with the backend, which has not answered.
    async fn client(&mut self, rig: &Rig) -> TcpStream {
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        soon(self.asked.recv()).await.unwrap();
        client
    }

    async fn answers(&self, client: &mut TcpStream) {
        self.go.notify_one();
        let head = soon(read_head(client)).await.unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }
}

async fn read_close(client: &mut TcpStream) -> Vec<u8> {
    loop {
        match read_frame(client).await {
            (0x88, payload) => return payload,
            (first, _) => assert_eq!(first, 0x81),
        }
    }
}

#[tokio::test]
async fn a_client_that_came_before_all_endpoints_were_replaced_gets_a_new_one() {
    let mut rig = Rig::new(&[named("old").await]);
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    rig.until("accepted", |s| s.counters.accepted == 1).await;
    let new = named("new").await;
    rig.edit(|pool| pool.upstreams[0].endpoints = vec![endpoint(new)]);
    client.write_all(REQUEST).await.unwrap();
    let head = soon(read_head(&mut client)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(read_frame(&mut client).await, (0x81, b"new".to_vec()));
}

#[tokio::test]
async fn one_whose_endpoint_is_no_longer_ready_stays() {
    let mut backend = Waiting::new().await;
    let mut rig = Rig::new(&[backend.address]);
    let mut client = backend.client(&rig).await;
    rig.edit(|pool| pool.upstreams[0].endpoints[0].phase = Phase::NotReady);
    backend.answers(&mut client).await;
    assert_eq!(read_frame(&mut client).await, (0x81, b"hi".to_vec()));
    // A Close would be on its way by now: it would be sent with the session's first turn.
    rig.edit(|pool| pool.drain.close_code = 4000);
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 1);
    client.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
    drop(client);
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(snapshot.counters.ended_by(Ended::Client), 1);
}

#[tokio::test]
async fn one_whose_endpoint_is_terminating_is_told_at_once() {
    let mut backend = Waiting::new().await;
    let mut rig = Rig::with(&[backend.address], |pool| {
        pool.drain.timeout = Duration::from_hours(1);
    });
    let mut client = backend.client(&rig).await;
    rig.edit(|pool| pool.upstreams[0].endpoints[0].phase = Phase::Terminating);
    backend.answers(&mut client).await;
    let close = read_close(&mut client).await;
    assert_eq!(close, b"\x03\xe9backend is going away");
}

#[tokio::test]
async fn one_whose_address_has_gone_to_another_pool_is_told_at_once() {
    let mut backend = Waiting::new().await;
    let mut rig = Rig::new(&[backend.address]);
    let mut client = backend.client(&rig).await;
    let other = pool(&[rig.address], &[echo().await]);
    rig.config.pools.remove(POOL);
    rig.config.pools.insert("default/other".to_owned(), other);
    rig.apply();
    backend.answers(&mut client).await;
    let close = read_close(&mut client).await;
    assert_eq!(close, b"\x03\xe9listener was removed");
}

#[tokio::test]
async fn one_whose_address_was_lost_ends_with_the_others() {
    let mut backend = Waiting::new().await;
    let rig = Rig::with(&[backend.address], |pool| {
        pool.heartbeat = Heartbeat {
            interval: Duration::from_hours(1),
            timeout: Duration::from_millis(100),
        };
    });
    let mut lost = backend.client(&rig).await;
    rig.proxy.address_held(rig.address.ip(), false).unwrap();
    let mut new = backend.client(&rig).await;
    backend.answers(&mut lost).await;
    rig.until("ended", |s| s.counters.ended_by(Ended::AddressLost) == 1)
        .await;
    // One that has come since has come by the address.
    backend.answers(&mut new).await;
    assert_eq!(read_frame(&mut new).await, (0x81, b"hi".to_vec()));
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 1);
}
