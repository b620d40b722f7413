//! A client's connection of HTTP/2: takes its streams in for as long as there may be any.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
};

use h2::{
    Reason, RecvStream,
    server::{Builder, SendResponse},
};
use http::{HeaderValue, Request, Response, header::DATE};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;

use super::{piece::Piece, request, stream::Http2Stream, turns::Turns};
use crate::{
    handshake::date,
    live::Route,
    open::Arrival,
    stats::{HandshakeResult, Open},
    stream::Stream,
    worker::{Closing, NewStream, Newcomer, Worker},
};

/// Sessions and handshakes that one connection carries at once: what RFC 9113 section 6.5.2 wants at
/// least.
const STREAMS: u32 = 100;

/// What a stream may send before it is read, and all of them together: one whose endpoint is slow leaves
/// the others their part.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAMS * STREAM_WINDOW;

/// What is taken for a stream before the client lets it be sent.
const SEND_BUFFER: usize = 64 * 1024;

/// All fields of a request; the parser of handshakes has its own bound.
const HEADER_LIST: u32 = 32 * 1024;

/// What many small frames that wait to be read may take beyond their bytes: as much as these.
const FRAME_BUDGET: usize = CONNECTION_WINDOW as usize;

/// Streams of a connection that may come to nothing, or have not come to anything yet, from one look at it
/// to the next: a request costs a client little that it takes back at once, and us a handshake with an
/// endpoint (CVE-2023-44487). Twice as many as there are at once.
const FRUITLESS: u32 = 2 * STREAMS;

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEADER_LIST)
        .data_frame_budget(FRAME_BUDGET);
    builder
}

/// Serves a connection, on which TLS has agreed on HTTP/2, until it is over. The handshake of each stream
/// is one of its own.
///
/// It outlives its listener for as long as it has streams: these end as sessions do.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    client: Stream,
    mut arrival: Arrival,
    closing: Closing,
    _open: Open,
) {
    // Its sessions have heartbeats, if any; a connection without sessions has nothing else.
    client.probe(true);
    let client = Turns::from(client);
    let (whole, gathered) = (client.connection(), client.gathered());
    // The client begins at once (RFC 9113 section 3.4).
    let connected = {
        let mut preface = pin!(builder().handshake::<_, Piece>(client));
        let preface = gathered.turns(|cx| preface.as_mut().poll(cx));
        timeout(arrival.limit, preface).await
    };
    let Ok(Ok(Ok(mut connection))) = connected else {
        return;
    };
    let patience = worker.shared.patience;
    let fruitless = Rc::new(Cell::new(0));
    // The first stream is to come as soon as a request has to.
    let mut idleness = Idleness { seen: true };
    let mut look = pin!(sleep(arrival.limit));
    let mut is_ending = false;
    loop {
        let is_to_end = tokio::select! {
            // A session that begins once the others were told would never be told itself.
            biased;
            () = closing.told(), if !is_ending => true,
            () = look.as_mut() => {
                fruitless.set(0);
                let is_long = idleness.is_long(connection.has_streams());
                if is_long && is_ending {
                    // The client does not answer that it will open no more.
                    return;
                }
                let pause = if is_ending { patience.close } else { patience.idle };
                look.as_mut().reset(Instant::now() + pause);
                is_long
            }
            accepted = gathered.turns(|cx| connection.poll_accept(cx)) => match accepted {
                Ok(Some(Ok((request, mut respond)))) => {
                    idleness = Idleness::default();
                    fruitless.set(fruitless.get() + 1);
                    closing.begun(&fruitless);
                    let route = worker.http2_route(arrival.address).filter(|_| !is_ending);
                    let is_over = route.is_none();
                    if let Some(route) = route {
                        take(&worker, route, (request, respond), &whole, arrival, &fruitless);
                        // The connection's own turn was for the first.
                        arrival.has_turn = false;
                    } else {
                        // It did not know yet, and may ask for it elsewhere (RFC 9113 section 8.7).
                        respond.send_reset(Reason::REFUSED_STREAM);
                    }
                    if fruitless.get() > 2 * FRUITLESS {
                        // It was told, and goes on.
                        connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    }
                    is_over || fruitless.get() > FRUITLESS
                }
                Ok(Some(Err(error))) => {
                    tracing::debug!(peer = %arrival.peer, %error, "a connection of HTTP/2 broke");
                    return;
                }
                Err(_) | Ok(None) => return,
            },
        };
        if is_to_end && !is_ending {
            is_ending = true;
            connection.graceful_shutdown();
            look.as_mut().reset(Instant::now() + patience.close);
        }
    }
}

/// Whether there was no stream from one look to the next; a stream that came between makes it anew.
#[derive(Debug, Default)]
struct Idleness {
    /// There was none at the last look.
    seen: bool,
}

impl Idleness {
    fn is_long(&mut self, has_streams: bool) -> bool {
        let was_idle = std::mem::replace(&mut self.seen, !has_streams);
        was_idle && !has_streams
    }
}

/// Begins the handshake that a stream asks for.
fn take(
    worker: &Rc<Worker>,
    route: Arc<Route>,
    (request, mut respond): (Request<RecvStream>, SendResponse<Piece>),
    whole: &Weak<RefCell<Stream>>,
    arrival: Arrival,
    fruitless: &Rc<Cell<u32>>,
) {
    worker.stats(&route.stats).streams.add(1);
    let open = worker.open(&route.stats, |counts| &counts.streams_ended);
    let (parts, input) = request.into_parts();
    match request::head(&parts, &generate_key()) {
        Ok(head) => {
            let (whole, fruitless) = (Weak::clone(whole), Rc::clone(fruitless));
            let stream = Http2Stream::new(head, (input, respond), whole, fruitless, open);
            let stream = NewStream {
                stream: stream.into(),
                arrival,
            };
            worker.begin(route, Newcomer::Stream(Box::new(stream)));
        }
        Err(status) => {
            let mut answer = Response::new(());
            *answer.status_mut() = status;
            if let Ok(now) = HeaderValue::from_str(&date::now()) {
                answer.headers_mut().insert(DATE, now);
            }
            // The client may be gone.
            drop(respond.send_response(answer, true));
            let counts = worker.stats(&route.stats);
            counts.handshake(HandshakeResult::Refused);
        }
    }
}
