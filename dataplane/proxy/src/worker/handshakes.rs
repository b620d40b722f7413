//! What ends with its listener: handshakes under way, and connections of several sessions.

use std::{
    cell::{Cell, OnceCell},
    net::SocketAddr,
    rc::{Rc, Weak},
    sync::Arc,
};

use tokio::sync::Notify;

use super::Worker;
use crate::{live::Route, tls::ServerTls};

impl Worker {
    pub(crate) fn close_listeners(&self, which: impl Fn(SocketAddr) -> bool) {
        self.listeners.borrow_mut().retain(|address, tasks| {
            if which(*address) {
                for task in tasks {
                    task.abort();
                }
                return false;
            }
            true
        });
        self.crew.abort(&which);
        self.close_connections(which);
    }

    /// Connections of several sessions are told that they get no more.
    pub(super) fn close_connections(&self, which: impl Fn(SocketAddr) -> bool) {
        for connection in self.connections.borrow().values() {
            if which(connection.address) {
                connection.close();
            }
        }
        self.close_requests(which);
    }

    /// The listener at `address`, if its clients that offer HTTP/2 get it now.
    pub(crate) fn http2_route(&self, address: SocketAddr) -> Option<Arc<Route>> {
        let offers = |route: &Arc<Route>| route.tls.as_ref().is_some_and(ServerTls::offers_http2);
        self.route(address).filter(offers)
    }

    /// What a connection of several sessions learns from that no more of them are to begin.
    pub(crate) fn watch_closing(self: &Rc<Self>, address: SocketAddr) -> Closing {
        let id = self.next_id();
        let connection = Rc::new(Connection {
            address,
            closing: Notify::new(),
            is_told: Cell::new(false),
            held: OnceCell::new(),
        });
        let watched = Rc::clone(&connection);
        self.connections.borrow_mut().insert(id, watched);
        Closing {
            worker: Rc::clone(self),
            id,
            connection,
        }
    }
}

/// A connection of several sessions.
pub(super) struct Connection {
    address: SocketAddr,
    closing: Notify,
    /// It was told that it gets no more of them.
    is_told: Cell<bool>,
    /// What it has in common with its streams, once it has had one.
    held: OnceCell<Weak<Cell<u32>>>,
}

impl Connection {
    fn close(&self) {
        self.is_told.set(true);
        self.closing.notify_one();
    }

    /// Has it end as others need its descriptor, if it has had streams and has none; returns whether it was not to
    /// end before.
    pub(super) fn give_way(&self) -> bool {
        let waits = self.held.get().is_some_and(|held| held.strong_count() == 1);
        let gives_way = waits && !self.is_told.get();
        if gives_way {
            self.close();
        }
        gives_way
    }
}

/// Whether a connection is to carry no more sessions: its listener was closed, its address lost, or its descriptor
/// is needed.
pub(crate) struct Closing {
    worker: Rc<Worker>,
    id: u64,
    connection: Rc<Connection>,
}

impl Closing {
    /// Ends when it is so.
    pub(crate) async fn told(&self) {
        self.connection.closing.notified().await;
    }

    /// The connection has had a stream. Each of them holds this while it lives, as the connection does.
    pub(crate) fn begun(&self, held: &Rc<Cell<u32>>) {
        self.connection.held.get_or_init(|| Rc::downgrade(held));
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(&self.id);
    }
}
