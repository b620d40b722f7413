//! A socket in the generator's event loop, with what it did not take yet.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::tls::Tls;

/// What a read brought.
#[derive(Debug)]
pub(super) enum Got {
    Bytes(usize),
    Nothing,
    End,
}

#[derive(Debug)]
pub(super) struct Conn {
    stream: TcpStream,
    /// By which the event loop knows it.
    token: u64,
    outbox: Vec<u8>,
    tls: Option<Box<Tls>>,
}

impl Conn {
    pub(super) fn new(stream: TcpStream, token: u64, epoll: &Epoll) -> Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, token))?;
        Ok(Self {
            stream,
            token,
            outbox: Vec::new(),
            tls: None,
        })
    }

    /// Speaks TLS from the start.
    pub(super) fn over(mut self, tls: Tls) -> Self {
        self.tls = Some(Box::new(tls));
        self
    }

    /// Reads once, to the front of `scratch`.
    pub(super) fn read(&mut self, epoll: &Epoll, scratch: &mut [u8]) -> Result<Got> {
        // Plaintext is shorter, but the start of a record may have come before.
        let from = match &self.tls {
            None => 0,
            Some(_) => scratch.len() / 2 + Tls::RECORD_MAX,
        };
        let (opened, received) = scratch.split_at_mut(from);
        match self.stream.read(received) {
            Ok(0) => Ok(Got::End),
            Ok(length) => match &mut self.tls {
                None => Ok(Got::Bytes(length)),
                Some(tls) => {
                    let length = tls.open(&received[..length], opened)?;
                    // The handshake has answers of its own.
                    self.send(epoll, &[])?;
                    Ok(Got::Bytes(length))
                }
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Got::Nothing),
            // A proxy that was told that its client is gone may reset the other side.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(Got::End),
            Err(error) => Err(error).context("cannot receive"),
        }
    }

    /// Sends `bytes` behind what waits already.
    pub(super) fn send(&mut self, epoll: &Epoll, bytes: &[u8]) -> Result<()> {
        let mut sealed = Vec::new();
        let bytes = match &mut self.tls {
            None => bytes,
            Some(tls) => {
                tls.seal(bytes, &mut sealed)?;
                &sealed
            }
        };
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.outbox.is_empty() {
            self.outbox.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = self.write(bytes)?;
        if sent < bytes.len() {
            self.outbox.extend_from_slice(&bytes[sent..]);
            self.watch(epoll, EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)?;
        }
        Ok(())
    }

    /// Sends what waits.
    pub(super) fn flush(&mut self, epoll: &Epoll) -> Result<()> {
        let waiting = std::mem::take(&mut self.outbox);
        let sent = self.write(&waiting)?;
        self.outbox.extend_from_slice(&waiting[sent..]);
        if self.outbox.is_empty() {
            self.watch(epoll, EpollFlags::EPOLLIN)?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self.stream.write(bytes) {
            Ok(sent) => Ok(sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            // The end of the other direction tells more.
            Err(error) if is_gone(error.kind()) => Ok(bytes.len()),
            Err(error) => Err(error).context("cannot send"),
        }
    }

    fn watch(&self, epoll: &Epoll, flags: EpollFlags) -> Result<()> {
        Ok(epoll.modify(&self.stream, &mut EpollEvent::new(flags, self.token))?)
    }
}

/// `received` behind what was kept in `inbox`, without a copy where nothing was.
pub(super) fn whole<'a>(inbox: &'a mut Vec<u8>, received: &'a [u8]) -> &'a [u8] {
    if inbox.is_empty() {
        return received;
    }
    inbox.extend_from_slice(received);
    inbox
}

/// Keeps in `inbox` what is behind the first `taken` bytes of [`whole`].
pub(super) fn keep(inbox: &mut Vec<u8>, received: &[u8], taken: usize) {
    if inbox.is_empty() {
        inbox.extend_from_slice(&received[taken..]);
    } else {
        inbox.drain(..taken);
    }
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
