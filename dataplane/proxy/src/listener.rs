//! Accepts clients on one socket, for as long as the worker has it open.

use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use socket2::{SockRef, Socket};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{
    handshake::Reject,
    live::Gate,
    open, sys,
    worker::{Newcomer, Worker},
};

/// Pause after an error of `accept`, so that one that stays does not take the whole thread.
const PAUSE: Duration = Duration::from_millis(20);

/// Pause before it is looked whether descriptors are there again.
const RECOVERED: Duration = Duration::from_secs(2);

/// Starts to accept; `None`: the socket cannot be used.
pub(crate) fn open(
    worker: &Rc<Worker>,
    gate: Arc<Gate>,
    socket: StdListener,
) -> Option<AbortHandle> {
    let prepared = prepare(&socket)
        .and_then(|()| socket.set_nonblocking(true))
        .and_then(|()| TcpListener::from_std(socket));
    match prepared {
        Ok(listener) => {
            let mut acceptor = Acceptor::new(Rc::clone(worker), gate);
            let task = tokio::task::spawn_local(async move {
                acceptor.run(&listener).await;
            });
            Some(task.abort_handle())
        }
        Err(error) => {
            tracing::error!(address = %gate.address, %error, "cannot use a listening socket");
            None
        }
    }
}

/// Sets what accepted sockets inherit, rather than once for each of them.
fn prepare(socket: &StdListener) -> io::Result<()> {
    sys::accept_with_data(socket)?;
    SockRef::from(socket).set_tcp_nodelay(true)
}

struct Acceptor {
    worker: Rc<Worker>,
    gate: Arc<Gate>,
    /// A descriptor kept to be given up: with it a client can be told when there is no other left.
    spare: Option<Socket>,
    /// When a lack of descriptors was seen last, while there is one.
    starved: Option<Instant>,
}

impl Acceptor {
    fn new(worker: Rc<Worker>, gate: Arc<Gate>) -> Self {
        Self {
            worker,
            gate,
            spare: spare(),
            starved: None,
        }
    }

    async fn run(&mut self, listener: &TcpListener) {
        loop {
            if self.spare.is_none() {
                // Before the next client gets it: with the spare all clients can be told.
                self.spare = spare();
            }
            let accept = listener.accept();
            let accepted = if self.starved.is_none() {
                accept.await
            } else if let Ok(accepted) = timeout(RECOVERED, accept).await {
                accepted
            } else {
                self.recover();
                continue;
            };
            match accepted {
                Ok((client, peer)) => {
                    self.take(client, peer);
                    if self.starved.is_some_and(|at| at.elapsed() > RECOVERED) {
                        self.recover();
                    }
                }
                Err(error) => self.survive(&error, listener).await,
            }
        }
    }

    fn take(&self, client: TcpStream, peer: SocketAddr) {
        let Some(route) = self.worker.route(self.gate.address) else {
            // Removed, and this task is about to be told.
            return;
        };
        self.worker.stats(&route.stats).accepted.add(1);
        self.worker.begin(route, Newcomer::Connection(client, peer));
    }

    /// `accept` also tells of errors of the connection that it would have given (accept(2)); the
    /// next one may be good.
    async fn survive(&mut self, error: &io::Error, listener: &TcpListener) {
        if !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            tracing::debug!(address = %self.gate.address, %error, "a connection was lost before it was accepted");
            if !matches!(
                error.kind(),
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
            ) {
                sleep(PAUSE).await;
            }
            return;
        }
        if self.starved.replace(Instant::now()).is_none() {
            tracing::warn!(address = %self.gate.address, "no file descriptors are left");
            self.worker.shared.gate_starves(&self.gate, true);
        }
        // Sooner than one of the clients that come, one goes that wants nothing.
        if !self.worker.make_room() {
            self.shed(listener).await;
        }
        sleep(PAUSE).await;
    }

    /// Answers one client 503 with the spare descriptor, or closes its connection.
    ///
    /// Never waits while the spare is given up: the kernel says that there are no descriptors before
    /// it looks whether a client is there, and any other thread would take the one that is free.
    async fn shed(&mut self, listener: &TcpListener) {
        if self.spare.take().is_some()
            && let Poll::Ready(Ok((client, _))) =
                poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await
        {
            let route = self.worker.route(self.gate.address);
            if let Some(route) = &route {
                self.worker.stats(&route.stats).shed.add(1);
            }
            // A client that speaks TLS could not read it.
            if route.is_none_or(|route| route.tls.is_none()) {
                open::turn_away(&client, Reject::Unavailable);
            }
        }
        self.spare = spare();
    }

    /// The lack is over once there is more than the spare.
    fn recover(&mut self) {
        if self.spare.is_some() && spare().is_some() {
            self.starved = None;
            self.worker.shared.gate_starves(&self.gate, false);
        } else {
            self.starved = Some(Instant::now());
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        if self.starved.is_some() {
            self.worker.shared.gate_starves(&self.gate, false);
        }
    }
}

fn spare() -> Option<Socket> {
    // Of a kind that a confined proxy may open.
    Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()
}
