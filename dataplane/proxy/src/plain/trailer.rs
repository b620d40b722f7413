//! Fields behind chunked content (RFC 9110 section 6.5).

use crate::{forward::put, handshake::Fields};

/// Fields that may not stand there (RFC 9110 section 6.5.1), of those that say how a message is read, where
/// it goes or whether it may.
const NOT_THERE: [&str; 16] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A trailer section without what may not stand there, and without its last line, which is empty; `None`:
/// it is malformed.
pub(super) fn pass(section: &[u8]) -> Option<Vec<u8>> {
    let mut passed = Vec::new();
    if section.len() <= 2 {
        return Some(passed);
    }
    for (name, value) in Fields::of_section(section)?.iter() {
        if !NOT_THERE.iter().any(|it| name.eq_ignore_ascii_case(it)) {
            put(&mut passed, name, value);
        }
    }
    Some(passed)
}
