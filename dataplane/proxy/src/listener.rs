//! Accepts clients on one socket, for as long as the worker has it open.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{SockRef, Socket};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::{handshake::Reject, observe::ListenerProblem, open, worker::Worker};

/// Pause after an error of `accept`, so that one that stays does not take the whole thread.
const PAUSE: Duration = Duration::from_millis(20);

/// A lack of descriptors counts as over when none was seen for so long.
const RECOVERED: Duration = Duration::from_secs(2);

/// Starts to accept; `None`: the socket cannot be used.
pub(crate) fn open(
    worker: &Rc<Worker>,
    address: SocketAddr,
    socket: StdListener,
) -> Option<AbortHandle> {
    let state = worker.state();
    state.routes.get(&address)?;
    let prepared = prepare(&socket)
        .and_then(|()| socket.set_nonblocking(true))
        .and_then(|()| TcpListener::from_std(socket));
    match prepared {
        Ok(listener) => {
            let worker = Rc::clone(worker);
            let task = tokio::task::spawn_local(async move {
                let mut acceptor = Acceptor::new(worker, address);
                acceptor.run(&listener).await;
            });
            Some(task.abort_handle())
        }
        Err(error) => {
            tracing::error!(%address, %error, "cannot use a listening socket");
            None
        }
    }
}

/// Sets what accepted sockets inherit, rather than once for each of them.
fn prepare(socket: &StdListener) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)
}

struct Acceptor {
    worker: Rc<Worker>,
    address: SocketAddr,
    /// A descriptor kept to be given up: with it a client can be told when there is no other left.
    spare: Option<Socket>,
    starved: Option<Instant>,
}

impl Acceptor {
    fn new(worker: Rc<Worker>, address: SocketAddr) -> Self {
        Self {
            worker,
            address,
            spare: spare(),
            starved: None,
        }
    }

    async fn run(&mut self, listener: &TcpListener) {
        loop {
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
                    if self.starved.is_some_and(|at| at.elapsed() > RECOVERED) {
                        self.recover();
                    }
                    self.take(client, peer);
                }
                Err(error) => self.survive(&error, listener).await,
            }
        }
    }

    fn take(&self, client: TcpStream, peer: SocketAddr) {
        self.worker.stats().accepted.add(1);
        let state = self.worker.state();
        // Without a route the listener is about to be closed.
        if let Some(route) = state.routes.get(&self.address) {
            let handshake = open::open(Rc::clone(&self.worker), Arc::clone(route), client, peer);
            self.worker.begin(self.address, handshake);
        }
    }

    /// `accept` also tells of errors of the connection that it would have given (accept(2)); the
    /// next one may be good.
    async fn survive(&mut self, error: &io::Error, listener: &TcpListener) {
        if !matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
            tracing::debug!(address = %self.address, %error, "a connection was lost before it was accepted");
            if !matches!(
                error.kind(),
                io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
            ) {
                sleep(PAUSE).await;
            }
            return;
        }
        if self.starved.replace(Instant::now()).is_none() {
            tracing::warn!(address = %self.address, "no file descriptors are left");
            self.tell(Some(ListenerProblem::OutOfDescriptors));
        }
        self.shed(listener).await;
        sleep(PAUSE).await;
    }

    /// Answers one client 503 with the spare descriptor.
    async fn shed(&mut self, listener: &TcpListener) {
        if self.spare.take().is_some()
            && let Ok(Ok((client, _))) = timeout(Duration::from_millis(1), listener.accept()).await
        {
            self.worker.stats().shed.add(1);
            open::turn_away(&client, Reject::Unavailable);
        }
        self.spare = spare();
    }

    fn recover(&mut self) {
        self.starved = None;
        self.tell(None);
    }

    fn tell(&self, problem: Option<ListenerProblem>) {
        let state = self.worker.state();
        if let Some(route) = state.routes.get(&self.address) {
            self.worker.shared.gate_is(&route.gate, true, problem);
        }
    }
}

fn spare() -> Option<Socket> {
    // Of a kind that a confined proxy may open.
    Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()
}
