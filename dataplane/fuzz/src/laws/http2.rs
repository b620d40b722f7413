//! What must hold for any request in a stream of HTTP/2 that the library lets through. As text: a line each for
//! method, `:protocol` (empty: none), `:scheme`, `:authority` and `:path`, then one for each field, `name: value`.

use http::{
    HeaderName, HeaderValue, Method, Request, Uri,
    request::Parts,
    uri::{self, Authority, PathAndQuery, Scheme},
};
use proxy::{
    handshake::{Outcome, Request as Handshake, RequestParser},
    http2::{Protocol, request::head},
};

/// The example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// In HTTP/1.1 the request is read to its very end, and says what it said in HTTP/2: nothing that a client writes
/// becomes a field, a request or a host of its own.
pub fn request(bytes: &[u8]) {
    let Some(parts) = parts(bytes) else {
        return;
    };
    let Ok(head) = head(&parts, KEY) else {
        return;
    };
    match RequestParser::default().parse(&head) {
        // The stream would wait for what never comes.
        Outcome::NeedMore => panic!("no end: {}", head.escape_ascii()),
        Outcome::Bad(_) => {}
        Outcome::Done(read, end) => {
            assert_eq!(end, head.len(), "something behind: {}", head.escape_ascii());
            check(&parts, &read);
        }
    }
}

fn check(parts: &Parts, read: &Handshake<'_>) {
    assert_eq!(parts.method, Method::CONNECT);
    let protocol = parts.extensions.get::<Protocol>();
    assert_eq!(protocol.map(Protocol::as_str), Some("websocket"));
    assert_eq!(parts.uri.scheme(), Some(&Scheme::HTTPS));
    let authority = parts.uri.authority().map(Authority::as_str);
    assert_eq!(authority.map(str::as_bytes), Some(read.host));
    let target = parts.uri.path_and_query().map(PathAndQuery::as_str);
    assert_eq!(target.map(str::as_bytes), Some(read.target));
    let keys: Vec<_> = read.fields.all("sec-websocket-key").collect();
    assert_eq!(keys, [KEY.as_bytes()]);
    assert_eq!(read.fields.all("host").count(), 1);
    for name in parts.headers.keys() {
        let given = parts.headers.get_all(name).iter();
        let given: Vec<&[u8]> = given.map(|value| value.as_bytes().trim_ascii()).collect();
        let found: Vec<&[u8]> = read.fields.all(name.as_str()).collect();
        match name.as_str() {
            // Written anew, or without a place in HTTP/1.1.
            "host" | "sec-websocket-key" | "te" | "upgrade" | "connection" => {}
            "cookie" => assert_eq!(found.len(), 1, "crumbs of cookies"),
            _ => assert_eq!(found, given, "{name}"),
        }
    }
    for (name, _) in read.fields.iter() {
        let is_ours = ["host", "upgrade", "connection", "sec-websocket-key"]
            .iter()
            .any(|ours| name.eq_ignore_ascii_case(ours));
        assert!(is_ours || parts.headers.contains_key(name), "{name} is new");
    }
}

/// What the proxy makes of it: the status of a refusal in HTTP/2, one of the parser's, or where it leads.
pub fn outcome(bytes: &[u8]) -> String {
    let Some(parts) = parts(bytes) else {
        return "malformed".to_owned();
    };
    let head = match head(&parts, KEY) {
        Ok(head) => head,
        Err(status) => return status.as_u16().to_string(),
    };
    match RequestParser::default().parse(&head) {
        Outcome::NeedMore => "more".to_owned(),
        Outcome::Bad(reject) => format!("{reject:?}"),
        Outcome::Done(request, _) => {
            let [host, target] = [request.host, request.target].map(String::from_utf8_lossy);
            format!("{host}{target}")
        }
    }
}

/// The request, as the library `h2` makes it of what it has decoded.
fn parts(bytes: &[u8]) -> Option<Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let method = Method::from_bytes(lines.next()?).ok()?;
    let protocol = std::str::from_utf8(lines.next()?).ok()?;
    let mut target = uri::Parts::default();
    let scheme = Scheme::try_from(lines.next()?).ok()?;
    let authority = lines.next()?;
    if !authority.is_empty() {
        target.authority = Some(Authority::try_from(authority).ok()?);
        target.scheme = Some(scheme);
    }
    let path = lines.next()?;
    if path.is_empty() {
        return None;
    }
    target.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(target).ok()?;
    if !protocol.is_empty() {
        request.extensions_mut().insert(Protocol::from(protocol));
    }
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let name = HeaderName::from_lowercase(name).ok()?;
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let value = HeaderValue::from_bytes(value).ok()?;
        request.headers_mut().append(name, value);
    }
    Some(request.into_parts().0)
}
