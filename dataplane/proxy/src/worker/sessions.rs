//! Sessions from the handshake to their end, and what their address does meanwhile.

use std::{collections::hash_map::Entry, io, net::IpAddr, rc::Rc, sync::Arc, time::Instant};

use super::Worker;
use crate::{
    relay::Session,
    session::{Control, End},
    stats::{CodeClass, Ended},
    stream::Stream,
};

impl Worker {
    pub(super) fn address_held(&self, address: IpAddr, held: bool) {
        let now = Instant::now();
        if held {
            self.lost.borrow_mut().remove(&address);
        } else if let Entry::Vacant(lost) = self.lost.borrow_mut().entry(address) {
            lost.insert(now);
            // Clients that cannot be reached never end them.
            self.close_connections(|at| at.ip() == address);
        }
        self.requests_held(address, held);
        for control in self.sessions.borrow().values() {
            if control.gate.address.ip() != address {
                continue;
            }
            let lost = control.lost_at.get();
            if held == lost.is_some() {
                control.lost_at.set((!held).then_some(now));
                control.revise();
            }
        }
    }

    /// Has a connection that is to be in a session from now on read by the ring, where there is one. One
    /// with TLS stays as it is.
    pub(crate) fn by_ring(&self, stream: Stream) -> io::Result<Stream> {
        match (stream, &self.ring) {
            (Stream::Tcp(tcp, None), Some(ring)) if ring.serves() => Ok(ring.adopt(tcp)?.into()),
            (stream, _) => Ok(stream),
        }
    }

    /// Takes a session in, whose client came at `begun`; it runs until it is over.
    pub(crate) fn adopt(self: &Rc<Self>, control: &Rc<Control>, session: Session, begun: Instant) {
        self.stats(&control.stats).opened.add(1);
        self.sessions
            .borrow_mut()
            .insert(control.id, Rc::clone(control));
        // While the handshake was under way the configuration may have changed.
        let pool = Arc::clone(&control.pool.borrow());
        match self.route(control.gate.address) {
            Some(route) if route.pool.name == pool.name => {
                *control.pool.borrow_mut() = Arc::clone(&route.pool);
                self.set_age(control, route.pool.limits.session_age);
                if !control.lease.endpoint.keeps_sessions() {
                    control.drain_at.set(Some(Instant::now()));
                }
            }
            _ => control.end(End::listener_gone(&pool)),
        }
        // One that came later has come by an address that is there again.
        let lost = self.lost.borrow().get(&control.gate.address.ip()).copied();
        control.lost_at.set(lost.filter(|lost| *lost >= begun));
        control.due.set(true);
        self.runner.start(|waker| {
            session.attach(waker);
            session
        });
    }

    /// A session is over.
    pub(crate) fn forget(&self, control: &Control, by: Ended, class: CodeClass) {
        self.clear_timer(control);
        self.sessions.borrow_mut().remove(&control.id);
        let stats = self.stats(&control.stats);
        stats.closed.add(1);
        stats.ended(by, class);
        self.endpoint_stats(&control.lease.endpoint).ended(by);
    }
}
