//! What the three processes say to each other over the sockets of the run directory.
//!
//! The agent listens on two sockets there: [`AGENT_SOCKET`] (its own user only) for vrrp, `status`
//! and a newer agent that takes over; [`PROXY_SOCKET`] (the proxy's user) for the proxy. The first
//! message on a connection is a [`Hello`]. vrrp and proxy talk to each other over a socket pair
//! that the agent makes for each pairing. A third one, [`HOLDER_SOCKET`], lies in the state directory.
//!
//! Everything is level-triggered: a configuration is always whole, a report too.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use node_api::{
    Keys, NodeReport, Pool, PoolRef, PoolReport, RouterReport, Tracking, VirtualRouter,
};
use serde::{Deserialize, Serialize};

use crate::metrics::Sample;

/// Name of the socket for vrrp, `status` and take-overs, in the run directory.
pub const AGENT_SOCKET: &str = "agent.sock";
/// Name of the socket, in the state directory, on which the agent that holds it is asked to stop:
/// whoever shares the state directory need not see the run directory.
pub const HOLDER_SOCKET: &str = "holder.sock";
/// Name of the socket, in the run directory, of an agent that waits: it answers probes.
pub const WAITING_SOCKET: &str = "waiting.sock";
/// Name of the socket for the proxy, in the run directory.
pub const PROXY_SOCKET: &str = "proxy.sock";

/// The first message of whoever connects to the agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Hello {
    /// The vrrp process; [`ToVrrp`] and [`FromVrrp`] follow.
    Vrrp,
    /// The proxy process; [`ToProxy`] and [`FromProxy`] follow.
    Proxy {
        /// How many sockets it wants for each listener.
        workers: usize,
    },
    /// Asks for the state of the node; one [`Answer`] follows.
    Status,
    /// Asks the agent to stop in order, so that the sender can start; the connection closes when
    /// the lock is free. A [`Refusal`] is the other answer.
    Stop,
    /// The same from an agent of a pod.
    StopForPod {
        /// When the sender's pod was made, nanoseconds since the Unix epoch.
        pod_created_ns: u64,
    },
    /// Asks how the process of this run directory is; one [`ProbeAnswer`] follows.
    Probe {
        /// Whether it is ready is asked too, not only whether it lives.
        ready: bool,
    },
}

/// Answer to [`Hello::StopForPod`] of whoever must not take over.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refusal {
    /// Why, in a sentence.
    pub reason: String,
}

/// Answer to [`Hello::Probe`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProbeAnswer {
    /// What is not as it should be, each a sentence; empty: all is well.
    pub problems: Vec<String>,
}

/// Answer to [`Hello::Status`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The state of the node.
    pub report: NodeReport,
    /// Settings of its virtual routers, as they are to be.
    #[serde(default)]
    pub routers: Vec<VirtualRouter>,
}

/// Agent to vrrp.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ToVrrp {
    /// Comes first. Carries one descriptor: the [`crate::sys::pages::RouterTable`].
    Table,
    /// A new pairing with a proxy. Carries two descriptors: the [`crate::sys::pages::PairPage`] and
    /// vrrp's end of the socket pair, which speaks [`VrrpToProxy`] and [`ProxyToVrrp`].
    Pair,
    /// The virtual routers that shall run, all of them.
    Configure {
        /// Echoed in [`FromVrrp::Applied`].
        sequence: u64,
        /// All virtual routers of this node.
        routers: Vec<Router>,
    },
    /// The checks that fail now, all of them.
    Failing {
        /// Of any pool.
        checks: Vec<FailingCheck>,
    },
    /// Send a report.
    Report,
    /// Stop in order (DESIGN section 9.9), then say [`FromVrrp::Left`] and end.
    Leave,
}

/// A virtual router with what vrrp must know beyond the protocol.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Router {
    /// The pool it belongs to: usable endpoints are counted by pool.
    pub pool: PoolRef,
    /// Protocol settings and candidates.
    pub settings: VirtualRouter,
    /// This node's priority while it has a usable endpoint.
    pub priority: u8,
    /// This node's priority while it has none.
    pub priority_without_endpoint: u8,
    /// Ports on which the proxy must accept on each address before the router takes part.
    pub ports: Vec<u16>,
    /// What lowers the priority, or makes it give its addresses up. The agent asks what the checks
    /// ask: [`ToVrrp::Failing`].
    pub tracking: Tracking,
}

/// A check that fails.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FailingCheck {
    /// The pool.
    pub pool: PoolRef,
    /// Its name there.
    pub name: String,
    /// What is wrong, in words.
    pub problem: String,
    /// Since when, milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
}

/// vrrp to agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum FromVrrp {
    /// A configuration is in force.
    Applied {
        /// That of the configuration.
        sequence: u64,
        /// What could not be done, each a sentence that names the address and a remedy.
        problems: Vec<String>,
    },
    /// Sent on each change of state and when asked for.
    Report(VrrpReport),
    /// All addresses are gone; the process ends.
    Left,
}

/// State of the vrrp process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct VrrpReport {
    /// One entry per virtual router.
    pub routers: Vec<RouterReport>,
    /// Things an administrator should look at, each a sentence with its remedy.
    pub warnings: Vec<String>,
    /// Counters and gauges.
    pub samples: Vec<Sample>,
}

impl Eq for VrrpReport {}

/// Agent to proxy.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ToProxy {
    /// A new pairing with a vrrp. Carries two descriptors: the [`crate::sys::pages::PairPage`] and the
    /// proxy's end of the socket pair.
    Pair,
    /// The pools that shall be served, all of them. Carries the sockets of listeners that the
    /// proxy does not have yet: `workers` descriptors for each of `sockets`, in this order.
    Configure {
        /// Echoed in [`FromProxy::Applied`].
        sequence: u64,
        /// All pools of this node.
        pools: Vec<(PoolRef, Pool)>,
        /// What their TLS needs: everything that they refer to.
        #[serde(default, skip_serializing_if = "Keys::is_empty")]
        keys: Keys,
        /// Addresses of the sockets that come along.
        sockets: Vec<SocketAddr>,
        /// Listeners that could not be opened, with the reason.
        refused: Vec<(SocketAddr, String)>,
    },
    /// Send a report.
    Report,
    /// The node leaves and no vrrp is there to lead: close all listeners, tell all sessions, say
    /// [`FromProxy::Left`] and end. With a vrrp, it leads address by address before.
    Leave,
}

/// Proxy to agent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum FromProxy {
    /// A configuration is in force.
    Applied {
        /// That of the configuration.
        sequence: u64,
    },
    /// Sent when asked for, and when an endpoint or listener changes.
    Report(ProxyReport),
    /// All sessions were told; the process ends.
    Left,
}

/// State of the proxy process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ProxyReport {
    /// Pools with their listeners and endpoints.
    pub pools: Vec<PoolReport>,
    /// Things an administrator should look at, each a sentence with its remedy.
    pub warnings: Vec<String>,
    /// Counters and gauges.
    pub samples: Vec<Sample>,
}

impl Eq for ProxyReport {}

/// vrrp to proxy, within a pairing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum VrrpToProxy {
    /// A planned stop of these addresses: close their listeners, tell their sessions, then answer
    /// [`ProxyToVrrp::Left`].
    Leave {
        /// The addresses of one virtual router.
        addresses: Vec<IpAddr>,
    },
    /// The host began or ceased to hold these addresses.
    Held {
        /// The addresses of one virtual router.
        addresses: Vec<IpAddr>,
        /// Whether it holds them now.
        held: bool,
    },
}

/// Proxy to vrrp, within a pairing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ProxyToVrrp {
    /// Comes first: the proxy holds its life mutex, so it may be waited for.
    Holding,
    /// Where clients are accepted now, all of it.
    Accepting {
        /// Listener addresses that accept.
        listeners: Vec<SocketAddr>,
    },
    /// How many endpoints of a pool take new sessions now.
    Usable {
        /// The pool.
        pool: PoolRef,
        /// How many.
        endpoints: UsableEndpoints,
    },
    /// Answer to [`VrrpToProxy::Leave`].
    Left {
        /// The addresses of the question.
        addresses: Vec<IpAddr>,
    },
}

/// Endpoints of a pool that take new sessions now.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct UsableEndpoints {
    /// In all upstreams that requests go to.
    pub routed: usize,
    /// In each upstream.
    pub upstreams: BTreeMap<String, usize>,
}
