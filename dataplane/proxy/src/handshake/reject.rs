//! Refusals that a client gets before an upgrade.

use std::{
    borrow::Cow,
    hash::{BuildHasher, RandomState},
};

use super::date;

/// Seconds within which clients that find no room are asked to come again, each at one of its own.
const RETRY_WITHIN: u64 = 10;

/// Why a request is refused. Each has its status (RFC 9110 section 15) and a sentence for a person.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reject {
    /// Bytes that are not HTTP/1.1, or that parsers could read in different ways.
    Malformed(&'static str),
    /// A method other than GET asks for the upgrade (RFC 6455 section 4.1).
    Method,
    /// The request took too long.
    Timeout,
    /// The request line is too long.
    TargetTooLong,
    /// The fields are too long or too many.
    FieldsTooLarge,
    /// The request asks for no upgrade to WebSocket.
    NotAnUpgrade,
    /// A WebSocket version other than 13 (RFC 6455 section 4.4).
    Version,
    /// A version of HTTP that is not spoken here.
    HttpVersion,
    /// A method or a coding that is not carried out here.
    NotImplemented(&'static str),
    /// The web page that asks is not one of those that may (RFC 6455 section 4.2.2, item 4).
    Origin,
    /// No route of the listener matches.
    NoRoute,
    /// The client's address has all the sessions that one may have.
    TooMany,
    /// The pool has all the sessions that it may have, or they come too fast.
    Full,
    /// No endpoint gave a usable answer.
    BadGateway,
    /// There is no endpoint, or this host has no room.
    Unavailable,
    /// No endpoint answered in time.
    GatewayTimeout,
}

impl Reject {
    /// The status code.
    pub fn status(self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Origin => 403,
            Self::NoRoute => 404,
            Self::Method => 405,
            Self::Timeout => 408,
            Self::TargetTooLong => 414,
            Self::NotAnUpgrade | Self::Version => 426,
            // RFC 6585 section 4: the client's own doing; of the others it cannot know (RFC 9110
            // section 15.6.4).
            Self::TooMany => 429,
            Self::FieldsTooLarge => 431,
            Self::NotImplemented(_) => 501,
            Self::BadGateway => 502,
            Self::Unavailable | Self::Full => 503,
            Self::GatewayTimeout => 504,
            Self::HttpVersion => 505,
        }
    }

    fn phrase(self) -> &'static str {
        match self {
            Self::Malformed(_) => "Bad Request",
            Self::Origin => "Forbidden",
            Self::NoRoute => "Not Found",
            Self::Method => "Method Not Allowed",
            Self::Timeout => "Request Timeout",
            Self::TargetTooLong => "URI Too Long",
            Self::NotAnUpgrade | Self::Version => "Upgrade Required",
            Self::FieldsTooLarge => "Request Header Fields Too Large",
            Self::NotImplemented(_) => "Not Implemented",
            Self::BadGateway => "Bad Gateway",
            Self::TooMany => "Too Many Requests",
            Self::Unavailable | Self::Full => "Service Unavailable",
            Self::GatewayTimeout => "Gateway Timeout",
            Self::HttpVersion => "HTTP Version Not Supported",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Malformed(what) | Self::NotImplemented(what) => what,
            Self::Method => "A WebSocket handshake is a GET.",
            Self::Timeout => "The request did not arrive in time.",
            Self::TargetTooLong => "The request line is too long.",
            Self::FieldsTooLarge => "The header fields are too long or too many.",
            Self::NotAnUpgrade => "This address speaks WebSocket only.",
            Self::Version => "This address speaks version 13 of WebSocket.",
            Self::HttpVersion => "This address speaks HTTP/1.1.",
            Self::Origin => "Pages of this origin may not connect.",
            Self::NoRoute => "No route leads from this host and path.",
            Self::TooMany => "There are too many sessions from this address.",
            Self::Full => "No more sessions can be taken now.",
            Self::BadGateway => "No endpoint gave a usable answer.",
            Self::Unavailable => "No endpoint can take the connection now.",
            Self::GatewayTimeout => "No endpoint answered in time.",
        }
    }

    /// Fields that belong to the status.
    fn fields(self) -> Cow<'static, str> {
        match self {
            // RFC 9110 section 15.5.6.
            Self::Method => "Allow: GET\r\n".into(),
            // RFC 9110 section 15.5.22; RFC 6455 section 4.4.
            Self::NotAnUpgrade | Self::Version => {
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".into()
            }
            // RFC 9110 section 10.2.3. Clients that are turned away together are not to come back
            // together.
            Self::Unavailable | Self::Full | Self::TooMany => {
                let seconds = 1 + RandomState::new().hash_one(()) % RETRY_WITHIN;
                format!("Retry-After: {seconds}\r\n").into()
            }
            _ => "".into(),
        }
    }

    /// The whole response.
    pub fn response(self) -> Vec<u8> {
        let mut response = self.head();
        response.extend_from_slice(self.sentence().as_bytes());
        response.push(b'\n');
        response
    }

    /// The response to HEAD, which has no content (RFC 9110 section 9.3.2).
    pub fn head(self) -> Vec<u8> {
        let connection = match self {
            Self::NotAnUpgrade | Self::Version => "upgrade, close",
            _ => "close",
        };
        format!(
            "HTTP/1.1 {status} {phrase}\r\n\
             Date: {date}\r\n\
             {fields}\
             Connection: {connection}\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {length}\r\n\
             \r\n",
            status = self.status(),
            phrase = self.phrase(),
            date = date::now(),
            fields = self.fields(),
            length = self.sentence().len() + 1,
        )
        .into_bytes()
    }
}
