//! An answer of HTTP/1.1, written by an endpoint or by us, as HTTP/2 has it.

use http::{HeaderMap, HeaderName, HeaderValue, Response as Answer, StatusCode};

use crate::handshake::{Body, Fields, Response};

/// Fields of the connection (RFC 9113 section 8.2.2), and the one that HTTP/2 has no use for (RFC 8441
/// section 5).
const LEFT_OUT: [&str; 6] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "sec-websocket-accept",
    "transfer-encoding",
    "upgrade",
];

/// What stands for a status of HTTP/1.1.
pub(crate) const fn status(of_http1: u16) -> u16 {
    match of_http1 {
        // RFC 8441 section 5.
        101 => 200,
        // It would have to name Upgrade (RFC 9110 section 15.5.22), which HTTP/2 does not have.
        426 => 400,
        status => status,
    }
}

/// The head, and whether nothing follows it.
pub(super) fn head(response: &Response<'_>) -> (Answer<()>, bool) {
    let mut answer = Answer::new(());
    let status = StatusCode::from_u16(status(response.status));
    *answer.status_mut() = status.unwrap_or(StatusCode::BAD_GATEWAY);
    *answer.headers_mut() = fields(&response.fields);
    let is_empty = response.status != 101 && response.body == Body::Length(0);
    (answer, is_empty)
}

/// Fields, of a head or behind content.
pub(super) fn fields(of: &Fields<'_>) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in of.iter() {
        if LEFT_OUT
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
        {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes());
        // What stood in HTTP/1.1 and cannot here is no reason to lose the session.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{Outcome, Reject, ResponseParser};

    fn answer(text: &[u8]) -> (Answer<()>, bool) {
        let mut parser = ResponseParser::default();
        let Outcome::Done(response, _) = parser.parse(text) else {
            panic!("not read: {}", String::from_utf8_lossy(text));
        };
        head(&response)
    }

    #[test]
    fn a_switch_is_a_success_without_the_fields_of_the_connection() {
        let (answer, is_empty) = answer(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\nSet-Cookie: a=1\r\n\
              Set-Cookie: b=2\r\n\r\n",
        );
        assert_eq!((answer.status(), is_empty), (StatusCode::OK, false));
        let headers = answer.headers();
        assert_eq!(headers.len(), 3, "{headers:?}");
        assert_eq!(headers["sec-websocket-protocol"], "chat");
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn each_refusal_of_ours_has_its_form() {
        for (reject, expected) in [
            (Reject::NotAnUpgrade, 400),
            (Reject::Version, 400),
            (Reject::NoRoute, 404),
            (Reject::Full, 503),
        ] {
            let (answer, is_empty) = answer(&reject.response());
            assert_eq!((answer.status().as_u16(), is_empty), (expected, false));
            assert!(!answer.headers().contains_key("connection"));
        }
        let (answer, is_empty) = answer(b"HTTP/1.1 204 No Content\r\n\r\n");
        assert_eq!((answer.status(), is_empty), (StatusCode::NO_CONTENT, true));
    }
}
