//! A connection in turns. Its reader lets others have theirs: of small frames a few reads are thousands, and the
//! library goes on for as long as there are any. What it writes in a turn goes out together: it writes the head of a
//! frame, its payload and the next frame one by one, and each would be a record of TLS and a call of the kernel.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::{Rc, Weak},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

/// Bytes that are read in one turn.
const TURN: usize = 32 * 1024;

/// Bytes that are gathered before they go out.
const GATHERED: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Turns {
    /// Of which the streams in it ask what its peer has taken.
    stream: Rc<RefCell<Stream>>,
    /// What was read in this one.
    bytes: usize,
    gathered: Gathered,
}

/// What was written in a turn and is to go out at its end.
#[derive(Clone, Debug)]
pub(super) struct Gathered {
    stream: Weak<RefCell<Stream>>,
    /// Empty, and without room, from the end of one turn to the next write.
    bytes: Rc<RefCell<Vec<u8>>>,
}

impl From<Stream> for Turns {
    fn from(stream: Stream) -> Self {
        let stream = Rc::new(RefCell::new(stream));
        let gathered = Gathered {
            stream: Rc::downgrade(&stream),
            bytes: Rc::default(),
        };
        Self {
            stream,
            bytes: 0,
            gathered,
        }
    }
}

impl Turns {
    /// The connection, for as long as there is one.
    pub(super) fn connection(&self) -> Weak<RefCell<Stream>> {
        Rc::downgrade(&self.stream)
    }

    /// What is to be sent at the end of each turn.
    pub(super) fn gathered(&self) -> Gathered {
        self.gathered.clone()
    }
}

impl Gathered {
    /// Goes on with something that the library does, turn by turn, until it is done.
    ///
    /// # Errors
    /// The connection takes no more.
    pub(super) async fn turns<T>(
        &self,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> io::Result<T> {
        poll_fn(|cx| {
            let done = step(cx);
            match self.poll_send(cx) {
                Poll::Ready(Err(error)) if done.is_pending() => Poll::Ready(Err(error)),
                _ => done.map(Ok),
            }
        })
        .await
    }

    fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = self.stream.upgrade() else {
            return Poll::Ready(Ok(()));
        };
        let mut stream = stream.borrow_mut();
        let mut bytes = self.bytes.borrow_mut();
        let mut sent = 0;
        let outcome = loop {
            if sent == bytes.len() {
                break Pin::new(&mut *stream).poll_flush(cx);
            }
            match Pin::new(&mut *stream).poll_write(cx, &bytes[sent..]) {
                Poll::Ready(Ok(n)) => sent += n,
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        if sent == bytes.len() {
            *bytes = Vec::new();
        } else {
            bytes.drain(..sent);
        }
        outcome
    }
}

impl AsyncRead for Turns {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.bytes >= TURN {
            self.bytes = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf);
        match read {
            Poll::Ready(_) => self.bytes += buf.filled().len() - before,
            Poll::Pending => self.bytes = 0,
        }
        read
    }
}

impl AsyncWrite for Turns {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let room = |gathered: &Gathered| GATHERED.saturating_sub(gathered.bytes.borrow().len());
        if room(&self.gathered) == 0 {
            ready!(self.gathered.poll_send(cx))?;
        }
        let n = bytes.len().min(room(&self.gathered));
        let mut gathered = self.gathered.bytes.borrow_mut();
        gathered.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    /// The library flushes after each large frame: that is left to the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.gathered.poll_send(cx))?;
        Pin::new(&mut *self.stream.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn what_is_written_in_a_turn_goes_out_at_its_end_and_the_rest_when_there_is_room() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut peer = TcpStream::connect(address).await.unwrap();
        let (tcp, _) = listener.accept().await.unwrap();
        let mut turns = Turns::from(Stream::from(tcp));
        let gathered = turns.gathered();
        let write = |turns: &mut Turns, cx: &mut Context<'_>, bytes: &[u8]| {
            let written = Pin::new(&mut *turns).poll_write(cx, bytes);
            assert!(Pin::new(turns).poll_flush(cx).is_ready());
            written.map(Result::unwrap)
        };
        let turn = gathered.turns(|cx| {
            assert_eq!(write(&mut turns, cx, b"head, "), Poll::Ready(6));
            assert_eq!(write(&mut turns, cx, b"payload"), Poll::Ready(7));
            let early = peer.try_read(&mut [0; 1]).unwrap_err();
            assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
            Poll::Ready(())
        });
        turn.await.unwrap();
        let mut buffer = [0; 64];
        let n = peer.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..n], b"head, payload");

        // A peer that does not read is not written to without end.
        let mut sent = 0_usize;
        let full = gathered.turns(|cx| {
            while let Poll::Ready(n) = write(&mut turns, cx, &[7; 10_000]) {
                sent += n;
            }
            // The kernel may have taken a part at last.
            assert!((1..=GATHERED).contains(&gathered.bytes.borrow().len()));
            Poll::Ready(())
        });
        full.await.unwrap();
        let reader = tokio::spawn(async move {
            let mut rest = vec![0; sent];
            peer.read_exact(&mut rest).await.unwrap();
            assert!(rest.iter().all(|byte| *byte == 7));
        });
        poll_fn(|cx| gathered.poll_send(cx)).await.unwrap();
        assert_eq!(gathered.bytes.borrow().capacity(), 0);
        reader.await.unwrap();
    }
}
