//! A client's opening handshake (RFC 6455 section 4.2.1).

use super::{
    Incoming, Outcome, Reject,
    head::{Cursor, Fault, Fields, Limits, alphanumeric_or, is_token},
};

/// What a request asks for. One for an upgrade meets every condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request<'a> {
    /// Path and query.
    pub target: &'a [u8],
    /// Host and port asked for, from the target where that has them.
    pub host: &'a [u8],
    /// All fields.
    pub fields: Fields<'a>,
}

/// Reads a request as it arrives.
#[derive(Clone, Debug, Default)]
pub struct RequestParser {
    cursor: Cursor,
    limits: Limits,
}

impl RequestParser {
    /// A parser with other bounds than the default ones.
    pub fn with_limits(limits: Limits) -> Self {
        Self {
            cursor: Cursor::default(),
            limits,
        }
    }

    /// Looks at all bytes received so far; only new ones are read again.
    pub fn parse<'a>(&mut self, buf: &'a [u8]) -> Outcome<Request<'a>, Reject> {
        self.parse_as(buf, |head| Start::read(head).and_then(Request::of))
    }

    /// The same where a request may ask for no upgrade.
    pub fn parse_any<'a>(&mut self, buf: &'a [u8]) -> Outcome<Incoming<'a>, Reject> {
        self.parse_as(buf, Incoming::read)
    }

    fn parse_as<'a, T>(
        &mut self,
        buf: &'a [u8],
        read: impl FnOnce(&'a [u8]) -> Result<T, Reject>,
    ) -> Outcome<T, Reject> {
        match self.cursor.advance(buf, self.limits) {
            Outcome::NeedMore => Outcome::NeedMore,
            Outcome::Bad(Fault::LineTooLong) => Outcome::Bad(Reject::TargetTooLong),
            Outcome::Bad(Fault::TooLarge) => Outcome::Bad(Reject::FieldsTooLarge),
            Outcome::Bad(Fault::Malformed(why)) => Outcome::Bad(Reject::Malformed(why)),
            Outcome::Done(start, end) => match read(&buf[start..end]) {
                Ok(request) => Outcome::Done(request, end),
                Err(reject) => Outcome::Bad(reject),
            },
        }
    }
}

/// What requests of all kinds have.
pub(super) struct Start<'a> {
    pub(super) method: &'a [u8],
    /// As it came.
    pub(super) target: &'a [u8],
    /// Of the version.
    pub(super) minor: u8,
    /// The Host field.
    pub(super) host: &'a [u8],
    pub(super) fields: Fields<'a>,
}

impl<'a> Start<'a> {
    pub(super) fn read(head: &'a [u8]) -> Result<Self, Reject> {
        let (line, fields) = Fields::split(head).map_err(Reject::Malformed)?;
        let [method, target, version] = split_line(line)?;
        let minor = minor_version(version)?;
        let host = single(&fields, "host", "Host is there more than once.")?;
        let host = host.ok_or(Reject::Malformed("Host is missing."))?;
        if !is_authority(host) {
            return Err(Reject::Malformed("Host is not a host."));
        }
        Ok(Self {
            method,
            target,
            minor,
            host,
            fields,
        })
    }
}

impl<'a> Request<'a> {
    pub(super) fn of(start: Start<'a>) -> Result<Self, Reject> {
        let Start {
            method,
            target,
            minor,
            host,
            fields,
        } = start;
        check_body(&fields)?;
        check_upgrade(method, minor, &fields)?;
        let (target, host) = target_and_host(target, host)?;
        check_websocket(&fields)?;
        Ok(Self {
            target,
            host,
            fields,
        })
    }
}

/// Path and query, and whose they are: `host` unless the target says so.
pub(super) fn target_and_host<'a>(
    target: &'a [u8],
    host: &'a [u8],
) -> Result<(&'a [u8], &'a [u8]), Reject> {
    let (target, host) = match target {
        [b'/', ..] => (target, host),
        _ => absolute_form(target)?,
    };
    if target.contains(&b'#') {
        return Err(Reject::Malformed("The target has a fragment."));
    }
    Ok((target, host))
}

/// RFC 9112 section 3: exactly one space between the three parts.
fn split_line(line: &[u8]) -> Result<[&[u8]; 3], Reject> {
    let malformed = Reject::Malformed("The request line is malformed.");
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed);
    };
    if !is_token(method) || target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(malformed);
    }
    Ok([method, target, version])
}

/// RFC 9112 section 2.3.
fn minor_version(version: &[u8]) -> Result<u8, Reject> {
    match version {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major == b'1' {
                Ok(minor - b'0')
            } else {
                Err(Reject::HttpVersion)
            }
        }
        _ => Err(Reject::Malformed("The request line is malformed.")),
    }
}

/// A handshake has no body. One that claims to have is where smuggled requests hide (RFC 9112
/// section 6.3 and 11.2).
fn check_body(fields: &Fields<'_>) -> Result<(), Reject> {
    if fields.all("transfer-encoding").next().is_some() {
        return Err(Reject::Malformed("A handshake has no Transfer-Encoding."));
    }
    match single(
        fields,
        "content-length",
        "Content-Length is there more than once.",
    )? {
        None | Some(b"0") => Ok(()),
        Some(_) => Err(Reject::Malformed("A handshake has no content.")),
    }
}

/// RFC 6455 section 4.2.1, items 1, 3 and 4.
fn check_upgrade(method: &[u8], minor: u8, fields: &Fields<'_>) -> Result<(), Reject> {
    // RFC 9110 section 7.8: Upgrade in a request of HTTP/1.0 is ignored.
    if minor == 0 {
        return Err(Reject::NotAnUpgrade);
    }
    let upgrade = single(fields, "upgrade", "Upgrade is there more than once.")?;
    if upgrade.is_none() || !fields.lists("upgrade", "websocket") {
        return Err(Reject::NotAnUpgrade);
    }
    if !fields.lists("connection", "upgrade") {
        return Err(Reject::Malformed("Connection does not name Upgrade."));
    }
    if method != b"GET" {
        return Err(Reject::Method);
    }
    // RFC 9110 section 7.6.1: Connection must not name what is for all recipients; a proxy that
    // obeyed would take the handshake apart.
    let named = |option: &[u8]| {
        const OWN: &[u8] = b"sec-websocket-";
        let start = option.get(..OWN.len());
        option.eq_ignore_ascii_case(b"host")
            || start.is_some_and(|start| start.eq_ignore_ascii_case(OWN))
    };
    if fields.list("connection").any(named) {
        return Err(Reject::Malformed(
            "Connection names a field of the handshake.",
        ));
    }
    Ok(())
}

/// RFC 6455 section 4.2.1, items 5 and 6.
fn check_websocket(fields: &Fields<'_>) -> Result<(), Reject> {
    let several = "Sec-WebSocket-Version is there more than once.";
    let version = single(fields, "sec-websocket-version", several)?;
    match version {
        Some(b"13") => {}
        Some(_) => return Err(Reject::Version),
        None => return Err(Reject::Malformed("Sec-WebSocket-Version is missing.")),
    }
    let several = "Sec-WebSocket-Key is there more than once.";
    let key = single(fields, "sec-websocket-key", several)?;
    if !is_key(key.ok_or(Reject::Malformed("Sec-WebSocket-Key is missing."))?) {
        return Err(Reject::Malformed(
            "Sec-WebSocket-Key is not 16 bytes in base64.",
        ));
    }
    Ok(())
}

fn is_key(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(is_digit)
}

/// RFC 9112 section 3.2.2: a server accepts it, and the target's host overrides the Host field.
fn absolute_form(target: &[u8]) -> Result<(&[u8], &[u8]), Reject> {
    let malformed = Reject::Malformed("The target is malformed.");
    let schemes: [&[u8]; 4] = [b"http://", b"https://", b"ws://", b"wss://"];
    let has = |scheme: &&&[u8]| {
        let start = target.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let scheme = schemes.iter().find(has).ok_or(malformed)?;
    let rest = &target[scheme.len()..];
    let slash = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let (host, path) = rest.split_at(slash.unwrap_or(rest.len()));
    if !is_authority(host) {
        return Err(malformed);
    }
    match path {
        [] => Ok((b"/", host)),
        [b'/', ..] => Ok((path, host)),
        _ => Err(malformed),
    }
}

/// A host and perhaps a port (RFC 3986 section 3.2.2), without user information.
fn is_authority(host: &[u8]) -> bool {
    static ALLOWED: [bool; 256] = alphanumeric_or(b"-._~%!$&'()*+;=:[]");
    let is_allowed = |byte: &u8| ALLOWED[usize::from(*byte)];
    if host.is_empty() || !host.iter().all(is_allowed) {
        return false;
    }
    let (name, port) = match host {
        // An IPv6 address: colons stand inside of the brackets.
        [b'[', rest @ ..] => match rest.iter().position(|byte| *byte == b']') {
            Some(end) if end > 0 => (&rest[..end], &rest[end + 1..]),
            _ => return false,
        },
        _ => match host.iter().position(|byte| *byte == b':') {
            Some(colon) => host.split_at(colon),
            None => (host, &[][..]),
        },
    };
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !name.is_empty() && !name.iter().any(|byte| b"[]".contains(byte)) && is_port
}

pub(super) fn single<'a>(
    fields: &Fields<'a>,
    name: &str,
    several: &'static str,
) -> Result<Option<&'a [u8]>, Reject> {
    fields.single(name).map_err(|()| Reject::Malformed(several))
}
