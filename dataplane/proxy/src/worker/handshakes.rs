//! What ends with its listener: handshakes under way, and connections of several sessions.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

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
        for (address, closing) in self.connections.borrow().values() {
            if which(*address) {
                closing.notify_one();
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
        let closing = Rc::new(Notify::new());
        let watched = (address, Rc::clone(&closing));
        self.connections.borrow_mut().insert(id, watched);
        Closing {
            worker: Rc::clone(self),
            id,
            told: closing,
        }
    }
}

/// Whether the listener of a connection was closed, or its address lost, since it came.
pub(crate) struct Closing {
    worker: Rc<Worker>,
    id: u64,
    told: Rc<Notify>,
}

impl Closing {
    /// Ends when it is.
    pub(crate) async fn told(&self) {
        self.told.notified().await;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        self.worker.connections.borrow_mut().remove(&self.id);
    }
}
