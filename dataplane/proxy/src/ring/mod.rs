//! Sockets of sessions by `io_uring`, where that was asked for: what comes for all sessions of a worker is
//! read by one call, where epoll takes one for each. All else (accepting, handshakes, TLS, HTTP/2,
//! timers) stays with the event loop, of which this is a guest: a task of the worker, woken by a
//! descriptor of the ring.
//!
//! `queues` is what is shared with the kernel, and the only place with unsafe code; `socket` is what is
//! known of one socket, `stream` is one as the relay sees it; here is when the kernel is asked.

mod queues;
mod socket;
mod stream;

use std::{
    cell::RefCell,
    fmt, io,
    os::fd::{AsRawFd, OwnedFd},
    rc::{Rc, Weak},
    task::{Context, Poll, Waker},
};

use tokio::{io::unix::AsyncFd, net::TcpStream};

pub use self::queues::Ring;
pub(crate) use self::stream::RingStream;
use self::{queues::Completion, socket::Socket};

/// The sockets of a worker, in the order in which they came, with gaps.
pub(crate) struct Reactor(RefCell<Inner>);

struct Inner {
    ring: Ring,
    sockets: Vec<Option<Socket>>,
    /// The gaps.
    free: Vec<u32>,
    /// Sockets about which the kernel is to be asked something, each once.
    asking: Vec<u32>,
    /// The task that asks.
    driver: Option<Waker>,
    /// The kernel has failed us.
    is_broken: bool,
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Reactor {
    /// Begins on the thread of the worker, in its event loop.
    pub(crate) fn begin(mut ring: Ring) -> io::Result<Rc<Self>> {
        let completed = ring.begin()?;
        let reactor = Rc::new(Self(RefCell::new(Inner {
            ring,
            sockets: Vec::new(),
            free: Vec::new(),
            asking: Vec::new(),
            driver: None,
            is_broken: false,
        })));
        tokio::task::spawn_local(drive(Rc::downgrade(&reactor), completed));
        Ok(reactor)
    }

    /// Whether it is of use.
    pub(crate) fn serves(&self) -> bool {
        !self.0.borrow().is_broken
    }

    /// Takes a socket from the event loop.
    pub(crate) fn adopt(self: &Rc<Self>, tcp: TcpStream) -> io::Result<RingStream> {
        let tcp = tcp.into_std()?;
        let socket = Socket::new(tcp.as_raw_fd());
        let inner = &mut *self.0.borrow_mut();
        let number = if let Some(number) = inner.free.pop() {
            number
        } else {
            inner.sockets.push(None);
            u32::try_from(inner.sockets.len() - 1).map_err(io::Error::other)?
        };
        inner.sockets[number as usize] = Some(socket);
        Ok(RingStream::new(Rc::clone(self), number, tcp))
    }

    /// Looks at a socket, and lists it if the kernel is to be asked something about it.
    fn with<T>(&self, number: u32, look: impl FnOnce(&mut Socket, &mut Ring) -> T) -> Option<T> {
        let inner = &mut *self.0.borrow_mut();
        let place = inner.sockets.get_mut(number as usize)?;
        let socket = place.as_mut()?;
        let outcome = look(socket, &mut inner.ring);
        if socket.is_to_be_listed() {
            inner.asking.push(number);
            if let Some(driver) = inner.driver.take() {
                // Behind the sessions whose turn it is, so that one call does for all of them.
                driver.wake();
            }
        }
        inner.forget_if_over(number);
        Some(outcome)
    }

    /// Asks the kernel what is to be asked, and tells sessions what came of it. Whether to do so again
    /// once they had their turn.
    fn turn(&self, driver: &Waker) -> bool {
        let mut inner = self.0.borrow_mut();
        match inner.turn() {
            Ok(false) => {
                if inner.driver.is_none() {
                    inner.driver = Some(driver.clone());
                }
                false
            }
            Ok(true) => true,
            Err(error) => {
                tracing::error!(%error, "the kernel does not serve a ring any more: its sessions end, new ones go by epoll");
                inner.fail(&error);
                false
            }
        }
    }
}

impl Inner {
    fn turn(&mut self) -> io::Result<bool> {
        if self.is_broken {
            return Ok(false);
        }
        while let Some(number) = self.asking.last() {
            if !self.ring.has_room()? {
                break;
            }
            let number = *number;
            self.asking.pop();
            if let Some(Some(socket)) = self.sockets.get_mut(number as usize) {
                socket.ask(number, &mut self.ring)?;
            }
            self.forget_if_over(number);
        }
        if !self.ring.has_work() {
            return Ok(false);
        }
        self.ring.submit()?;
        while let Some(completion) = self.ring.next() {
            self.tell(completion);
        }
        Ok(self.ring.has_work() || !self.asking.is_empty())
    }

    fn tell(&mut self, completion: Completion) {
        let number = completion.stream;
        // A place is kept until nothing is under way, so only of orders to stop there may be nobody to hear.
        let Some(Some(socket)) = self.sockets.get_mut(number as usize) else {
            return;
        };
        socket.completed(completion, &mut self.ring);
        if socket.is_to_be_listed() {
            self.asking.push(number);
        }
        self.forget_if_over(number);
    }

    fn forget_if_over(&mut self, number: u32) {
        let place = self.sockets.get_mut(number as usize);
        if let Some(place) = place.filter(|place| place.as_ref().is_some_and(Socket::is_over)) {
            *place = None;
            self.free.push(number);
            if self.free.len() == self.sockets.len() {
                // What a storm of clients took is given back.
                (self.sockets, self.free) = (Vec::new(), Vec::new());
            }
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.is_broken = true;
        for socket in self.sockets.iter_mut().flatten() {
            socket.fails(error.raw_os_error().unwrap_or(libc::EIO));
        }
    }
}

/// The task of a worker that asks the kernel, until nobody needs it.
async fn drive(reactor: Weak<Reactor>, completed: AsyncFd<OwnedFd>) {
    std::future::poll_fn(|cx| poll(&reactor, &completed, cx)).await;
}

fn poll(reactor: &Weak<Reactor>, completed: &AsyncFd<OwnedFd>, cx: &mut Context<'_>) -> Poll<()> {
    let Some(reactor) = reactor.upgrade() else {
        return Poll::Ready(());
    };
    // First, so that whatever completes from here on is an event of its own. The count of the descriptor
    // is not read: only that it grows is of interest.
    while let Poll::Ready(ready) = completed.poll_read_ready(cx) {
        match ready {
            Ok(mut ready) => ready.clear_ready(),
            Err(_at_its_end) => return Poll::Ready(()),
        }
    }
    if reactor.turn(cx.waker()) {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}

#[cfg(test)]
mod tests;
