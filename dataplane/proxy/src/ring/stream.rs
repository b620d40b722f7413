//! A socket of a ring, as the relay reads and writes it.

use std::{
    fmt, io,
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    task::{Context, Poll},
};

use tokio::io::ReadBuf;

use super::{Reactor, socket::Socket};

/// A TCP connection. What is written goes to the kernel at once.
pub(crate) struct RingStream {
    reactor: Rc<Reactor>,
    number: u32,
    tcp: TcpStream,
}

impl fmt::Debug for RingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingStream")
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}

impl RingStream {
    pub(super) fn new(reactor: Rc<Reactor>, number: u32, tcp: TcpStream) -> Self {
        Self {
            reactor,
            number,
            tcp,
        }
    }

    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.reactor.with(self.number, |socket, ring| {
            socket.poll_read(ring, &self.tcp, cx, buf)
        });
        read.unwrap_or_else(gone)
    }

    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.reactor.with(self.number, |socket, _| {
            socket.poll_write(&self.tcp, cx, bytes)
        });
        written.unwrap_or_else(gone)
    }

    /// Ends the output.
    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match self.tcp.shutdown(Shutdown::Write) {
            // Its peer has reset it, which reading tells.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            ended => ended,
        }
    }
}

/// A stream has its socket for as long as it lives.
fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsFd for RingStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

impl Drop for RingStream {
    /// The kernel keeps the connection until its operations have ended, which they do in this turn of
    /// the worker.
    fn drop(&mut self) {
        self.reactor.with(self.number, Socket::leave);
    }
}
