//! A client of HTTP/2, as much of it as sessions in streams need (RFC 9113, RFC 8441): it costs the generator little,
//! and keeps to flow control in both directions.

mod frame;

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use self::frame::{Frame, Settings};
use super::client::Progress;
use super::conn;
use super::session::{Script, Session};

/// What a proxy may send in a stream, and in all of a connection, before it is told of more: of the order of what
/// browsers allow.
const STREAM_WINDOW: u32 = 6 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

#[derive(Debug)]
struct Stream {
    id: u32,
    session: Session,
    is_open: bool,
    /// The closing handshake is done.
    is_closed: bool,
    /// The proxy has ended its half.
    is_ended: bool,
    /// What may still be sent; it can fall below zero (RFC 9113 section 6.9.2).
    window: i64,
    /// What is to be sent.
    outbox: Vec<u8>,
    /// What came since the proxy was told of more room.
    taken: u32,
}

impl Stream {
    /// Tells of more room once half of it is used.
    fn account(&mut self, taken: u32, out: &mut Vec<u8>) {
        self.taken += taken;
        if self.taken >= STREAM_WINDOW / 2 {
            frame::window_update(out, self.id, std::mem::take(&mut self.taken));
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Http2 {
    /// By which its sessions are told from those of others.
    number: u32,
    authority: String,
    /// Sessions in it.
    share: usize,
    next: u32,
    streams: Vec<Stream>,
    /// The start of a frame.
    inbox: Vec<u8>,
    /// Of a new stream, once the proxy has told it.
    first_window: Option<u32>,
    window: i64,
    taken: u32,
}

impl Http2 {
    /// One that is to hold `share` sessions; what it begins with is written to `out`.
    pub(super) fn new(number: u32, authority: &str, share: usize, out: &mut Vec<u8>) -> Self {
        frame::begin(out, STREAM_WINDOW, CONNECTION_WINDOW);
        Self {
            number,
            authority: authority.to_owned(),
            share,
            next: 1,
            streams: Vec::new(),
            inbox: Vec::new(),
            first_window: None,
            window: frame::WINDOW.into(),
            taken: 0,
        }
    }

    /// Takes what came, writes what follows from it to `out`, and adds to `progress` what came of it.
    pub(super) fn take(
        &mut self,
        received: &[u8],
        script: &Script,
        out: &mut Vec<u8>,
        latencies: &mut Vec<Duration>,
        progress: &mut Progress,
    ) -> Result<()> {
        let mut inbox = std::mem::take(&mut self.inbox);
        let whole = conn::whole(&mut inbox, received);
        let mut at = 0;
        while let Some((frame, length)) = Frame::parse(&whole[at..])? {
            at += length;
            match frame {
                Frame::Data {
                    stream,
                    payload,
                    taken,
                    is_last,
                } => {
                    self.account(taken, out);
                    if let Some(at) = self.find(stream) {
                        let stream = &mut self.streams[at];
                        let (session, outbox) = (&mut stream.session, &mut stream.outbox);
                        let heard = session.take(payload, script, outbox, latencies)?;
                        progress.echoes += heard.echoes;
                        stream.is_closed |= heard.is_closed;
                        stream.account(taken, out);
                        self.flush(at, out);
                        if is_last {
                            self.end(at, progress)?;
                        }
                    }
                }
                Frame::Settings(told) => self.settle(told, out)?,
                frame => self.control(frame, script, out, progress)?,
            }
        }
        conn::keep(&mut inbox, received, at);
        self.inbox = inbox;
        self.replace_ended(out);
        Ok(())
    }

    /// Takes what the proxy says of itself. It may do so again.
    fn settle(&mut self, told: Settings, out: &mut Vec<u8>) -> Result<()> {
        frame::acknowledge_settings(out);
        let before = self.first_window;
        let now = told.initial_window.or(before).unwrap_or(frame::WINDOW);
        self.first_window = Some(now);
        if let Some(before) = before {
            let more = i64::from(now) - i64::from(before);
            self.streams.iter_mut().for_each(|one| one.window += more);
            self.flush_all(out);
        } else {
            // RFC 8441 section 3: nobody asks before it is told.
            ensure!(told.has_connect, "HTTP/2 without extended CONNECT");
            (0..self.share).for_each(|_| self.ask(out));
        }
        Ok(())
    }

    /// As [`Stream::account`], for all streams together.
    fn account(&mut self, taken: u32, out: &mut Vec<u8>) {
        self.taken += taken;
        if self.taken >= CONNECTION_WINDOW / 2 {
            frame::window_update(out, 0, std::mem::take(&mut self.taken));
        }
    }

    /// Whatever carries no bytes of a session.
    fn control(
        &mut self,
        frame: Frame<'_>,
        script: &Script,
        out: &mut Vec<u8>,
        progress: &mut Progress,
    ) -> Result<()> {
        match frame {
            Frame::Head {
                stream,
                block,
                is_last,
            } => {
                let Some(at) = self.find(stream) else {
                    return Ok(());
                };
                let stream = &mut self.streams[at];
                if !std::mem::replace(&mut stream.is_open, true) {
                    ensure!(frame::is_ok(block), "extended CONNECT was refused");
                    progress.opened += 1;
                    stream.session.begin(script, &mut stream.outbox);
                    self.flush(at, out);
                }
                if is_last {
                    self.end(at, progress)?;
                }
            }
            Frame::Window { stream: 0, more } => {
                self.window += i64::from(more);
                self.flush_all(out);
            }
            Frame::Window { stream, more } => {
                if let Some(at) = self.find(stream) {
                    self.streams[at].window += i64::from(more);
                    self.flush(at, out);
                }
            }
            Frame::Reset { stream, code } => {
                if let Some(at) = self.find(stream) {
                    let is_closed = self.streams[at].is_closed;
                    ensure!(is_closed, "a session's stream was reset, code {code}");
                    if !self.streams[at].is_ended {
                        self.end(at, progress)?;
                    }
                    // There is no other half to end.
                    self.streams.swap_remove(at);
                    self.ask(out);
                }
            }
            Frame::GoAway { code } => bail!("the proxy ended a connection of HTTP/2, code {code}"),
            Frame::Ping(payload) => frame::acknowledge_ping(out, payload),
            Frame::Data { .. } | Frame::Settings(_) | Frame::Other => {}
        }
        Ok(())
    }

    fn find(&self, id: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.id == id)
    }

    /// Asks for one more session.
    fn ask(&mut self, out: &mut Vec<u8>) {
        let id = self.next;
        self.next += 2;
        frame::connect(out, id, &self.authority);
        self.streams.push(Stream {
            id,
            // Few connections are open at the same time.
            session: Session::new(self.number << 24 | id >> 1 & 0x00ff_ffff),
            is_open: false,
            is_closed: false,
            is_ended: false,
            window: self.first_window.unwrap_or(frame::WINDOW).into(),
            outbox: Vec::new(),
            taken: 0,
        });
    }

    /// The proxy has ended a stream, as a server does first (RFC 6455 section 7.1.1).
    fn end(&mut self, at: usize, progress: &mut Progress) -> Result<()> {
        let stream = &mut self.streams[at];
        ensure!(stream.is_closed, "the proxy ended a session");
        stream.is_ended = true;
        progress.ended += 1;
        Ok(())
    }

    /// Ends our half of streams that the proxy has ended and not reset, and asks for others in their place.
    fn replace_ended(&mut self, out: &mut Vec<u8>) {
        while let Some(at) = self.streams.iter().position(|stream| stream.is_ended) {
            frame::end(out, self.streams.swap_remove(at).id);
            self.ask(out);
        }
    }

    /// Sends of what waits in a stream as much as may be sent.
    fn flush(&mut self, at: usize, out: &mut Vec<u8>) {
        let stream = &mut self.streams[at];
        let room = stream.window.min(self.window);
        let length = usize::try_from(room).unwrap_or_default();
        let length = length.min(stream.outbox.len());
        frame::data(out, stream.id, &stream.outbox[..length]);
        stream.outbox.drain(..length);
        // It is at most what was there.
        let sent = i64::try_from(length).unwrap_or_default();
        stream.window -= sent;
        self.window -= sent;
    }

    fn flush_all(&mut self, out: &mut Vec<u8>) {
        (0..self.streams.len()).for_each(|at| self.flush(at, out));
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::Doing;
    use super::super::wire::{self, Messages};
    use super::*;

    /// The generator's side, whose output is taken apart into frames.
    struct Bench {
        http2: Http2,
        script: Script,
        progress: Progress,
    }

    impl Bench {
        fn new(doing: Doing) -> Self {
            Self {
                http2: Http2::new(1, "host", 1, &mut Vec::new()),
                script: Script {
                    doing,
                    messages: Messages::new(64),
                },
                progress: Progress::default(),
            }
        }

        /// What it sends in streams when this comes, and whether it ends one.
        fn take(&mut self, bytes: &[u8]) -> Result<(Vec<u8>, bool)> {
            let (mut out, mut latencies) = (Vec::new(), Vec::new());
            let progress = &mut self.progress;
            self.http2
                .take(bytes, &self.script, &mut out, &mut latencies, progress)?;
            let (mut sent, mut is_ended, mut at) = (Vec::new(), false, 0);
            while let Some((frame, length)) = Frame::parse(&out[at..])? {
                at += length;
                if let Frame::Data {
                    payload, is_last, ..
                } = frame
                {
                    sent.extend(payload);
                    is_ended |= is_last;
                }
            }
            Ok((sent, is_ended))
        }
    }

    /// Streams may send ten bytes; extended CONNECT is there.
    const SETTINGS: [u8; 21] = [
        0, 0, 12, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 10, 0, 8, 0, 0, 0, 1,
    ];
    /// 200 for the first stream.
    const ACCEPTED: [u8; 10] = [0, 0, 1, 1, 4, 0, 0, 0, 1, 0x88];

    fn echo(message: &[u8]) -> Vec<u8> {
        let frame = wire::Frame::parse(message).unwrap().unwrap();
        let mut answer = Vec::new();
        frame.answer(&mut answer).unwrap();
        let mut bytes = Vec::new();
        frame::data(&mut bytes, 1, &answer);
        bytes
    }

    #[test]
    fn no_more_is_sent_than_the_proxy_lets() {
        let mut bench = Bench::new(Doing::Closed(1));
        assert!(bench.take(&SETTINGS).unwrap().0.is_empty());
        let (mut message, _) = bench.take(&ACCEPTED).unwrap();
        assert_eq!((message.len(), bench.progress.opened), (10, 1));
        let mut more = Vec::new();
        frame::window_update(&mut more, 1, 100);
        message.extend(bench.take(&more).unwrap().0);
        // The answer lets the next one begin, for which there are 40 bytes of the window left.
        let (next, _) = bench.take(&echo(&message)).unwrap();
        assert_eq!(bench.progress.echoes, 1);
        assert_eq!(message.len() + next.len(), 110);
    }

    #[test]
    fn a_stream_ends_after_the_proxy_s_half_and_another_begins() {
        let mut bench = Bench::new(Doing::Churn);
        bench.take(&SETTINGS).unwrap();
        let mut more = Vec::new();
        frame::window_update(&mut more, 1, 1000);
        let opened = [&ACCEPTED[..], &more].concat();
        let (message, _) = bench.take(&opened).unwrap();
        let (close, is_ended) = bench.take(&echo(&message)).unwrap();
        assert!(!is_ended);
        let mut last = echo(&close);
        frame::end(&mut last, 1);
        assert!(bench.take(&last).unwrap().1);
        assert_eq!(bench.progress.ended, 1);
        assert_eq!(bench.http2.streams[0].id, 3);
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_an_error() {
        let mut bench = Bench::new(Doing::Closed(1));
        // Without extended CONNECT.
        assert!(bench.take(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).is_err());
        let mut bench = Bench::new(Doing::Closed(1));
        bench.take(&SETTINGS).unwrap();
        bench.take(&ACCEPTED).unwrap();
        let mut end = Vec::new();
        frame::end(&mut end, 1);
        assert!(bench.take(&end).is_err());
    }
}
