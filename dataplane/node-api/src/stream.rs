//! The control stream: what a controller tells a node and what the node answers.
//!
//! A WebSocket over TLS, one JSON message a text frame. The node dials, a stream to each replica of
//! the controller. A replica tells the whole state once, ends it with [`ToNode::Synced`], and from
//! then on only what changes; equal content is never told twice, since the node says in its
//! [`Hello`] which revisions it has. Nothing here may be lost for good: a reconnect repairs it.
//!
//! Unknown fields are ignored. An unknown kind of message or resource is skipped by whoever does not
//! know it; an unknown value of an enum refuses that resource only ([`ToController::Nack`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::{
    config::{Endpoint, PoolRef},
    report::NodeReport,
};

/// Path of the stream, whatever its version ([`crate::Protocol`]).
pub const PATH: &str = "/v1/stream";

/// Audience of the `ServiceAccount` token in the node's `Authorization: Bearer` header.
pub const AUDIENCE: &str = "wsha.dev/control-stream";

/// How a node names an authority that it trusts, given the certificate's DER form
/// ([`Hello::authorities`]).
pub fn fingerprint(certificate: &[u8]) -> String {
    crate::revision::fingerprint(certificate)
}

/// A thing that is told, acknowledged and refused by itself.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ResourceName {
    /// A pool without its endpoints.
    Pool(PoolRef),
    /// The endpoints of one upstream of a pool.
    Endpoints {
        /// The pool.
        pool: PoolRef,
        /// Name of the upstream.
        upstream: String,
    },
    /// A [`crate::Secret`], by `namespace/name`; told to the nodes of pools that refer to it.
    Secret(String),
    /// The [`crate::TicketKeys`] of a pool.
    TicketKeys(PoolRef),
    /// Of a kind that this version does not know; whatever is told of it is ignored.
    Other(String),
}

/// Which content of a resource is meant: a hash of it, the same on every replica.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Revision(pub String);

/// From controller to node.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum ToNode {
    /// First of all.
    Welcome(Welcome),
    /// The resource has this content now. `body` is a [`crate::Pool`] whose upstreams have no
    /// endpoints, a list of [`Endpoint`], a [`crate::Secret`] or [`crate::TicketKeys`]: decoded by
    /// itself, so that what a node does not understand refuses this resource and no other.
    Upsert {
        /// The resource.
        name: ResourceName,
        /// Of the content.
        revision: Revision,
        /// The content.
        body: Value,
    },
    /// Some endpoints of a resource have changed.
    EndpointsDelta(EndpointsDelta),
    /// The resource is gone.
    Remove {
        /// The resource.
        name: ResourceName,
    },
    /// The state is whole as of `sequence`: of what the node has, only `keep` and what was told on
    /// this stream remains. Sent once at the start, and again whenever the sequence grows.
    Synced {
        /// The highest sequence that the replica has read from the API server. A node that has
        /// applied a higher one ignores this replica's state until it has caught up.
        sequence: i64,
        /// In the first one: everything there is, told on this stream or known to the node already.
        /// A pool that is named and was not told keeps its endpoints, named or not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keep: Option<BTreeSet<ResourceName>>,
    },
    /// Whether the replica reads from the API server now; told after the first [`ToNode::Synced`] and
    /// whenever it changes. What one tells that does not may be old: at an equal sequence a node
    /// prefers one that does.
    Watching {
        /// It does.
        live: bool,
    },
    /// wsha is being uninstalled: give up every address, empty the state directory, say
    /// [`ToController::Retired`]. From then on the node carries out nothing that is told on a stream
    /// that is open by now. A stream that is opened later and tells a whole state instead of this
    /// brings the node back: who wants that ends the streams. A node that starts anew holds nothing and
    /// knows nothing of it.
    Retire,
}

/// What a controller is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Welcome {
    /// Version of the controller.
    pub version: String,
    /// Name of the replica, for logs.
    pub replica: String,
    /// The other side counts as gone after silence of this many milliseconds; both sides ping
    /// (RFC 6455 section 5.5.2) three times as often.
    pub silence_ms: u64,
    /// Which history the sequences of this stream are of; empty: unknown. Sequences of different
    /// histories are not compared: a node that carries out a state of another one, as after a backup of
    /// the API server was restored, follows this one although its sequences are lower.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epoch: String,
}

/// Endpoints that were added, changed or removed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointsDelta {
    /// The resource.
    pub name: ResourceName,
    /// What the change applies to; a node that has another one asks by [`ToController::Nack`], and
    /// gets the whole.
    pub base: Revision,
    /// What it gives.
    pub revision: Revision,
    /// New and changed ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upserts: Vec<Endpoint>,
    /// Gone ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<SocketAddr>,
}

/// From node to controller.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum ToController {
    /// First of all.
    Hello(Box<Hello>),
    /// The resource is carried out in this revision, by both processes; `None`: it is gone for good,
    /// its addresses given up.
    Ack {
        /// The resource.
        name: ResourceName,
        /// What is carried out.
        revision: Option<Revision>,
    },
    /// The content cannot be carried out; the former one serves on.
    Nack {
        /// The resource.
        name: ResourceName,
        /// What was refused.
        revision: Revision,
        /// Why, with the remedy.
        reason: String,
    },
    /// What the node observes: at once on a change of a state, otherwise every ten seconds.
    Report(Box<NodeReport>),
    /// The node's network has changed.
    Facts(NodeFacts),
    /// The authorities that the node trusts for streams have changed.
    Trusts {
        /// As [`Hello::authorities`].
        authorities: Vec<String>,
    },
    /// Everything is given up ([`ToNode::Retire`]).
    Retired,
}

/// What a node is and has.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Version of the data plane.
    pub version: String,
    /// What the node holds already, told by whatever replica or saved on disk. It may not be carried
    /// out yet: after the first [`ToNode::Synced`] the node acknowledges everything that this
    /// replica told or kept, once it is so, and that the rest is gone. An empty revision names
    /// content that must be told again.
    #[serde(default)]
    pub held: BTreeMap<ResourceName, Revision>,
    /// The sequence of that state; 0 without one.
    #[serde(default)]
    pub sequence: i64,
    /// Which history that sequence is of ([`Welcome::epoch`]); empty: unknown. A controller of this
    /// epoch that knows of lower sequences only has lost what it had committed: it must begin another
    /// epoch, or every node ignores it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub epoch: String,
    /// Its network.
    #[serde(default)]
    pub facts: NodeFacts,
    /// The authorities that it trusts for streams: of each certificate in its bundle the SHA-256 of the
    /// DER form, in lower-case hexadecimal digits. A controller that changes its authority serves with
    /// the new one only once its nodes trust it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorities: Vec<String>,
}

/// What one node reports of its network.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeFacts {
    /// Its interfaces.
    #[serde(default)]
    pub interfaces: Vec<InterfaceFacts>,
}

/// One interface of a node.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InterfaceFacts {
    /// Name.
    pub name: String,
    /// On-link prefixes, each `ADDRESS/LENGTH` with the host part zero.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Default routers reached through it.
    #[serde(default)]
    pub default_routers: Vec<IpAddr>,
    /// Addresses of the node's own on it, link-local ones too: what its advertisements come from.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Virtual routers heard on it in the last minutes that the node has no part in, [`HEARD`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<HeardRouter>,
}

/// Virtual routers that a node tells of, for each interface.
pub const HEARD: usize = 32;

/// A virtual router that another host advertises: that of another pool, or of something that is none of
/// ours. The node cannot tell; the controller knows the addresses of all nodes.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeardRouter {
    /// Its VRID; each address family has VRIDs of its own.
    pub virtual_router_id: u8,
    /// Where its advertisements come from.
    pub source: IpAddr,
    /// Addresses that it advertises, the first of them where there are many.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool) => write!(f, "pools/{pool}"),
            Self::Endpoints { pool, upstream } => write!(f, "endpoints/{pool}/{upstream}"),
            Self::Secret(name) => write!(f, "secrets/{name}"),
            Self::TicketKeys(pool) => write!(f, "ticketKeys/{pool}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

impl From<&str> for ResourceName {
    fn from(text: &str) -> Self {
        let parts: Vec<_> = text.split('/').collect();
        let pool = |namespace: &str, name: &str| PoolRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        match parts[..] {
            ["pools", namespace, name] => Self::Pool(pool(namespace, name)),
            ["endpoints", namespace, name, upstream] => Self::Endpoints {
                pool: pool(namespace, name),
                upstream: upstream.to_owned(),
            },
            ["secrets", namespace, name] => Self::Secret(format!("{namespace}/{name}")),
            ["ticketKeys", namespace, name] => Self::TicketKeys(pool(namespace, name)),
            _ => Self::Other(text.to_owned()),
        }
    }
}

impl Serialize for ResourceName {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResourceName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self::from(text.as_str()))
    }
}
