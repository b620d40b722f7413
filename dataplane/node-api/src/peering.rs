//! How the nodes of a virtual router reach each other, and how they know each other in version 2.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

/// Where advertisements go and whence they are taken.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Peering {
    /// The group of the standard (RFC 9568 sections 5.1.1.2 and 5.1.2.2).
    #[default]
    Multicast,
    /// Each router by itself.
    Unicast {
        /// All routers of the virtual router, this node among them: the one of these addresses that its
        /// interface has is its own, and is what it sends from.
        addresses: Vec<IpAddr>,
    },
}

impl Peering {
    /// Whether it is that of the standard.
    pub fn is_multicast(&self) -> bool {
        *self == Self::Multicast
    }

    /// The routers that are listed; `None`: it is not by list.
    pub fn unicast(&self) -> Option<&[IpAddr]> {
        match self {
            Self::Multicast => None,
            Self::Unicast { addresses } => Some(addresses),
        }
    }
}

/// The password of a virtual router of version 2: one to eight printable characters of ASCII, which are
/// never shown.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}
