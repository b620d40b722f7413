//! What must hold for any datagram given to the decoders of rtnetlink.

use dataplane::sys::netlink::{Change, said};

/// Bytes of the header of a message: no more messages than that are in a datagram.
const HEADER: usize = 16;

/// A datagram, and the same cut short, in which the messages before the cut say what they said.
pub fn datagram(bytes: &[u8]) {
    let whole = said(bytes);
    assert!(whole.messages <= bytes.len() / HEADER);
    assert!(whole.changes.len() <= whole.messages);
    assert!(whole.unresolved.len() <= whole.messages);
    for change in &whole.changes {
        if let Change::Link(link) = change {
            assert!(!link.name.is_empty() && !link.name.contains('\0'));
        }
    }
    let cut = said(&bytes[..bytes.len() / 2]);
    assert!(cut.messages <= whole.messages);
    assert!(whole.changes.starts_with(&cut.changes));
    assert!(whole.default_routes.starts_with(&cut.default_routes));
    assert!(whole.unresolved.starts_with(&cut.unresolved));
    assert!(whole.errors.starts_with(&cut.errors));
}
