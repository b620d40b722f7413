//! What is counted by: how handshakes and sessions ended, in words of which there are few.

use crate::handshake::Reject;

/// How a connection from a client ended before or with the upgrade.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HandshakeResult {
    /// 101: a session began.
    Upgraded,
    /// The backend answered something other than 101, which was passed on.
    Answered,
    /// The request was refused with a status of 4xx or 505 of our own.
    Refused,
    /// The web page that asked may not connect (403).
    Forbidden,
    /// No route of the listener matched the request (404).
    NoRoute,
    /// What a connection had to begin with, a header of the PROXY protocol from a trusted proxy, was
    /// not there (closed without an answer).
    ProxyHeader,
    /// TLS did not come about (told by an alert).
    Tls,
    /// A limit of the pool left no room for it (429, 503).
    Limited,
    /// There was no room for it, or no time for TLS with it, and too many others were to be told so:
    /// reset before TLS began.
    Dropped,
    /// The client was too slow (408, or nothing when it sent nothing, or not what TLS needs).
    ClientTimeout,
    /// The client went away.
    ClientGone,
    /// No endpoint gave a usable answer (502).
    BadGateway,
    /// There was no endpoint to try, or this host lacks ports or descriptors (503).
    Unavailable,
    /// No endpoint answered in time (504).
    GatewayTimeout,
    /// The listener was closed meanwhile.
    ListenerGone,
    /// HTTP/2 was agreed on: the handshakes of its streams are counted by themselves.
    Http2,
    /// It asked for no upgrade, where that is not refused: what became of it, and of further ones on the
    /// same connection, is counted among requests.
    Plain,
}

/// What became of a request that asked for no upgrade, where that is not refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestResult {
    /// The endpoint's answer was passed on whole.
    Answered,
    /// It was refused with a status of 4xx, 501 or 505 of our own.
    Refused,
    /// The web page that asked may not (403).
    Forbidden,
    /// No route of the listener matched it (404).
    NoRoute,
    /// A limit of the pool left no room for it (429, 503).
    Limited,
    /// The client was too slow to send it (408), or to take the answer (cut off).
    ClientTimeout,
    /// The client went away.
    ClientGone,
    /// No endpoint gave a usable answer (502), or not to its end (cut off).
    BadGateway,
    /// There was no endpoint to try, or this host lacks ports or descriptors (503).
    Unavailable,
    /// No endpoint answered in time (504), or went on to (cut off).
    GatewayTimeout,
    /// Its listener, address or endpoint went: 503, or cut off.
    Drained,
}

impl RequestResult {
    /// What a refusal of ours counts as.
    pub(crate) const fn of(reject: Reject) -> Self {
        match reject {
            Reject::Timeout => Self::ClientTimeout,
            Reject::Origin => Self::Forbidden,
            Reject::NoRoute => Self::NoRoute,
            Reject::TooMany | Reject::Full => Self::Limited,
            Reject::BadGateway => Self::BadGateway,
            Reject::Unavailable => Self::Unavailable,
            Reject::GatewayTimeout => Self::GatewayTimeout,
            _ => Self::Refused,
        }
    }
}

/// Who ended a session, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// The client closed, or its connection was lost.
    Client,
    /// The backend closed.
    Backend,
    /// The backend's connection was lost without a Close frame.
    BackendLost,
    /// The client did not answer our heartbeat.
    ClientSilent,
    /// The backend did not answer our heartbeat.
    BackendSilent,
    /// It ran into a limit of its pool.
    Limit,
    /// Its endpoint was removed or is terminating.
    EndpointGone,
    /// Its endpoint had more than its share of sessions.
    Rebalanced,
    /// Its listener, address or pool was removed.
    ListenerGone,
    /// A planned stop of its address.
    Left,
    /// The host lost its address without plan.
    AddressLost,
    /// The proxy stopped.
    Stopped,
}

/// Close codes, as seen in the first Close frame of a session: those of RFC 6455 section 7.4.1 and of
/// the IANA registry by themselves, so that clients which make up others add nothing to what is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CodeClass {
    /// 1000.
    Normal,
    /// 1001.
    GoingAway,
    /// 1002.
    ProtocolError,
    /// 1003.
    Unsupported,
    /// 1007.
    InvalidData,
    /// 1008.
    Policy,
    /// 1009.
    TooBig,
    /// 1010.
    MissingExtension,
    /// 1011.
    InternalError,
    /// 1012.
    ServiceRestart,
    /// 1013.
    TryAgainLater,
    /// 1014.
    BadGateway,
    /// 3000-4999.
    Application,
    /// A Close frame without a code (1005 in APIs).
    Empty,
    /// Any other number.
    Other,
    /// No Close frame at all (1006 in APIs).
    None,
}

impl CodeClass {
    pub(crate) fn of(code: Option<u16>) -> Self {
        match code {
            None => Self::Empty,
            Some(1000) => Self::Normal,
            Some(1001) => Self::GoingAway,
            Some(1002) => Self::ProtocolError,
            Some(1003) => Self::Unsupported,
            Some(1007) => Self::InvalidData,
            Some(1008) => Self::Policy,
            Some(1009) => Self::TooBig,
            Some(1010) => Self::MissingExtension,
            Some(1011) => Self::InternalError,
            Some(1012) => Self::ServiceRestart,
            Some(1013) => Self::TryAgainLater,
            Some(1014) => Self::BadGateway,
            Some(3000..=4999) => Self::Application,
            Some(_) => Self::Other,
        }
    }
}

macro_rules! closed {
    ($name:ident: $($variant:ident = $label:literal),+ $(,)?) => {
        impl $name {
            /// Every value, in the order of its declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as a metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}

pub(crate) use closed;

closed!(HandshakeResult:
    Upgraded = "upgraded",
    Answered = "answered",
    Refused = "refused",
    Forbidden = "forbidden",
    NoRoute = "no_route",
    ProxyHeader = "proxy_header",
    Tls = "tls",
    Limited = "limited",
    Dropped = "dropped",
    ClientTimeout = "client_timeout",
    ClientGone = "client_gone",
    BadGateway = "bad_gateway",
    Unavailable = "unavailable",
    GatewayTimeout = "gateway_timeout",
    ListenerGone = "listener_gone",
    Http2 = "http2",
    Plain = "plain",
);
closed!(RequestResult:
    Answered = "answered",
    Refused = "refused",
    Forbidden = "forbidden",
    NoRoute = "no_route",
    Limited = "limited",
    ClientTimeout = "client_timeout",
    ClientGone = "client_gone",
    BadGateway = "bad_gateway",
    Unavailable = "unavailable",
    GatewayTimeout = "gateway_timeout",
    Drained = "drained",
);
closed!(Ended:
    Client = "client",
    Backend = "backend",
    BackendLost = "backend_lost",
    ClientSilent = "client_silent",
    BackendSilent = "backend_silent",
    Limit = "limit",
    EndpointGone = "endpoint_gone",
    Rebalanced = "rebalanced",
    ListenerGone = "listener_gone",
    Left = "left",
    AddressLost = "address_lost",
    Stopped = "stopped",
);
closed!(CodeClass:
    Normal = "1000",
    GoingAway = "1001",
    ProtocolError = "1002",
    Unsupported = "1003",
    InvalidData = "1007",
    Policy = "1008",
    TooBig = "1009",
    MissingExtension = "1010",
    InternalError = "1011",
    ServiceRestart = "1012",
    TryAgainLater = "1013",
    BadGateway = "1014",
    Application = "application",
    Empty = "empty",
    Other = "other",
    None = "none",
);
