//! The loads whose cost in CPU time is measured: what sessions do, and over what.

use std::fmt;

use serde::Serialize;

/// Sessions that share a connection of HTTP/2 while they send messages.
const SHARED: usize = 8;

/// Sessions that open and close at the same time.
const OPENING: usize = 32;

/// What sessions do while CPU time is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// Messages of so many bytes, so many under way in each session.
    Messages {
        /// Bytes of payload.
        payload: usize,
        /// Messages under way in each session.
        depth: usize,
    },
    /// Sessions that open, echo once and close.
    Handshakes,
}

/// Over what clients speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// HTTP/1.1, a connection for each session.
    Plain,
    /// The same by TLS.
    Tls,
    /// Streams of HTTP/2 by TLS (RFC 8441).
    Http2 {
        /// Sessions in each connection.
        share: usize,
    },
}

/// A load that is measured by CPU time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Load {
    /// What sessions do.
    pub work: Work,
    /// Over what.
    pub transport: Transport,
}

impl Load {
    /// The rows of the table.
    pub const ALL: [Self; 14] = [
        Self::messages(64, 1),
        Self::messages(64, 16),
        Self::messages(1024, 1),
        Self::messages(1024, 16),
        Self::messages(65_536, 4),
        Self::HANDSHAKES,
        Self::messages(64, 1).over_tls(),
        Self::messages(1024, 16).over_tls(),
        Self::messages(65_536, 4).over_tls(),
        Self::HANDSHAKES.over_tls(),
        Self::messages(64, 1).over_http2(),
        Self::messages(1024, 16).over_http2(),
        Self::messages(65_536, 4).over_http2(),
        Self::HANDSHAKES.over_http2(),
    ];

    /// Those under which wsha is measured with access records, too.
    pub const RECORDED: [Self; 3] = [
        Self::messages(64, 1),
        Self::messages(1024, 16),
        Self::HANDSHAKES,
    ];

    /// Sessions that open, echo once and close.
    pub const HANDSHAKES: Self = Self {
        work: Work::Handshakes,
        transport: Transport::Plain,
    };

    /// Messages over HTTP/1.1 without TLS.
    pub const fn messages(payload: usize, depth: usize) -> Self {
        Self {
            work: Work::Messages { payload, depth },
            transport: Transport::Plain,
        }
    }

    /// The same by TLS.
    #[must_use]
    pub const fn over_tls(self) -> Self {
        Self {
            transport: Transport::Tls,
            ..self
        }
    }

    /// The same in streams of HTTP/2: handshakes all in one connection.
    #[must_use]
    pub const fn over_http2(self) -> Self {
        let share = match self.work {
            Work::Messages { .. } => SHARED,
            Work::Handshakes => OPENING,
        };
        Self {
            transport: Transport::Http2 { share },
            ..self
        }
    }

    /// Sessions that are open at the same time.
    pub(super) fn sessions(self) -> usize {
        match self.work {
            Work::Messages { payload, .. } if payload > 16_384 => 16,
            Work::Messages { .. } => 64,
            Work::Handshakes => OPENING,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.transport {
            Transport::Plain => "",
            Transport::Tls => "TLS, ",
            Transport::Http2 { .. } => "HTTP/2, ",
        })?;
        match self.work {
            Work::Messages { payload, depth } if payload.is_multiple_of(1024) => {
                write!(f, "{} KiB x{depth}", payload / 1024)
            }
            Work::Messages { payload, depth } => write!(f, "{payload} B x{depth}"),
            Work::Handshakes => f.write_str("handshake"),
        }
    }
}
