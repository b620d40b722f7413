//! The client's own thread: dials, talks, and notes what it sees.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::seen::{DialFailure, Loss, Seen};
use super::{Log, Timing};
use crate::ws::{self, Decoder, Opcode};

pub(super) struct Worker {
    pub(super) target: SocketAddr,
    pub(super) timing: Timing,
    pub(super) log: Arc<Log>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) sent: u64,
}

impl Worker {
    pub(super) fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.dial() {
                Ok((stream, decoder)) => {
                    self.log.note(Seen::Open);
                    if let Some(loss) = self.talk(stream, decoder) {
                        self.log.note(Seen::Lost(loss));
                    }
                }
                Err(failure) => self.log.note(Seen::DialFailed(failure)),
            }
            thread::sleep(self.timing.redial_after);
        }
    }

    fn dial(&self) -> Result<(TcpStream, Decoder), DialFailure> {
        let mut stream = TcpStream::connect_timeout(&self.target, self.timing.connect_timeout)
            .map_err(|e| dial_failure(&e))?;
        let other = |error: std::io::Error| DialFailure::Other(error.to_string());
        stream.set_nodelay(true).map_err(other)?;
        stream.set_nonblocking(true).map_err(other)?;
        let request = ws::request(&self.target.to_string());
        stream
            .write_all(request.as_bytes())
            .map_err(|_| DialFailure::UpgradeCut)?;
        let deadline = Instant::now() + self.timing.lost_after;
        let mut received = Vec::new();
        let mut buffer = [0_u8; 2048];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Err(DialFailure::UpgradeCut),
                Ok(length) => {
                    received.extend_from_slice(&buffer[..length]);
                    let whole = ws::response(&received)
                        .map_err(|error| DialFailure::Answered(error.to_string()))?;
                    if let Some(end) = whole {
                        let mut decoder = Decoder::default();
                        decoder.push(&received[end..]);
                        return Ok((stream, decoder));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if Instant::now() >= deadline {
                        return Err(DialFailure::UpgradeTimedOut);
                    }
                    readable(&stream, deadline);
                }
                Err(_) => return Err(DialFailure::UpgradeCut),
            }
        }
    }

    /// Talks until the connection is lost; `None` when the probe was stopped.
    fn talk(&mut self, mut stream: TcpStream, mut decoder: Decoder) -> Option<Loss> {
        let mut pending: VecDeque<(u64, Instant)> = VecDeque::new();
        let mut next_send = Instant::now();
        let mut buffer = [0_u8; 4096];
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let now = Instant::now();
            if now >= next_send {
                self.sent += 1;
                if let Err(loss) = send(
                    &mut stream,
                    Opcode::Text,
                    self.sent.to_string().as_bytes(),
                    self.sent,
                ) {
                    return Some(loss);
                }
                pending.push_back((self.sent, now));
                // A late timer does not send twice in a row to catch up.
                next_send =
                    (next_send + self.timing.send_every).max(now + self.timing.send_every / 2);
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Some(Loss::Fin),
                Ok(length) => {
                    decoder.push(&buffer[..length]);
                    if let Err(loss) = self.frames(&mut stream, &mut decoder, &mut pending) {
                        return Some(loss);
                    }
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Some(lost(&error)),
            }
            // Only after the socket was found empty: an echo that waits there is not lost, we were late.
            let lost_at = pending
                .front()
                .map(|(_, sent)| *sent + self.timing.lost_after);
            if lost_at.is_some_and(|lost_at| Instant::now() >= lost_at) {
                return Some(Loss::Silence);
            }
            readable(
                &stream,
                lost_at.map_or(next_send, |lost_at| lost_at.min(next_send)),
            );
        }
    }

    fn frames(
        &self,
        stream: &mut TcpStream,
        decoder: &mut Decoder,
        pending: &mut VecDeque<(u64, Instant)>,
    ) -> Result<(), Loss> {
        let garbled = |error: anyhow::Error| Loss::Garbled(error.to_string());
        while let Some(frame) = decoder.next_frame().map_err(garbled)? {
            match frame.opcode {
                Opcode::Close => {
                    let (code, reason) = frame.close();
                    // The answer to a Close is a courtesy; the connection is over either way.
                    drop(send(
                        stream,
                        Opcode::Close,
                        frame.payload.get(..2).unwrap_or_default(),
                        self.sent,
                    ));
                    return Err(Loss::Close(code, reason));
                }
                Opcode::Ping => send(stream, Opcode::Pong, &frame.payload, self.sent)?,
                Opcode::Text => {
                    let (backend, number) = answer(&frame.payload).ok_or_else(|| {
                        Loss::Garbled(String::from_utf8_lossy(&frame.payload).into_owned())
                    })?;
                    match pending.pop_front() {
                        Some((expected, _)) if expected == number => {
                            self.log.first(&frame.payload);
                            self.log.note(Seen::Echo(backend));
                        }
                        _ => return Err(Loss::Garbled(format!("echo {number} out of order"))),
                    }
                }
                Opcode::Binary | Opcode::Continuation | Opcode::Pong => {}
            }
        }
        Ok(())
    }
}

/// Reads `Server ADDRESS  received from client: NUMBER`, as the article's server answers, or the number alone, as any
/// that repeats what it is sent.
fn answer(payload: &[u8]) -> Option<(Option<Ipv4Addr>, u64)> {
    let text = std::str::from_utf8(payload).ok()?;
    if let Ok(number) = text.parse() {
        return Some((None, number));
    }
    let (server, number) = text
        .strip_prefix("Server ")?
        .split_once("  received from client: ")?;
    Some((server.parse().ok(), number.parse().ok()?))
}

fn send(stream: &mut TcpStream, opcode: Opcode, payload: &[u8], number: u64) -> Result<(), Loss> {
    let mask = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let frame = ws::frame(opcode, payload, [mask[0], mask[1], mask[2], mask[3]])
        .map_err(|error| Loss::Garbled(error.to_string()))?;
    match stream.write(&frame) {
        Ok(length) if length == frame.len() => Ok(()),
        // A probe's few bytes fit unless nothing has been acknowledged for long.
        Ok(_) => Err(Loss::Silence),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Loss::Silence),
        Err(error) => Err(lost(&error)),
    }
}

fn lost(error: &std::io::Error) -> Loss {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Loss::Reset
        }
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Loss::Silence
        }
        _ => Loss::Garbled(error.to_string()),
    }
}

fn dial_failure(error: &std::io::Error) -> DialFailure {
    match error.kind() {
        ErrorKind::ConnectionRefused => DialFailure::Refused,
        ErrorKind::TimedOut => DialFailure::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => DialFailure::Unreachable,
        ErrorKind::ConnectionReset => DialFailure::UpgradeCut,
        _ => DialFailure::Other(error.to_string()),
    }
}

/// Waits until the stream can be read, or `deadline`.
fn readable(stream: &TcpStream, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let mut wanted = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    // Whatever ends the wait, the caller looks again.
    ppoll(&mut wanted, Some(TimeSpec::from_duration(left)), None).ok();
}
