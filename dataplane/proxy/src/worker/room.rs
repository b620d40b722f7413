//! Room for new clients where descriptors are short.

use super::Worker;

/// Connections that give up their descriptors at once: enough for those who come meanwhile.
const AT_ONCE: usize = 32;

impl Worker {
    /// Has some of the connections end that wait for another request; returns whether there were any. A server may
    /// end such a connection at any time (RFC 9112 section 9.5, RFC 9113 section 9.1).
    pub(crate) fn make_room(&self) -> bool {
        let (requests, connections) = (self.requests.borrow(), self.connections.borrow());
        let requests = requests.values().map(|told| told.give_way());
        let connections = connections.values().map(|connection| connection.give_way());
        let gave_way = requests.chain(connections).filter(|gave_way| *gave_way);
        gave_way.take(AT_ONCE).count() > 0
    }
}
