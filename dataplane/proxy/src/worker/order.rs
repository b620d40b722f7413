//! What a worker is told, and its thread.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread::{self, JoinHandle},
    time::Instant,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc as orders,
    task::yield_now,
};

use super::Worker;
use crate::{
    endpoint::{self, Endpoint},
    live::{Shared, State},
    proxy::{Beat, LeaveReport},
    ring::{Reactor, Ring},
};

/// What a worker is told.
pub(crate) enum Order {
    /// Serve this.
    Apply {
        state: Arc<State>,
        sockets: Vec<(SocketAddr, TcpListener)>,
        check: Vec<Arc<Endpoint>>,
        /// Addresses of which the worker has opened the socket it was given.
        done: mpsc::Sender<Vec<SocketAddr>>,
    },
    /// Planned stop of addresses.
    Leave {
        addresses: Arc<[IpAddr]>,
        deadline: Instant,
        done: mpsc::Sender<LeaveReport>,
    },
    /// The host holds an address, or does not.
    Held {
        address: IpAddr,
        held: bool,
        done: mpsc::Sender<()>,
    },
    /// End.
    Stop { done: mpsc::Sender<()> },
}

/// Starts a worker's thread.
pub(crate) fn spawn(
    index: usize,
    shared: Arc<Shared>,
    beat: Beat,
    ring: Option<Ring>,
    orders: orders::Receiver<Order>,
) -> io::Result<JoinHandle<()>> {
    let runtime = || {
        Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
    };
    let (started, wait) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(format!("proxy-{index}"))
        .spawn(move || match runtime() {
            Ok(runtime) => {
                runtime.block_on(async {
                    let reactor = ring.and_then(|ring| begin(ring, &shared));
                    drop(started.send(Ok(())));
                    let worker = Rc::new(Worker::new(index, shared, reactor));
                    worker.run(beat, orders).await;
                    worker.end_sessions();
                });
            }
            Err(error) => drop(started.send(Err(error))),
        })?;
    match wait.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(mpsc::RecvError) => Err(io::Error::other("the thread ended at its start")),
    }
}

/// Has sessions served by a ring; where the kernel does not let it, by the event loop.
fn begin(ring: Ring, shared: &Shared) -> Option<Rc<Reactor>> {
    match Reactor::begin(ring) {
        Ok(reactor) => {
            shared.rings.fetch_add(1, Relaxed);
            Some(reactor)
        }
        Err(error) => {
            tracing::warn!(%error, "a worker goes without its ring");
            None
        }
    }
}

impl Worker {
    /// `false`: the worker is to end.
    pub(super) async fn obey(self: &Rc<Self>, order: Order) -> bool {
        match order {
            Order::Apply {
                state,
                sockets,
                check,
                done,
            } => {
                let opened = self.apply(&state, sockets);
                for endpoint in check {
                    endpoint::check(&endpoint, &self.shared);
                }
                if self.index == 0 {
                    self.watches.borrow_mut().follow(&state, &self.shared);
                }
                // Tasks that were aborted give up their sockets at their next turn.
                yield_now().await;
                answer(&done, opened);
            }
            Order::Leave {
                addresses,
                deadline,
                done,
            } => {
                let worker = Rc::clone(self);
                tokio::task::spawn_local(async move {
                    let report = worker.leave(&addresses, deadline).await;
                    answer(&done, report);
                });
            }
            Order::Held {
                address,
                held,
                done,
            } => {
                self.address_held(address, held);
                answer(&done, ());
            }
            Order::Stop { done } => {
                answer(&done, ());
                return false;
            }
        }
        true
    }
}

fn answer<T>(done: &mpsc::Sender<T>, report: T) {
    if done.send(report).is_err() {
        tracing::debug!("nobody waits for the answer to an order any more");
    }
}
