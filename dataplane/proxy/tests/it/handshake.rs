//! The opening handshake, case by case, without sockets.

use proxy::handshake::{
    BadResponse, Body, Limits, Outcome, Reject, Request, RequestParser, ResponseParser,
};

use crate::support::{REQUEST, SWITCH};

fn status(request: &[u8]) -> Option<u16> {
    match RequestParser::default().parse(request) {
        Outcome::NeedMore => panic!("wants more than {:?}", String::from_utf8_lossy(request)),
        Outcome::Done(_, end) => {
            assert_eq!(end, request.len());
            None
        }
        Outcome::Bad(reject) => {
            assert_eq!(response_status(reject), reject.status());
            Some(reject.status())
        }
    }
}

/// The status in the response's first line.
fn response_status(reject: Reject) -> u16 {
    let response = String::from_utf8(reject.response()).unwrap();
    let (head, content) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("\r\nContent-Length: {}", content.len())));
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The good request with one line put in the place of another (or put in, or taken out).
fn with(old: &str, new: &str) -> Vec<u8> {
    let request = str::from_utf8(REQUEST).unwrap();
    assert!(request.contains(old));
    request.replacen(old, new, 1).into_bytes()
}

const HOST: &str = "Host: example.org\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const LINE: &str = "GET /chat HTTP/1.1\r\n";

#[test]
fn the_request_of_the_standard_is_accepted() {
    let Outcome::Done(request, end) = RequestParser::default().parse(REQUEST) else {
        panic!("refused");
    };
    assert_eq!(end, REQUEST.len());
    assert_eq!(request.target, b"/chat");
    assert_eq!(request.host, b"example.org");
}

#[test]
fn accepted_variants() {
    let variants = [
        ("names in any case", with(UPGRADE, "uPGRADE: WebSocket\r\n")),
        (
            "several protocols",
            with(UPGRADE, "Upgrade: foo/2, websocket\r\n"),
        ),
        (
            "a list of options",
            with(CONNECTION, "Connection: keep-alive, upgrade\r\n"),
        ),
        (
            "options in two fields",
            with(
                CONNECTION,
                "Connection: keep-alive\r\nConnection: Upgrade\r\n",
            ),
        ),
        (
            "no space behind the colon",
            with(HOST, "Host:example.org\r\n"),
        ),
        (
            "spaces around a value",
            with(HOST, "Host: \t example.org \t\r\n"),
        ),
        (
            "an IPv6 host with a port",
            with(HOST, "Host: [fe80::1]:8020\r\n"),
        ),
        ("an empty port", with(HOST, "Host: example.org:\r\n")),
        (
            "no content",
            with(HOST, "Host: example.org\r\nContent-Length: 0\r\n"),
        ),
        (
            "bytes beyond ASCII in a value",
            with(HOST, "Host: example.org\r\nA: \u{e9}\r\n"),
        ),
        ("a later minor version", with("HTTP/1.1", "HTTP/1.2")),
        (
            "an empty line in front",
            with(LINE, "\r\nGET /chat HTTP/1.1\r\n"),
        ),
        ("an empty value", with(HOST, "Host: example.org\r\nA:\r\n")),
        (
            "a scheme and a host in the target",
            with("/chat", "http://other.example:8020/chat?a=b"),
        ),
    ];
    for (what, request) in variants {
        assert_eq!(status(&request), None, "{what}");
    }
}

#[test]
fn absolute_form_overrides_host() {
    for (target, path, host) in [
        ("http://a.example/x?y", "/x?y", "a.example"),
        ("WS://b.example:1", "/", "b.example:1"),
    ] {
        let request = with("/chat", target);
        let Outcome::Done(request, _) = RequestParser::default().parse(&request) else {
            panic!("{target} refused");
        };
        assert_eq!(request.target, path.as_bytes());
        assert_eq!(request.host, host.as_bytes());
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn refused_with_400() {
    let host = |line: &str| with(HOST, line);
    let also = |line: &str| with(HOST, &format!("{HOST}{line}"));
    let cases = [
        // RFC 9112 section 6.3 and 11.2: smuggling.
        (
            "length and coding",
            also("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
        ),
        ("a coding", also("Transfer-Encoding: chunked\r\n")),
        ("an obfuscated coding", also("Transfer-Encoding: \tx\r\n")),
        (
            "two lengths",
            also("Content-Length: 0\r\nContent-Length: 0\r\n"),
        ),
        ("a list of lengths", also("Content-Length: 0, 0\r\n")),
        ("content", also("Content-Length: 5\r\n")),
        ("a signed length", also("Content-Length: +0\r\n")),
        // RFC 9112 section 2.2: line ends.
        (
            "bare LF behind the line",
            with(LINE, "GET /chat HTTP/1.1\n"),
        ),
        ("bare LF behind a field", host("Host: example.org\n")),
        ("bare CR in a field", also("A: b\rC: d\r\n")),
        ("two CR", also("A: b\r\r\n")),
        (
            "two empty lines in front",
            with(LINE, "\r\n\r\nGET /chat HTTP/1.1\r\n"),
        ),
        // RFC 9112 section 5.
        ("obs-fold", also("A: b\r\n c\r\n")),
        ("fold with tab", also("A: b\r\n\tc\r\n")),
        (
            "fold of the first field",
            with(LINE, "GET /chat HTTP/1.1\r\n A: b\r\n"),
        ),
        ("space before the colon", host("Host : example.org\r\n")),
        ("space in a name", also("A b: c\r\n")),
        ("no colon", also("nonsense\r\n")),
        ("no name", also(": b\r\n")),
        ("NUL in a value", also("A: b\0c\r\n")),
        ("NUL in the target", with("/chat", "/ch\0at")),
        ("another control", also("A: b\x07c\r\n")),
        ("DEL", also("A: b\x7fc\r\n")),
        // RFC 9112 section 3.
        ("two spaces", with("GET /chat", "GET  /chat")),
        ("a tab for a space", with("GET /chat", "GET\t/chat")),
        ("space at the end", with("HTTP/1.1\r\n", "HTTP/1.1 \r\n")),
        ("no version", with(" HTTP/1.1", "")),
        ("no target", with("GET /chat", "GET ")),
        ("a version of letters", with("HTTP/1.1", "HTTP/1.x")),
        ("a version in small letters", with("HTTP/1.1", "http/1.1")),
        ("a method that is no token", with("GET", "G(T")),
        ("asterisk", with("/chat", "*")),
        ("a relative target", with("/chat", "chat")),
        ("authority form", with("/chat", "example.org:80")),
        ("a fragment", with("/chat", "/chat#part")),
        (
            "a scheme we do not serve",
            with("/chat", "ftp://example.org/"),
        ),
        (
            "user information",
            with("/chat", "http://user@example.org/"),
        ),
        ("bytes beyond ASCII in the target", with("/chat", "/\u{e9}")),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00".to_vec(),
        ),
        // RFC 9112 section 3.2.
        ("no Host", host("")),
        ("two Hosts", also(HOST)),
        ("empty Host", host("Host:\r\n")),
        ("a list of hosts", host("Host: a.example, b.example\r\n")),
        ("Host with a path", host("Host: example.org/x\r\n")),
        (
            "Host with user information",
            host("Host: a@example.org\r\n"),
        ),
        (
            "Host with a port of letters",
            host("Host: example.org:x\r\n"),
        ),
        ("Host that is a port", host("Host: :80\r\n")),
        ("Host with an open bracket", host("Host: [fe80::1\r\n")),
        // RFC 6455 section 4.2.1.
        ("no Connection", with(CONNECTION, "")),
        (
            "Connection without upgrade",
            with(CONNECTION, "Connection: keep-alive\r\n"),
        ),
        (
            "two Upgrades",
            with(UPGRADE, "Upgrade: websocket\r\nUpgrade: websocket\r\n"),
        ),
        ("no key", with(KEY, "")),
        ("two keys", with(KEY, &format!("{KEY}{KEY}"))),
        (
            "a short key",
            with(KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"),
        ),
        (
            "a key not of base64",
            with(KEY, "Sec-WebSocket-Key: dGhlIHNhb*BsZSBub25jZQ==\r\n"),
        ),
        ("no version of WebSocket", with(VERSION, "")),
        (
            "two versions",
            with(VERSION, &format!("{VERSION}{VERSION}")),
        ),
        // RFC 9110 section 7.6.1.
        (
            "Connection names Host",
            with(CONNECTION, "Connection: Upgrade, Host\r\n"),
        ),
        (
            "Connection names the key",
            with(CONNECTION, "Connection: Upgrade, sec-websocket-key\r\n"),
        ),
    ];
    for (what, request) in cases {
        assert_eq!(status(&request), Some(400), "{what}");
    }
}

#[test]
fn refused_with_another_status() {
    let cases = [
        (426, "no Upgrade", with(UPGRADE, "")),
        (426, "h2c", with(UPGRADE, "Upgrade: h2c\r\n")),
        (
            426,
            "a plain request",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        ),
        (
            426,
            "a plain POST",
            b"POST / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        ),
        (426, "HTTP/1.0", with("HTTP/1.1", "HTTP/1.0")),
        (
            426,
            "version 8",
            with(VERSION, "Sec-WebSocket-Version: 8\r\n"),
        ),
        (
            426,
            "a list of versions",
            with(VERSION, "Sec-WebSocket-Version: 13, 8\r\n"),
        ),
        (405, "POST", with("GET", "POST")),
        (405, "a method in small letters", with("GET", "get")),
        (505, "HTTP/2.0", with("HTTP/1.1", "HTTP/2.0")),
    ];
    for (expected, what, request) in cases {
        assert_eq!(status(&request), Some(expected), "{what}");
    }
    for reject in [Reject::NotAnUpgrade, Reject::Version] {
        let response = String::from_utf8(reject.response()).unwrap();
        assert!(response.contains("\r\nUpgrade: websocket\r\n"));
        assert!(response.contains("\r\nSec-WebSocket-Version: 13\r\n"));
        assert!(response.contains("\r\nConnection: upgrade, close\r\n"));
    }
}

#[test]
fn oversize_is_refused_at_its_bound_and_not_before() {
    let limits = Limits::default();
    let parse = |request: &[u8]| match RequestParser::default().parse(request) {
        Outcome::Done(..) => None,
        Outcome::Bad(reject) => Some(reject.status()),
        Outcome::NeedMore => panic!("wants more"),
    };
    let target = |len: usize| with("/chat", &format!("/{}", "a".repeat(len)));
    // "GET ", the slash, " HTTP/1.1", CR.
    let longest = limits.line - 15;
    assert_eq!(parse(&target(longest)), None);
    assert_eq!(parse(&target(longest + 1)), Some(414));
    // A line that never ends is refused while it comes.
    assert_eq!(parse(&vec![b'a'; limits.line + 1]), Some(414));

    let fields = |n: usize| with(HOST, &format!("{HOST}{}", "A: b\r\n".repeat(n)));
    assert_eq!(parse(&fields(limits.fields - 5)), None);
    assert_eq!(parse(&fields(limits.fields - 4)), Some(431));
    let value = |len: usize| with(HOST, &format!("{HOST}A: {}\r\n", "b".repeat(len)));
    assert_eq!(parse(&value(limits.head - REQUEST.len() - 5)), None);
    assert_eq!(parse(&value(limits.head)), Some(431));
}

#[test]
fn what_follows_the_request_is_left() {
    let stream = [REQUEST, b"\x81\x80abcd"].concat();
    let outcome: Outcome<Request<'_>, _> = RequestParser::default().parse(&stream);
    assert!(matches!(outcome, Outcome::Done(_, end) if end == REQUEST.len()));
}

fn answer(response: &[u8]) -> Result<(u16, Body, usize), BadResponse> {
    match ResponseParser::default().parse(response) {
        Outcome::Done(response, end) => Ok((response.status, response.body, end)),
        Outcome::Bad(bad) => Err(bad),
        Outcome::NeedMore => panic!("wants more than {:?}", String::from_utf8_lossy(response)),
    }
}

#[test]
fn answers_that_are_understood() {
    let switch = (101, Body::Length(0), SWITCH.len());
    assert_eq!(answer(SWITCH), Ok(switch));
    let cases: [(&str, u16, Body); 7] = [
        (
            "HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\n",
            403,
            Body::Length(7),
        ),
        ("HTTP/1.1 302\r\n\r\n", 302, Body::UntilEnd),
        ("HTTP/1.1 302 \r\n\r\n", 302, Body::UntilEnd),
        ("HTTP/1.0 500 Old\r\n\r\n", 500, Body::UntilEnd),
        (
            "HTTP/1.1 204 None\r\nContent-Length: 7\r\n\r\n",
            204,
            Body::Length(0),
        ),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", 103, Body::Length(0)),
        (
            "HTTP/1.1 401 No\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            401,
            Body::chunked(),
        ),
    ];
    for (response, status, body) in cases {
        assert_eq!(
            answer(response.as_bytes()),
            Ok((status, body, response.len()))
        );
    }
}

#[test]
fn answers_of_no_use() {
    let switch = str::from_utf8(SWITCH).unwrap();
    let cases = [
        ("nothing of HTTP", "SSH-2.0-OpenSSH\r\n\r\n".to_owned()),
        ("no status", "HTTP/1.1 OK\r\n\r\n".to_owned()),
        (
            "a status of four digits",
            "HTTP/1.1 2000 OK\r\n\r\n".to_owned(),
        ),
        ("a status below 100", "HTTP/1.1 099 OK\r\n\r\n".to_owned()),
        ("bare LF", switch.replace("\r\n", "\n")),
        ("101 by HTTP/1.0", switch.replace("HTTP/1.1", "HTTP/1.0")),
        ("101 to something else", switch.replace("websocket", "h2c")),
        (
            "101 without Upgrade",
            switch.replace("Upgrade: websocket\r\n", ""),
        ),
        (
            "101 without Connection",
            switch.replace("Connection: Upgrade\r\n", ""),
        ),
        (
            "101 without proof",
            switch.replace("Sec-WebSocket-Accept", "X-Accept"),
        ),
        (
            "two proofs",
            switch.replace("Upgrade: w", "Sec-WebSocket-Accept: x\r\nUpgrade: w"),
        ),
        (
            "length and coding",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        ),
        (
            "no length",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_owned(),
        ),
        (
            "a field without colon",
            "HTTP/1.1 200 OK\r\nx\r\n\r\n".to_owned(),
        ),
        (
            "too long",
            format!("HTTP/1.1 200 OK\r\nA: {}\r\n", "b".repeat(40_000)),
        ),
    ];
    for (what, response) in cases {
        assert!(answer(response.as_bytes()).is_err(), "{what}");
    }
}
