//! What goes into the hub and what comes out of it.

use std::sync::Arc;

use node_api::{
    NodeConfig, NodeReport,
    stream::{NodeFacts, ResourceName, Revision, ToNode, Welcome},
};

use super::{assemble::State, outbox::Outbox};

/// Tells streams apart; never used twice.
pub(super) type StreamId = u64;

/// Something happened.
#[derive(Debug)]
pub(super) enum Input {
    /// A stream is open.
    Opened {
        /// The stream.
        id: StreamId,
        /// Of the replica.
        address: String,
        /// For what is to be told.
        outbox: Arc<Outbox>,
    },
    /// The replica said who it is.
    Welcome(StreamId, Welcome),
    /// The replica told something.
    Told(StreamId, ToNode),
    /// The replica told content that is not understood.
    Refused(StreamId, ResourceName, Revision, String),
    /// The stream ended.
    Ended(StreamId),
    /// Why there is no stream to this address; `None`: there is one, or none is wanted.
    Problem(String, Option<String>),
    /// The agent carries out the state of this version.
    Applied(u64),
    /// The state of this version is on disk, or why not.
    Saved(u64, Result<(), String>),
    /// Somebody removed the state directory; it is there again and empty, or why not.
    Lost(Result<(), String>),
    /// Everything on disk is removed, or why not.
    Erased(Result<(), String>),
    /// The agent observes this now.
    Observed(Arc<NodeReport>),
    /// The answer to [`Effect::Ask`].
    Fresh(Arc<NodeReport>),
    /// The network of the node.
    Facts(NodeFacts),
    /// Fingerprints of the authorities that the node trusts.
    Authorities(Vec<String>),
    /// A second is over.
    Second,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Effect {
    /// Carry this out.
    Apply(u64, Box<NodeConfig>),
    /// Show this.
    Show(Status),
    /// Put this on disk.
    Save(u64, Arc<State>),
    /// Remove everything from the disk.
    Erase,
    /// Ask the agent for a report.
    Ask,
}

/// What a person should know.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::agent) struct Status {
    /// Replicas with which a stream is open.
    pub(in crate::agent) connected: usize,
    /// Whether there is a state that is carried out.
    pub(in crate::agent) has_state: bool,
    /// Whether the state could not be saved.
    pub(in crate::agent) is_unsaved: bool,
    /// Whether everything was given up for good.
    pub(in crate::agent) is_retired: bool,
    /// Why no replica is followed.
    pub(in crate::agent) stale_reason: Option<String>,
    /// Things an administrator should look at.
    pub(in crate::agent) warnings: Vec<String>,
}
