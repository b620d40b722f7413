//! What the agent's loop reacts to, one at a time.

use tokio::sync::oneshot;

use crate::{
    agent::{checks, files::Accepted, keys, report::Snapshot, stream::ToAgent},
    ipc::{FromProxy, FromVrrp},
    sys::channel::{Channel, Peer},
};

/// One of the two processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Holds the virtual addresses.
    Vrrp,
    /// Faces the clients.
    Proxy,
}

impl Role {
    /// As it is called in `ps`, logs and metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Vrrp => "vrrp",
            Self::Proxy => "proxy",
        }
    }
}

/// Another agent that wants to serve this node.
#[derive(Debug)]
pub(super) struct TakeOver {
    /// Of the agent, as far as the kernel tells; 0 where it is in a container of its own.
    pub(super) pid: i32,
    /// When its pod was made, nanoseconds since the Unix epoch.
    pub(super) pod_created_ns: Option<u64>,
    /// Why it must not, in a sentence; `None`: this agent stops.
    pub(super) reply: oneshot::Sender<Option<String>>,
}

/// Something happened.
#[derive(Debug)]
pub(super) enum Event {
    /// A process connected; one with `workers` is a proxy.
    Arrived {
        /// Of the connection.
        id: u64,
        /// Who it is.
        peer: Peer,
        /// How many sockets it wants for each listener.
        workers: Option<usize>,
        /// To send.
        channel: Channel,
    },
    /// vrrp said something on this connection.
    Vrrp(u64, FromVrrp),
    /// The proxy said something on this connection.
    Proxy(u64, FromProxy),
    /// A connection ended.
    Closed(u64),
    /// A process ended: the one with this number of start.
    Ended(Role, u64),
    /// Time to start a process again.
    Start(Role),
    /// A vrrp that would adopt addresses had its time.
    Orphans,
    /// The files changed, and were accepted.
    Accepted(Box<Accepted>),
    /// The files changed, and were refused or could not be read; sentences.
    Refused(Vec<String>),
    /// The files of `--tls-dir` were looked at: for other pools, or as they have changed.
    Keys(Box<keys::Found>),
    /// The control stream said something.
    Stream(ToAgent),
    /// A check of a pool fails, passes again, or fails otherwise.
    Check(checks::Found),
    /// The files in use were saved, or why they were not: a sentence.
    Saved(Result<(), String>),
    /// Someone wants to know how we are.
    Snapshot(oneshot::Sender<Snapshot>),
    /// That question waited long enough.
    SnapshotDue(u64),
    /// Stop in order; why.
    Stop(String),
    /// Another agent asks this one to stop.
    TakeOver(TakeOver),
    /// Look after time-outs.
    Tick,
    /// Answer, to show that the loop turns.
    Ping(oneshot::Sender<()>),
}
