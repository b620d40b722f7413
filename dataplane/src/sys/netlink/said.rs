//! Everything that can be read out of a datagram, in one place: what is fuzzed, and what captures of
//! the kernel's answers are replayed with.

use std::net::IpAddr;

use super::{
    message::{self, Change, NLMSG_ERROR},
    neighbour,
    route::{self, DefaultRoute},
};

/// What a datagram says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Said {
    /// How many messages it holds, whatever they say.
    pub messages: usize,
    /// Of links and addresses.
    pub changes: Vec<Change>,
    /// Of ways out of the on-link networks.
    pub default_routes: Vec<DefaultRoute>,
    /// Of neighbours that have not answered, with the index of the interface.
    pub unresolved: Vec<(u32, IpAddr)>,
    /// Error numbers; zero is an acknowledgement.
    pub errors: Vec<i32>,
}

/// Reads a datagram in every way in which one is read.
pub fn said(datagram: &[u8]) -> Said {
    let mut said = Said::default();
    for message in message::messages(datagram) {
        said.messages += 1;
        said.changes.extend(message.change());
        let routes = route::default_routes(message.kind, message.body);
        said.default_routes.extend(routes);
        if let Some(index) = message::number(message.body, 4)
            && let Some(address) = neighbour::unresolved(&message, index)
        {
            said.unresolved.push((index, address));
        }
        if message.kind == NLMSG_ERROR {
            said.errors.extend(message.error());
        }
    }
    said
}
