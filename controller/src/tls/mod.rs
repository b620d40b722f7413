//! TLS of pools: Secrets of their namespaces in, what nodes are told of them out.
//!
//! [`mod@references`] says which Secrets a pool names, [`material`] what a Secret holds, [`keyring`] puts the
//! two together; [`tickets`] are the keys of session tickets, which [`keeper`] has the replica that leads
//! keep in a Secret. All but the last is pure.
//!
//! What a Secret holds goes to nodes and nowhere else: it has no form for logs, status and events, which
//! name the Secret.

mod keeper;
mod keyring;
mod material;
mod references;
mod tickets;

pub use keeper::Keeper;
pub use keyring::{Keyring, Look, Reader};
pub(crate) use material::lean;
pub use material::{Fault, Reason};
pub use references::{Holder, Reference, SecretName, Use, references};
pub use tickets::Ring;

/// Secret of the ticket keys, in the controller's namespace.
pub const TICKET_KEYS: &str = "wsha-ticket-keys";
