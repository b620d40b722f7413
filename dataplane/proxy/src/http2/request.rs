//! A request of HTTP/2 as the same handshake would read in HTTP/1.1, so that one parser judges both and
//! endpoints get one form.

use h2::ext::Protocol;
use http::{HeaderValue, Method, StatusCode, header, request::Parts, uri::Scheme};

/// Fields that are written here, or that HTTP/1.1 has in another place.
const WRITTEN: [&str; 4] = ["cookie", "host", "sec-websocket-key", "upgrade"];

/// The head, with `key` as the Sec-WebSocket-Key that HTTP/2 has no use for (RFC 8441 section 5). A
/// request that asks for no session reads as one that asks for no upgrade.
///
/// # Errors
/// The status for a request that HTTP/1.1 has no form for.
pub fn head(request: &Parts, key: &str) -> Result<Vec<u8>, StatusCode> {
    let is_connect = request.method == Method::CONNECT;
    let protocol = request.extensions.get::<Protocol>();
    if is_connect && protocol.is_none_or(|protocol| protocol.as_str() != "websocket") {
        return Err(StatusCode::NOT_IMPLEMENTED);
    }
    let (Some(authority), Some(path)) = (request.uri.authority(), request.uri.path_and_query())
    else {
        return Err(StatusCode::BAD_REQUEST);
    };
    if request.uri.scheme() != Some(&Scheme::HTTPS) {
        // TLS is spoken here: what is asked for is elsewhere (RFC 9110 sections 7.4 and 15.5.20).
        return Err(StatusCode::MISDIRECTED_REQUEST);
    }
    // RFC 9113 section 8.3.1: a Host beside :authority says the same or is malformed.
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let goes_to = normal(authority.as_str().as_bytes());
    if hosts.any(|host| !normal(host.as_bytes()).eq_ignore_ascii_case(goes_to)) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let method = if is_connect {
        Method::GET
    } else {
        request.method.clone()
    };
    let mut head = Vec::with_capacity(512);
    let mut put = |parts: &[&[u8]]| {
        for part in parts {
            head.extend_from_slice(part);
        }
    };
    let [method, path, authority] =
        [method.as_str(), path.as_str(), authority.as_str()].map(str::as_bytes);
    put(&[method, b" ", path, b" HTTP/1.1\r\n"]);
    put(&[b"Host: ", authority, b"\r\n"]);
    if is_connect {
        put(&[b"Upgrade: websocket\r\nConnection: Upgrade\r\n"]);
        put(&[b"Sec-WebSocket-Key: ", key.as_bytes(), b"\r\n"]);
    }
    for (name, value) in &request.headers {
        let is_written = match name.as_str() {
            // A handshake has no trailer.
            "te" => is_connect,
            name => WRITTEN.contains(&name),
        };
        if !is_written {
            put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    // RFC 9113 section 8.2.3: the crumbs become one field.
    let crumbs = request.headers.get_all(header::COOKIE).iter();
    let crumbs: Vec<&[u8]> = crumbs.map(HeaderValue::as_bytes).collect();
    if !crumbs.is_empty() {
        put(&[b"cookie: ", &crumbs.join(&b"; "[..]), b"\r\n"]);
    }
    put(&[b"\r\n"]);
    Ok(head)
}

/// An authority without the port that `https` has anyway (RFC 3986 section 6.2.3).
fn normal(authority: &[u8]) -> &[u8] {
    let without = authority.strip_suffix(b"443").unwrap_or(authority);
    without.strip_suffix(b":").unwrap_or(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{Outcome, Reject, RequestParser};

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn asked(method: Method, protocol: Option<&'static str>, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder()
            .method(method)
            .uri("https://chat.example:8443/room?x=1");
        if let Some(protocol) = protocol {
            request = request.extension(Protocol::from_static(protocol));
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn refusal(parts: &Parts) -> Reject {
        let head = head(parts, KEY).unwrap();
        match RequestParser::default().parse(&head) {
            Outcome::Bad(reject) => reject,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_extended_connect_reads_as_a_handshake() {
        let fields = [
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("host", "chat.example:8443"),
            ("te", "trailers"),
            ("origin", "https://chat.example"),
        ];
        let parts = asked(Method::CONNECT, Some("websocket"), &fields);
        let head = head(&parts, KEY).unwrap();
        let mut parser = RequestParser::default();
        let Outcome::Done(request, end) = parser.parse(&head) else {
            panic!("refused: {}", String::from_utf8_lossy(&head));
        };
        assert_eq!(end, head.len());
        assert_eq!(request.target, b"/room?x=1");
        assert_eq!(request.host, b"chat.example:8443");
        let all = |name| request.fields.all(name).collect::<Vec<_>>();
        assert_eq!(all("cookie"), [b"a=1; b=2"]);
        assert_eq!(all("host"), [b"chat.example:8443"]);
        assert_eq!(all("sec-websocket-protocol"), [b"chat"]);
        assert_eq!(all("sec-websocket-key"), [KEY.as_bytes()]);
        assert!(all("te").is_empty());
    }

    #[test]
    fn what_is_no_websocket_is_for_the_parser_to_refuse_or_gets_a_status() {
        let of = |protocol| head(&asked(Method::CONNECT, protocol, &[]), KEY).unwrap_err();
        assert_eq!(of(None), StatusCode::NOT_IMPLEMENTED);
        assert_eq!(of(Some("connect-udp")), StatusCode::NOT_IMPLEMENTED);
        for method in [Method::GET, Method::POST] {
            let fields = [("sec-websocket-version", "13")];
            let refusal = refusal(&asked(method, None, &fields));
            assert_eq!(refusal, Reject::NotAnUpgrade);
        }
    }

    #[test]
    fn one_that_says_two_things_of_where_it_goes_gets_a_status() {
        let fields = [("host", "other.example")];
        let parts = asked(Method::CONNECT, Some("websocket"), &fields);
        assert_eq!(head(&parts, KEY).unwrap_err(), StatusCode::BAD_REQUEST);
        let mut parts = asked(Method::CONNECT, Some("websocket"), &[]);
        parts.uri = "http://chat.example/".parse().unwrap();
        let misdirected = StatusCode::MISDIRECTED_REQUEST;
        assert_eq!(head(&parts, KEY).unwrap_err(), misdirected);
        parts.uri = "https://user@chat.example/".parse().unwrap();
        let head = head(&parts, KEY).unwrap();
        let parsed = RequestParser::default().parse(&head);
        assert!(matches!(parsed, Outcome::Bad(Reject::Malformed(_))));
    }

    #[test]
    fn a_host_that_is_written_otherwise_is_the_same() {
        for (authority, host) in [
            ("chat.example:8443", "Chat.EXAMPLE:8443"),
            ("chat.example", "chat.example:443"),
            ("chat.example:", "CHAT.example"),
        ] {
            let mut parts = asked(Method::CONNECT, Some("websocket"), &[("host", host)]);
            parts.uri = format!("https://{authority}/").parse().unwrap();
            assert!(head(&parts, KEY).is_ok(), "{host} at {authority}");
        }
        for (authority, host) in [
            ("chat.example", "chat.example:8443"),
            ("chat.example443", "chat.example"),
        ] {
            let mut parts = asked(Method::CONNECT, Some("websocket"), &[("host", host)]);
            parts.uri = format!("https://{authority}/").parse().unwrap();
            assert!(head(&parts, KEY).is_err(), "{host} at {authority}");
        }
    }

    #[test]
    fn a_handshake_that_is_incomplete_is_for_the_parser_to_refuse() {
        let connect = |fields: &[_]| refusal(&asked(Method::CONNECT, Some("websocket"), fields));
        let version = ("sec-websocket-version", "13");
        for fields in [&[][..], &[("content-length", "3"), version]] {
            assert!(matches!(connect(fields), Reject::Malformed(_)));
        }
        assert_eq!(connect(&[("sec-websocket-version", "8")]), Reject::Version);
    }
}
