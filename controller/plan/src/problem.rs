//! What a user must change in an object.

use std::fmt;

/// A field that cannot stand as it is, or that leads nowhere now.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Problem {
    /// The field, from the root of the object, such as `spec.virtualIPs[0].address`.
    pub path: String,
    /// What is wrong and what to do about it, a clause without a full stop.
    pub message: String,
    /// What kind of problem it is, for programs.
    pub reason: Reason,
}

/// What kind of problem: the reason of a condition, one word without blanks.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// The object makes no sense by itself.
    Invalid,
    /// The address is another pool's, an endpoint's, or one that a Service has outside of the cluster.
    AddressConflict,
    /// The address is a host's or a router's or lies where none may be, or the administrator does
    /// not permit it.
    AddressNotPermitted,
    /// Nobody can say yet whether the address is permitted.
    AddressNotJudged,
    /// The address was free when nodes were told to hold it, and something else has it now too.
    AddressClaimed,
    /// The administrator does not permit the port.
    PortNotPermitted,
    /// Services may get the port on every node.
    PortConflict,
    /// Another virtual router of the segment has the VRID, or none is left.
    VirtualRouterIDConflict,
    /// Something that is none of ours speaks the VRID on the same network.
    VirtualRouterIDClaimed,
    /// No session may be sent to the endpoint.
    EndpointNotPermitted,
    /// What the field names is not there, or cannot be used.
    Unresolved,
    /// The administrator took the node out of service.
    NodeExcluded,
    /// The Service is there and has no endpoint now.
    NoEndpoints,
}

impl Reason {
    /// Whether somebody may well want it so for a while: a node in maintenance, a Service scaled to
    /// nothing. Files are not refused for that.
    pub fn may_be_meant(self) -> bool {
        matches!(self, Self::NodeExcluded | Self::NoEndpoints)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Problem {
    /// A problem of the field at `path`, to be seen by looking at the object alone.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::of(Reason::Invalid, path, message)
    }

    /// A problem of a kind.
    pub fn of(reason: Reason, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
            reason,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}
