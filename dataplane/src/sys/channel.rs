//! Messages with descriptors over a Unix stream socket.
//!
//! A message is two little-endian `u32` (length of the JSON text, number of descriptors), the text,
//! and then one byte for each batch of descriptors, which carries them (`SCM_RIGHTS`). The kernel
//! takes 253 descriptors in one batch at most.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recv, recvmsg, sendmsg, sockopt,
    },
};
use serde::{Serialize, de::DeserializeOwned};

const BATCH: usize = 200;
/// Larger messages are refused by the receiver: nothing we send comes near it.
const LONGEST: u32 = 64 << 20;
/// More descriptors in one message than any host has listeners.
const MOST_DESCRIPTORS: u32 = 65_536;

/// One end of a connection between two processes of the host.
#[derive(Debug)]
pub struct Channel(UnixStream);

/// Who is at the other end, as the kernel knows it (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Process id at the time of connecting.
    pub pid: i32,
    /// User id at the time of connecting.
    pub uid: u32,
}

impl Channel {
    /// Wraps a connected socket. A send that cannot make progress for `patience` fails: the other
    /// side hangs and must not hang us.
    pub fn new(socket: UnixStream, patience: Duration) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Self(socket))
    }

    /// Two connected ends.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        UnixStream::pair()
    }

    /// A second handle, so that one thread can receive while another sends.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The process at the other end.
    pub fn peer(&self) -> io::Result<Peer> {
        peer_of(&self.0)
    }

    /// Whether neither side has closed it. What was sent and not yet received counts as open.
    pub fn is_open(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match recv(self.0.as_raw_fd(), &mut [0], flags) {
            Ok(length) => length > 0,
            Err(error) => matches!(error, Errno::EAGAIN | Errno::EINTR),
        }
    }

    /// Ends the connection for both sides; wakes a receiver on a clone.
    pub fn shutdown(&self) {
        // Already closed is what we want.
        drop(self.0.shutdown(std::net::Shutdown::Both));
    }

    /// Sends one message with its descriptors.
    pub fn send<M: Serialize>(&self, message: &M, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let length = u32::try_from(text.len()).map_err(too_large)?;
        let count = u32::try_from(fds.len()).map_err(too_large)?;
        let mut frame = Vec::with_capacity(8 + text.len());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&count.to_le_bytes());
        frame.extend_from_slice(&text);
        (&self.0).write_all(&frame)?;
        for batch in fds.chunks(BATCH) {
            let raw: Vec<RawFd> = batch.iter().map(AsRawFd::as_raw_fd).collect();
            sendmsg::<()>(
                self.0.as_raw_fd(),
                &[IoSlice::new(b"F")],
                &[ControlMessage::ScmRights(&raw)],
                MsgFlags::MSG_NOSIGNAL,
                None,
            )?;
        }
        Ok(())
    }

    /// Waits for the next message. `None`: the other side closed or ended.
    pub fn receive<M: DeserializeOwned>(&self) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        self.receive_at_most(LONGEST, MOST_DESCRIPTORS)
    }

    /// The same from a side that is not trusted: refuses a text of more than `longest` bytes and more
    /// than `most` descriptors.
    pub fn receive_at_most<M: DeserializeOwned>(
        &self,
        longest: u32,
        most: u32,
    ) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
        let mut header = [[0; 4]; 2];
        match (&self.0).read_exact(header.as_flattened_mut()) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let [length, count] = header.map(u32::from_le_bytes);
        if length > longest || count > most {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "message too large",
            ));
        }
        let mut text = vec![0; length as usize];
        (&self.0).read_exact(&mut text)?;
        let mut fds = Vec::new();
        while fds.len() < count as usize {
            self.receive_batch(&mut fds)?;
        }
        Ok(Some((serde_json::from_slice(&text)?, fds)))
    }

    fn receive_batch(&self, fds: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut byte = [0];
        let mut space = nix::cmsg_space!([RawFd; BATCH]);
        let mut parts = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let before = fds.len();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel just opened these for us and nobody else knows them.
                fds.extend(
                    raw.into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        if received.bytes == 0 || fds.len() == before {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "descriptors are missing: closed early, or this process has no descriptor left",
            ));
        }
        Ok(())
    }
}

/// The process at the other end of a Unix socket: who connected, or who listens.
pub(super) fn peer_of(socket: &impl AsFd) -> io::Result<Peer> {
    let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok(Peer {
        pid: credentials.pid(),
        uid: credentials.uid(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_refused_before_it_is_read() {
        let (left, right) = Channel::pair().unwrap();
        let left = Channel::new(left, Duration::from_secs(5)).unwrap();
        let right = Channel::new(right, Duration::from_secs(5)).unwrap();
        left.send(&"12345678", &[]).unwrap();
        let received = right.receive_at_most::<String>(10, 0).unwrap();
        assert_eq!(received.unwrap().0, "12345678");
        left.send(&"123456789", &[]).unwrap();
        assert!(right.receive_at_most::<String>(10, 0).is_err());

        let (left, right) = Channel::pair().unwrap();
        let left = Channel::new(left, Duration::from_secs(5)).unwrap();
        let right = Channel::new(right, Duration::from_secs(5)).unwrap();
        left.send(&"", &[io::stdin().as_fd()]).unwrap();
        assert!(right.receive_at_most::<String>(10, 0).is_err());
    }

    #[test]
    fn messages_keep_their_order_and_their_descriptors() {
        let (left, right) = Channel::pair().unwrap();
        let left = Channel::new(left, Duration::from_secs(5)).unwrap();
        let right = Channel::new(right, Duration::from_secs(5)).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let many = vec![null.as_fd(); 450];
        let sender = std::thread::spawn(move || {
            let null = std::fs::File::open("/dev/null").unwrap();
            left.send(&"first", &[]).unwrap();
            left.send(&"second", &vec![null.as_fd(); 450]).unwrap();
            left.send(&"third", &[null.as_fd()]).unwrap();
        });
        let counts: Vec<_> = std::iter::from_fn(|| right.receive::<String>().unwrap())
            .map(|(text, fds)| (text, fds.len()))
            .collect();
        sender.join().unwrap();
        assert_eq!(many.len(), 450);
        assert_eq!(
            counts,
            [
                ("first".to_owned(), 0),
                ("second".to_owned(), 450),
                ("third".to_owned(), 1)
            ]
        );
    }
}
