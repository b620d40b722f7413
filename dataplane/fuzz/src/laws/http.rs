//! What must hold for any bytes that come from a client or a backend before the upgrade. The first byte says how
//! the rest is cut.

use std::fmt::Debug;

use proxy::handshake::{
    Body, BodyEnd, Fields, Incoming, Outcome, Reject, Request, RequestParser, Response,
    ResponseParser,
};

use super::cuts::cuts;

/// A client's request: read the same however it is cut, and as another parser reads it.
pub fn request(bytes: &[u8]) {
    let Some((seed, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = RequestParser::default().parse(bytes);
    let mut parser = RequestParser::default();
    let mut last = Outcome::NeedMore;
    for end in cuts(bytes, *seed) {
        last = parser.parse(&bytes[..end]);
        if last != Outcome::NeedMore {
            break;
        }
    }
    assert_eq!(last, whole, "cut and whole");
    plain_request(bytes, &whole);
    if let Outcome::Done(request, end) = whole {
        check_request(&request, &bytes[..end]);
        let shorter = RequestParser::default().parse(&bytes[..end - 1]);
        assert_eq!(shorter, Outcome::NeedMore, "it ended before its end");
    }
}

/// Where requests may ask for no session, those that ask for one are judged no otherwise, and of the others too
/// another parser reads the same.
fn plain_request(bytes: &[u8], strict: &Outcome<Request<'_>, Reject>) {
    let request = match (RequestParser::default().parse_any(bytes), strict) {
        (Outcome::Done(Incoming::Plain(request), end), Outcome::Bad(_)) => (request, end),
        (Outcome::Done(Incoming::Upgrade(request), end), strict) => {
            assert_eq!(*strict, Outcome::Done(request, end), "another session");
            return;
        }
        (Outcome::NeedMore, Outcome::NeedMore) | (Outcome::Bad(_), Outcome::Bad(_)) => return,
        (any, strict) => panic!("{any:?} and {strict:?}"),
    };
    let (request, end) = request;
    check_fields(&request.asks.fields);
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut other = httparse::Request::new(&mut fields);
    if let Ok(httparse::Status::Complete(length)) = other.parse(&bytes[..end]) {
        assert_eq!(length, end);
        assert_eq!(other.method.map(str::as_bytes), Some(request.method));
        same_fields(&request.asks.fields, other.headers);
    }
}

fn check_request(request: &Request<'_>, head: &[u8]) {
    assert!(matches!(request.target, [b'/', ..]) && !request.host.is_empty());
    assert!(request.target.iter().all(u8::is_ascii_graphic));
    check_fields(&request.fields);
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut other = httparse::Request::new(&mut fields);
    // Where it is less strict it may refuse something else; what both take they must take for the same.
    if let Ok(httparse::Status::Complete(end)) = other.parse(head) {
        assert_eq!(end, head.len());
        assert_eq!(other.method, Some("GET"));
        let path = other.path.unwrap_or_default();
        let is_absolute = !path.starts_with('/');
        assert!(is_absolute || path.as_bytes() == request.target);
        same_fields(&request.fields, other.headers);
    }
}

/// A backend's answers, interim ones before the last, and the content of the last: all the same however they
/// are cut.
pub fn response(bytes: &[u8]) {
    let Some((seed, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = answers(bytes, &[bytes.len()]);
    assert_eq!(answers(bytes, &cuts(bytes, *seed)), whole, "cut and whole");
}

/// What a stream of bytes that comes in these pieces brings, one line each, as the proxy reads it.
pub fn answers(bytes: &[u8], ends: &[usize]) -> Vec<String> {
    let mut found = Vec::new();
    let mut parser = ResponseParser::default();
    let mut start = 0;
    let mut body: Option<(Body, usize)> = None;
    for end in ends {
        while body.is_none() {
            match parser.parse(&bytes[start..*end]) {
                Outcome::NeedMore => break,
                Outcome::Bad(why) => {
                    found.push(format!("bad: {why}"));
                    return found;
                }
                Outcome::Done(response, length) => {
                    check_response(&response, &bytes[start..start + length]);
                    found.push(format!("{} {length}", response.status));
                    start += length;
                    if response.is_interim() {
                        parser = ResponseParser::default();
                    } else {
                        body = Some((response.body, start));
                    }
                }
            }
        }
        if let Some((body, at)) = &mut body {
            let begun = start;
            match body.advance(&bytes[*at..*end]) {
                BodyEnd::More => *at = *end,
                BodyEnd::At(length) => {
                    let content = &bytes[begun..*at + length];
                    found.push(format!("content of {}", content.len()));
                    return found;
                }
                BodyEnd::Broken(length) => {
                    found.push(format!("content broken at {}", *at + length - begun));
                    return found;
                }
            }
        }
    }
    found
}

fn check_response(response: &Response<'_>, head: &[u8]) {
    assert!((100..600).contains(&response.status));
    check_fields(&response.fields);
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut other = httparse::Response::new(&mut fields);
    if let Ok(httparse::Status::Complete(end)) = other.parse(head) {
        assert_eq!(end, head.len());
        assert_eq!(other.code, Some(response.status));
        same_fields(&response.fields, other.headers);
    }
}

/// Content in chunks: it ends where the grammar of RFC 9112 section 7.1 has it end, and nowhere else.
pub fn chunks(bytes: &[u8]) {
    let Some((seed, bytes)) = bytes.split_first() else {
        return;
    };
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let Outcome::Done(Response { mut body, .. }, _) = ResponseParser::default().parse(head) else {
        panic!("a plain head is refused");
    };
    let mut at = 0;
    for end in cuts(bytes, *seed) {
        match body.advance(&bytes[at..end]) {
            BodyEnd::More => at = end,
            BodyEnd::At(length) => {
                assert_eq!(chunked(bytes), Some(at + length), "another end");
                return;
            }
            BodyEnd::Broken(length) => {
                assert_eq!(chunked(bytes), None, "broken at {}", at + length);
                return;
            }
        }
    }
    assert_eq!(chunked(bytes), None, "it went on behind its end");
}

/// Where the content ends: the grammar, on bytes that are all there.
pub fn chunked(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let line = |at: usize| {
        let rest = &bytes[at..];
        let length = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
        rest[length..]
            .starts_with(b"\r\n")
            .then_some(&rest[..length])
    };
    loop {
        let size_line = line(at)?;
        at += size_line.len() + 2;
        let digits = size_line.iter().position(|byte| !byte.is_ascii_hexdigit());
        let (digits, rest) = size_line.split_at(digits.unwrap_or(size_line.len()));
        // Whitespace, then perhaps an extension; no more of it than anybody writes.
        let extension = rest.trim_ascii_start();
        let is_extension = extension.is_empty()
            || extension.starts_with(b";")
                && extension
                    .iter()
                    .all(|byte| *byte == b'\t' || !byte.is_ascii_control());
        let blank = &rest[..rest.len() - extension.len()];
        let is_blank = blank.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        if !is_extension || !is_blank || size_line.len() > 254 {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        let size = u64::from_str_radix(digits, 16).ok()?;
        if size == 0 {
            break;
        }
        at = at.checked_add(usize::try_from(size).ok()?)?;
        let behind = at.checked_add(2)?;
        if bytes.get(at..behind)? != b"\r\n" {
            return None;
        }
        at = behind;
    }
    let begun = at;
    loop {
        let trailer = line(at)?;
        at += trailer.len() + 2;
        if at - begun > 8192 {
            return None;
        }
        if trailer.is_empty() {
            return Some(at);
        }
    }
}

fn check_fields(fields: &Fields<'_>) {
    for (name, value) in fields.iter() {
        assert!(
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && byte != b':')
        );
        // What would end a field or a head when it is written again.
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
}

fn same_fields(ours: &Fields<'_>, others: &[httparse::Header<'_>]) {
    let ours: Vec<_> = ours.iter().collect();
    let others = others.iter();
    let others: Vec<_> = others
        .map(|field| (field.name, field.value.trim_ascii()))
        .collect();
    same(&ours, &others);
}

fn same<T: Debug + PartialEq>(ours: &T, others: &T) {
    assert_eq!(ours, others, "another parser reads something else");
}
