//! Listeners that proxy plain requests, clients and servers that speak HTTP/1.1 byte by byte.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proxy::{PlainRequests, Pool};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::support::{Rig, listen, soon};

/// A listener of this kind, which lets nothing stand still for long.
pub(super) fn proxied(pool: &mut Pool) {
    pool.listeners[0].plain_requests = Some(PlainRequests {
        timeout: Duration::from_secs(20),
    });
}

pub(super) fn rig(backends: &[SocketAddr]) -> Rig {
    Rig::with(backends, proxied)
}

/// A server that runs `serve` for each connection. One that says nothing is the proxy's check.
pub(super) async fn server<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        let serve = Arc::new(serve);
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let serve = Arc::clone(&serve);
            tokio::spawn(async move {
                let mut first = [0; 1];
                if matches!(stream.peek(&mut first).await, Ok(1)) {
                    serve(stream).await;
                }
            });
        }
    });
    address
}

/// A server that gives each request away whose head and content `is_whole` says, and answers with `answer`,
/// leaving its connection open.
pub(super) async fn answering(
    answer: &'static [u8],
    is_whole: fn(&str) -> bool,
) -> (SocketAddr, mpsc::Receiver<String>) {
    let (sender, requests) = mpsc::channel(64);
    let address = server(move |mut stream| {
        let sender = sender.clone();
        async move {
            let Some(request) = read_until(&mut stream, is_whole).await else {
                return;
            };
            sender.send(request).await.unwrap();
            stream.write_all(answer).await.unwrap();
            let _rest = stream.read_u8().await;
        }
    })
    .await;
    (address, requests)
}

/// Reads until what came is enough; `None`: it ended before.
pub(super) async fn read_until(
    stream: &mut (impl AsyncReadExt + Unpin),
    is_enough: impl Fn(&str) -> bool,
) -> Option<String> {
    let mut received = String::new();
    while !is_enough(&received) {
        let mut some = [0; 4096];
        match stream.read(&mut some).await {
            Ok(n @ 1..) => received.push_str(str::from_utf8(&some[..n]).unwrap()),
            _ => return None,
        }
    }
    Some(received)
}

/// A head without content.
pub(super) fn head(text: &str) -> bool {
    text.ends_with("\r\n\r\n")
}

/// Sends bytes on a new connection.
pub(super) async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Everything until the proxy ends the connection; `Err`: it broke it.
pub(super) async fn rest(stream: &mut TcpStream) -> Result<String, std::io::ErrorKind> {
    let mut answer = Vec::new();
    let read = soon(stream.read_to_end(&mut answer)).await;
    read.map_err(|error| error.kind())?;
    Ok(String::from_utf8(answer).unwrap())
}
