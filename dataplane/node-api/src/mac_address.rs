//! Which hardware address a virtual router has.

use serde::{Deserialize, Serialize};

/// The hardware address at which neighbours find the virtual addresses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum MacAddress {
    /// That of the node's interface: a takeover is announced, and neighbours learn anew.
    #[default]
    Interface,
    /// That of the virtual router (RFC 9568 section 7.3), the same on every node.
    VirtualRouter,
}

impl MacAddress {
    /// Whether it is what a side means that does not know of the choice.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
