//! Tasks that bring one client after another to an endpoint.
//!
//! What a handshake holds while it is under way takes kilobytes. To make a task with room for them, to move it to its
//! place and to free it again costs more than to read the request, so the task stays and waits for the next client.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use tokio::{net::TcpStream, task::AbortHandle};

use super::Worker;
use crate::{
    live::Route,
    open::{self, Arrival},
    record::Entry,
    stats::{HandshakeResult, ListenerStats},
    stream::Stream,
};

/// Tasks that may wait at once: as many handshakes as are under way in an ordinary moment.
const WAITING: usize = 64;

/// A client whose handshake is to be run.
pub(crate) enum Newcomer {
    /// A connection, and whose it is.
    Connection(TcpStream, SocketAddr),
    /// One of the streams of a connection of HTTP/2.
    Stream(Box<NewStream>),
    /// One whose connection has carried requests that asked for no session, and now asks for one.
    Asking(Box<Asking>),
}

/// A stream of a connection of HTTP/2.
pub(crate) struct NewStream {
    pub(crate) stream: Stream,
    pub(crate) arrival: Arrival,
}

/// A client that asks for a session behind other requests.
pub(crate) struct Asking {
    pub(crate) client: Stream,
    pub(crate) arrival: Arrival,
    /// What it has sent.
    pub(crate) received: Vec<u8>,
    pub(crate) entry: Entry,
}

/// All tasks of a worker for handshakes.
#[derive(Default)]
pub(super) struct Crew {
    members: RefCell<Vec<Rc<Member>>>,
    /// Those of them that wait for a client.
    waiting: RefCell<Vec<Rc<Member>>>,
}

impl Crew {
    /// Handshakes under way.
    pub(super) fn busy(&self) -> usize {
        self.members.borrow().len() - self.waiting.borrow().len()
    }

    /// Ends the handshakes under way on addresses.
    pub(super) fn abort(&self, which: impl Fn(SocketAddr) -> bool) {
        for member in &*self.members.borrow() {
            if member.address.get().is_some_and(&which) {
                member.abort();
            }
        }
    }

    /// Ends the tasks that wait, at their next turn.
    pub(super) fn dismiss(&self) {
        for member in self.waiting.take() {
            member.abort();
        }
    }
}

/// One of the tasks.
#[derive(Default)]
struct Member {
    /// Where it stands among all.
    place: Cell<usize>,
    task: OnceCell<AbortHandle>,
    /// On which address the client came whose handshake is under way.
    address: Cell<Option<SocketAddr>>,
    /// A client that it is to take.
    next: Cell<Option<Handshake>>,
    waker: RefCell<Option<Waker>>,
}

impl Member {
    fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Handshake> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(next);
        }
        // A task's waker does not change.
        self.waker
            .borrow_mut()
            .get_or_insert_with(|| cx.waker().clone());
        Poll::Pending
    }
}

/// A handshake that is to be run, or is, in the books of its worker until it is dropped.
struct Handshake {
    worker: Rc<Worker>,
    route: Arc<Route>,
    newcomer: Newcomer,
    result: Counted,
}

/// The result of a handshake, counted when this is dropped.
struct Counted {
    worker: Rc<Worker>,
    stats: Arc<ListenerStats>,
    result: HandshakeResult,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.stats(&self.stats).handshake(self.result);
    }
}

/// A member at work, who leaves with its task, however that ends.
struct AtWork {
    worker: Rc<Worker>,
    member: Rc<Member>,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut members = self.worker.crew.members.borrow_mut();
        let place = self.member.place.get();
        if members
            .get(place)
            .is_some_and(|it| Rc::ptr_eq(it, &self.member))
        {
            members.swap_remove(place);
            if let Some(moved) = members.get(place) {
                moved.place.set(place);
            }
        }
    }
}

impl Worker {
    /// Runs a handshake, which ends with its listener.
    pub(crate) fn begin(self: &Rc<Self>, route: Arc<Route>, newcomer: Newcomer) {
        let address = route.gate.address;
        let handshake = Handshake {
            worker: Rc::clone(self),
            result: Counted {
                worker: Rc::clone(self),
                stats: Arc::clone(&route.stats),
                result: HandshakeResult::ListenerGone,
            },
            route,
            newcomer,
        };
        let waiting = self.crew.waiting.borrow_mut().pop();
        let member = waiting.unwrap_or_else(|| self.hire());
        member.address.set(Some(address));
        member.next.set(Some(handshake));
        member.wake();
    }

    /// Starts another task.
    fn hire(self: &Rc<Self>) -> Rc<Member> {
        let member = Rc::new(Member::default());
        let mut members = self.crew.members.borrow_mut();
        member.place.set(members.len());
        members.push(Rc::clone(&member));
        drop(members);
        let at_work = AtWork {
            worker: Rc::clone(self),
            member: Rc::clone(&member),
        };
        let task = tokio::task::spawn_local(at_work.run());
        // It is new: nobody else has set it.
        drop(member.task.set(task.abort_handle()));
        member
    }
}

impl AtWork {
    async fn run(self) {
        loop {
            let Handshake {
                worker,
                route,
                newcomer,
                mut result,
            } = std::future::poll_fn(|cx| self.member.poll_next(cx)).await;
            result.result = match newcomer {
                Newcomer::Connection(client, peer) => open::open(worker, route, client, peer).await,
                Newcomer::Stream(new) => {
                    let NewStream { stream, arrival } = *new;
                    open::open_stream(worker, route, stream, arrival).await
                }
                Newcomer::Asking(asking) => {
                    let Asking {
                        client,
                        arrival,
                        received,
                        entry,
                    } = *asking;
                    open::bring(worker, client, arrival, received, entry, None).await
                }
            };
            drop(result);
            self.member.address.set(None);
            let mut waiting = self.worker.crew.waiting.borrow_mut();
            if waiting.len() >= WAITING {
                return;
            }
            waiting.push(Rc::clone(&self.member));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use tokio::{
        net::TcpListener,
        runtime::{Builder, LocalOptions},
        task::yield_now,
        time::timeout,
    };

    use super::*;
    use crate::{
        config::{Balancing, Config, Drain, Heartbeat, Listener, Pool, Upstream},
        limits::Limits,
        live::{Compiler, Shared, State},
        proxy::Patience,
        stats::{Counters, Ledger},
    };

    fn route() -> Arc<Route> {
        let listener = Listener {
            name: "ws".to_owned(),
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            plain_requests: None,
            tls: None,
            routes: Vec::new(),
        };
        let pool = Pool {
            listeners: vec![listener],
            upstreams: vec![Upstream::for_tests("echo", Balancing::RoundRobin)],
            heartbeat: Heartbeat {
                interval: Duration::ZERO,
                timeout: Duration::ZERO,
            },
            drain: Drain {
                timeout: Duration::ZERO,
                sessions_per_second: None,
                close_code: 1001,
            },
            access_log: None,
            limits: Limits::default(),
        };
        let config = Config {
            pools: BTreeMap::from([("chat".to_owned(), pool)]),
        };
        let (state, _) = Compiler::new(1).compile(&config, &State::default(), &Ledger::new(1));
        Arc::clone(state.routes.values().next().unwrap())
    }

    #[test]
    fn a_task_takes_one_client_after_another_and_no_more_stay_than_may_wait() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default());
        let run = async {
            let shared = Shared::new(1, None, None, Patience::default(), Arc::default());
            let worker = Rc::new(Worker::new(0, Arc::new(shared), None));
            let (crew, route) = (&worker.crew, route());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let begin = async || {
                let client = TcpStream::connect(address).await.unwrap();
                let (ours, peer) = listener.accept().await.unwrap();
                worker.begin(Arc::clone(&route), Newcomer::Connection(ours, peer));
                client
            };
            let until = async |busy, members| {
                while (crew.busy(), crew.members.borrow().len()) != (busy, members) {
                    yield_now().await;
                }
            };
            for _ in 0..3 {
                let client = begin().await;
                until(1, 1).await;
                drop(client);
                until(0, 1).await;
            }
            let mut crowd = Vec::new();
            for _ in 0..WAITING + 9 {
                crowd.push(begin().await);
            }
            until(WAITING + 9, WAITING + 9).await;
            drop(crowd);
            until(0, WAITING).await;
            let _client = begin().await;
            until(1, WAITING).await;
            crew.abort(|of| of != route.gate.address);
            yield_now().await;
            until(1, WAITING).await;
            crew.abort(|of| of == route.gate.address);
            until(0, WAITING - 1).await;
            crew.dismiss();
            until(0, 0).await;
            let mut counters = Counters::default();
            route.stats.add_to(&mut counters);
            counters
        };
        let counters = runtime
            .unwrap()
            .block_on(async { timeout(Duration::from_secs(20), run).await })
            .unwrap();
        let gone = WAITING as u64 + 12;
        assert_eq!(counters.handshakes(HandshakeResult::ClientGone), gone);
        assert_eq!(counters.handshakes(HandshakeResult::ListenerGone), 1);
    }
}
