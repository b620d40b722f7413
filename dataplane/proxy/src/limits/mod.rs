//! What a pool allows its clients, and what is done with those that want more.
//!
//! `admission` is about sessions to come: how many there may be and, by `turns`, how fast they begin;
//! `gateway` is the same over all pools. What is
//! allowed within a session is looked at where it passes: `frame` counts, `relay::limit` ends it.

mod admission;
mod gateway;
mod rate;
mod turns;

use std::time::Duration;

pub use self::gateway::GatewayLimits;
pub(crate) use self::{
    admission::{Admission, Arriving, Place},
    gateway::{Gateway, GatewayArriving, GatewayPlace},
    rate::Rate,
    turns::{Ticket, Turn, Turns},
};
use crate::frame::Allowance;

/// What a pool allows on this host; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Live sessions, handshakes under way included.
    pub sessions: Option<u32>,
    /// Of these by the client's address, of IPv6 by its first 64 bits.
    pub sessions_per_source: Option<u32>,
    /// Of these by the origin of the web page.
    pub sessions_per_origin: Option<u32>,
    /// Handshakes that are brought to endpoints in a second.
    pub handshakes_per_second: Option<u32>,
    /// Bytes of payload of a frame, from either side.
    pub frame_size: Option<u64>,
    /// Bytes of payload of a message, from either side.
    pub message_size: Option<u64>,
    /// Messages of a client.
    pub messages: Option<MessageRate>,
    /// How long a session lasts.
    pub session_age: Option<Duration>,
    /// How long a side may take nothing while something waits for it.
    pub slow_reader: Option<Duration>,
    /// Bytes that may wait for a side all of that time; nothing without it.
    pub buffered_bytes: Option<u64>,
}

/// How many messages a client may send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MessageRate {
    /// In the long run, in each second.
    pub per_second: u32,
    /// At once, after it was quiet.
    pub burst: u32,
}

impl Limits {
    /// The name of a limit under which nothing is possible.
    pub(crate) fn impossible(&self) -> Option<&'static str> {
        let counts = [
            ("maxSessions", self.sessions),
            ("maxSessionsPerSource", self.sessions_per_source),
            ("maxSessionsPerOrigin", self.sessions_per_origin),
            ("handshakesPerSecond", self.handshakes_per_second),
            (
                "messagesPerSecond",
                self.messages.map(|rate| rate.per_second),
            ),
            ("messageBurst", self.messages.map(|rate| rate.burst)),
        ];
        let times = [
            ("maxSessionAge", self.session_age),
            ("slowReaderTimeout", self.slow_reader),
        ];
        let sizes = [
            ("maxFrameSize", self.frame_size),
            ("maxMessageSize", self.message_size),
            ("maxBufferedBytes", self.buffered_bytes),
        ];
        let counts = counts.map(|(name, count)| (name, count == Some(0)));
        let times = times.map(|(name, time)| (name, time.is_some_and(|time| time.is_zero())));
        let sizes = sizes.map(|(name, size)| (name, size == Some(0)));
        let mut all = counts.into_iter().chain(times).chain(sizes);
        all.find_map(|(name, is_zero)| is_zero.then_some(name))
    }

    /// What of either side may pass, how often it speaks apart.
    pub(crate) fn allowance(&self) -> Allowance {
        Allowance {
            frame: self.frame_size.unwrap_or(u64::MAX),
            message: self.message_size.unwrap_or(u64::MAX),
            messages: u32::MAX,
        }
    }

    pub(crate) fn message_rate(&self) -> Option<Rate> {
        self.messages
            .map(|rate| Rate::new(rate.per_second, rate.burst))
    }
}

/// A limit that somebody ran into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// [`Limits::sessions`].
    Sessions,
    /// [`Limits::sessions_per_source`].
    SessionsPerSource,
    /// [`Limits::sessions_per_origin`].
    SessionsPerOrigin,
    /// [`Limits::handshakes_per_second`].
    HandshakesPerSecond,
    /// [`Limits::frame_size`].
    FrameSize,
    /// [`Limits::message_size`].
    MessageSize,
    /// [`Limits::messages`].
    MessagesPerSecond,
    /// [`Limits::session_age`].
    SessionAge,
    /// [`Limits::slow_reader`].
    SlowReader,
    /// [`Limits::buffered_bytes`].
    BufferedBytes,
    /// [`GatewayLimits::sessions`].
    GatewaySessions,
    /// [`GatewayLimits::handshakes_per_second`].
    GatewayHandshakesPerSecond,
    /// The gateway's memory ([`crate::Proxy::lacks_memory`]).
    GatewayMemory,
}

impl Limit {
    /// Every value, in the order of its declaration.
    pub const ALL: &'static [Self] = &[
        Self::Sessions,
        Self::SessionsPerSource,
        Self::SessionsPerOrigin,
        Self::HandshakesPerSecond,
        Self::FrameSize,
        Self::MessageSize,
        Self::MessagesPerSecond,
        Self::SessionAge,
        Self::SlowReader,
        Self::BufferedBytes,
        Self::GatewaySessions,
        Self::GatewayHandshakesPerSecond,
        Self::GatewayMemory,
    ];

    /// The value as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::SessionsPerSource => "sessions_per_source",
            Self::SessionsPerOrigin => "sessions_per_origin",
            Self::HandshakesPerSecond => "handshakes_per_second",
            Self::FrameSize => "frame_size",
            Self::MessageSize => "message_size",
            Self::MessagesPerSecond => "messages_per_second",
            Self::SessionAge => "session_age",
            Self::SlowReader => "slow_reader",
            Self::BufferedBytes => "buffered_bytes",
            Self::GatewaySessions => "gateway_sessions",
            Self::GatewayHandshakesPerSecond => "gateway_handshakes_per_second",
            Self::GatewayMemory => "gateway_memory",
        }
    }
}
