//! A backend's answer to the handshake (RFC 6455 section 4.1, RFC 9112 section 4).

use super::{
    Body, Outcome,
    head::{Cursor, Fault, Fields, Limits},
};

/// A response head.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Response<'a> {
    /// Status code.
    pub status: u16,
    /// Reason phrase as it came.
    pub reason: &'a [u8],
    /// All fields.
    pub fields: Fields<'a>,
    /// Where the content ends, for an answer other than 101.
    pub body: Body,
}

/// Why an answer is of no use (502 for the client).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadResponse {
    /// Not HTTP/1.1, or ambiguous.
    #[error("the backend's answer is malformed: {0}")]
    Malformed(&'static str),
    /// Longer than any sensible head.
    #[error("the backend's answer is too long")]
    TooLarge,
    /// A 101 that does not switch to WebSocket.
    #[error("the backend's 101 is not one to WebSocket: {0}")]
    NotWebSocket(&'static str),
}

/// Interim responses that are waited through before the one that counts.
pub(crate) const INTERIM_MAX: usize = 8;

/// Reads a response as it arrives.
#[derive(Clone, Debug, Default)]
pub struct ResponseParser {
    cursor: Cursor,
    limits: Limits,
}

impl ResponseParser {
    /// Looks at all bytes received so far. Interim responses (1xx other than 101) are heads of
    /// their own: take the bytes off and go on with a new parser.
    pub fn parse<'a>(&mut self, buf: &'a [u8]) -> Outcome<Response<'a>, BadResponse> {
        match self.cursor.advance(buf, self.limits) {
            Outcome::NeedMore => Outcome::NeedMore,
            Outcome::Bad(Fault::Malformed(why)) => Outcome::Bad(BadResponse::Malformed(why)),
            Outcome::Bad(Fault::LineTooLong | Fault::TooLarge) => {
                Outcome::Bad(BadResponse::TooLarge)
            }
            Outcome::Done(start, end) => match Response::read(&buf[start..end]) {
                Ok(response) => Outcome::Done(response, end),
                Err(bad) => Outcome::Bad(bad),
            },
        }
    }
}

impl<'a> Response<'a> {
    fn read(head: &'a [u8]) -> Result<Self, BadResponse> {
        let (line, fields) = Fields::split(head).map_err(BadResponse::Malformed)?;
        let (status, reason, minor) = status_line(line)?;
        if status == 101 {
            check_switch(&fields)?;
        }
        let body = Body::of_response(status, &fields).map_err(BadResponse::Malformed)?;
        // RFC 9112 section 6.1: it is not known in HTTP/1.0.
        if minor == b'0' && matches!(body, Body::Chunked(_)) {
            return Err(BadResponse::Malformed("HTTP/1.0 has no Transfer-Encoding."));
        }
        Ok(Self {
            status,
            reason,
            fields,
            body,
        })
    }

    /// Whether another response follows (RFC 9110 section 15.2).
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// The status, the phrase and the digit of the minor version: RFC 9112 section 4. The phrase may be empty; some servers leave out the space before it, too.
fn status_line(line: &[u8]) -> Result<(u16, &[u8], u8), BadResponse> {
    let malformed = BadResponse::Malformed("The status line is not one of HTTP/1.1.");
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(malformed)?;
    let [minor, b' ', a, b, c, rest @ ..] = rest else {
        return Err(malformed);
    };
    let digits = [a, b, c];
    if !digits.iter().all(|digit| digit.is_ascii_digit()) || !minor.is_ascii_digit() {
        return Err(malformed);
    }
    let status = digits
        .iter()
        .fold(0, |sum, digit| sum * 10 + u16::from(**digit - b'0'));
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] => reason,
        _ => return Err(malformed),
    };
    if !(100..600).contains(&status) || (status == 101 && *minor == b'0') {
        return Err(malformed);
    }
    Ok((status, reason, *minor))
}

/// RFC 6455 section 4.1, the client's checks 2-4. The value of Sec-WebSocket-Accept is for the
/// client to verify: it made the key.
fn check_switch(fields: &Fields<'_>) -> Result<(), BadResponse> {
    let is_websocket = matches!(
        fields.single("upgrade"),
        Ok(Some(value)) if value.eq_ignore_ascii_case(b"websocket")
    );
    if !is_websocket {
        return Err(BadResponse::NotWebSocket("Upgrade is not websocket."));
    }
    if !fields.lists("connection", "upgrade") {
        return Err(BadResponse::NotWebSocket(
            "Connection does not name Upgrade.",
        ));
    }
    if !matches!(fields.single("sec-websocket-accept"), Ok(Some(_))) {
        return Err(BadResponse::NotWebSocket(
            "There is not one Sec-WebSocket-Accept.",
        ));
    }
    Ok(())
}
