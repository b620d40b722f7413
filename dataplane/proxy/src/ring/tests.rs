use std::{
    future::poll_fn,
    io::{Read, Write},
    net,
    time::{Duration, Instant},
};

use tokio::{
    io::ReadBuf,
    runtime::{Builder, LocalOptions},
};

use super::{queues::BUFFERS, *};
use crate::relay::READ_MIN;

const SOON: Duration = Duration::from_secs(10);

/// Runs a test in an event loop with a ring of its own.
fn with_reactor<F: Future<Output = ()>>(test: impl FnOnce(Rc<Reactor>) -> F) {
    let ring = match Ring::open_all(1) {
        Ok(mut rings) => rings.remove(0),
        Err(error) => return println!("SKIPPED: no io_uring ({error})"),
    };
    let options = LocalOptions::default();
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(options);
    let test = async { test(Reactor::begin(ring).unwrap()).await };
    runtime.unwrap().block_on(test);
}

/// A stream of the reactor, and its peer.
async fn pair(reactor: &Rc<Reactor>) -> (RingStream, net::TcpStream) {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap());
    let stream = reactor.adopt(tcp.await.unwrap()).unwrap();
    (stream, listener.accept().unwrap().0)
}

/// What a read gives now, with as much room as the relay has.
async fn read_now(stream: &RingStream) -> Poll<Vec<u8>> {
    let mut room = vec![0; 1 << 18];
    let mut buf = ReadBuf::new(&mut room);
    let read = poll_fn(|cx| Poll::Ready(stream.poll_read(cx, &mut buf))).await;
    read.map(|read| {
        read.unwrap();
        buf.filled().to_vec()
    })
}

async fn read(stream: &RingStream) -> Vec<u8> {
    let begun = Instant::now();
    loop {
        if let Poll::Ready(bytes) = read_now(stream).await {
            return bytes;
        }
        assert!(begun.elapsed() < SOON, "nothing comes");
        tokio::task::yield_now().await;
    }
}

/// Lets the event loop turn until it is so for all sockets.
async fn until_all(reactor: &Reactor, is: impl Fn(&Socket) -> bool) {
    let begun = Instant::now();
    while !reactor.0.borrow().sockets.iter().flatten().all(&is) {
        assert!(begun.elapsed() < SOON, "never");
        tokio::task::yield_now().await;
    }
}

#[test]
fn whoever_finds_no_buffer_left_is_read_all_the_same() {
    with_reactor(|reactor| async move {
        let mut pairs = Vec::new();
        for _ in 0..100 {
            let pair = pair(&reactor).await;
            assert!(read_now(&pair.0).await.is_pending());
            pairs.push(pair);
        }
        until_all(&reactor, Socket::is_asked).await;
        for (n, (_, peer)) in (0u32..).zip(&mut pairs) {
            peer.write_all(&n.to_ne_bytes()).unwrap();
        }
        until_all(&reactor, Socket::has_something).await;
        let holds = |reactor: &Reactor| {
            let sockets = &reactor.0.borrow().sockets;
            sockets.iter().flatten().filter(|one| one.holds()).count()
        };
        assert_eq!(holds(&reactor), usize::from(BUFFERS));
        for (n, (stream, peer)) in (0u32..).zip(&mut pairs) {
            assert_eq!(read(stream).await, n.to_ne_bytes());
            // And next time by a buffer again.
            assert!(read_now(stream).await.is_pending());
            peer.write_all(b"again").unwrap();
            assert_eq!(read(stream).await, b"again");
        }
    });
}

#[test]
fn a_flood_that_nobody_reads_is_stopped_and_comes_in_its_order() {
    with_reactor(|reactor| async move {
        let (stream, mut peer) = pair(&reactor).await;
        assert!(read_now(&stream).await.is_pending());
        until_all(&reactor, Socket::is_asked).await;
        let sent: Vec<u8> = (0..1u32 << 21).flat_map(u32::to_ne_bytes).collect();
        let sending = {
            let sent = sent.clone();
            std::thread::spawn(move || peer.write_all(&sent).unwrap())
        };
        until_all(&reactor, |socket| {
            socket.has_something() && !socket.is_asked()
        })
        .await;
        let most = |socket: &Socket| assert!(socket.unread() < 64 * READ_MIN, "{socket:?}");
        reactor.0.borrow().sockets.iter().flatten().for_each(most);
        let mut received = Vec::new();
        while received.len() < sent.len() {
            received.extend(read(&stream).await);
            assert!(received == sent[..received.len()], "{}", received.len());
        }
        sending.join().unwrap();
        assert!(read(&stream).await.is_empty(), "its end");
    });
}

#[test]
fn a_peer_learns_that_a_stream_is_gone_and_nothing_is_kept_of_it() {
    with_reactor(|reactor| async move {
        let (stream, mut peer) = pair(&reactor).await;
        assert!(read_now(&stream).await.is_pending());
        until_all(&reactor, Socket::is_asked).await;
        drop(stream);
        let begun = Instant::now();
        while !reactor.0.borrow().sockets.is_empty() {
            assert!(begun.elapsed() < SOON);
            tokio::task::yield_now().await;
        }
        peer.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    });
}
