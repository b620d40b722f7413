//! Paths, as servers read them.
//!
//! What a server makes of a path is its own affair, and what it was given is what the client wrote. So a
//! path counts in each way in which it may be read: as it stands, its percent-encoding undone (RFC 3986
//! section 6.2.2.2), and without the parameters of its elements (section 3.3) and without empty elements,
//! which some servers take away. What some resolve across elements is refused: dot segments (section
//! 5.2.4), which user agents have resolved before they send them, and separators that are encoded.

use crate::handshake::Reject;

/// The elements of a path, between its slashes.
pub(super) struct Path {
    /// As they stand.
    plain: Vec<Vec<u8>>,
    /// Without their parameters, empty ones left out.
    lenient: Vec<Vec<u8>>,
}

/// The elements of a prefix.
pub(super) fn elements(prefix: &str) -> Vec<Vec<u8>> {
    let elements = prefix.split('/').filter(|element| !element.is_empty());
    elements
        .map(|element| element.as_bytes().to_vec())
        .collect()
}

impl Path {
    /// Reads the path of a request target, which begins with a slash.
    pub(super) fn read(target: &[u8]) -> Result<Self, Reject> {
        let path = target.split(|byte| *byte == b'?').next();
        let path = path.unwrap_or_default();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let mut read = Self {
            plain: Vec::new(),
            lenient: Vec::new(),
        };
        for element in path.split(|byte| *byte == b'/') {
            let element = decoded(element)?;
            let name = element.split(|byte| *byte == b';').next();
            let name = name.unwrap_or_default();
            if matches!(name, b"." | b"..") {
                return Err(Reject::Malformed("The path has dot segments."));
            }
            if !name.is_empty() {
                read.lenient.push(name.to_vec());
            }
            read.plain.push(element);
        }
        Ok(read)
    }

    /// Whether it is the prefix, or below it.
    pub(super) fn begins_with(&self, prefix: &[Vec<u8>]) -> bool {
        self.plain.starts_with(prefix)
    }

    /// The same for a server that takes away what it can.
    pub(super) fn may_begin_with(&self, prefix: &[Vec<u8>]) -> bool {
        self.lenient.starts_with(prefix)
    }
}

/// Undoes percent-encoding, once: twice nobody may (RFC 3986 section 2.4). Prefixes are of unreserved
/// characters, so it does not matter that for others a server may not.
fn decoded(element: &[u8]) -> Result<Vec<u8>, Reject> {
    let malformed = Reject::Malformed("The path's percent-encoding is malformed.");
    let mut decoded = Vec::with_capacity(element.len());
    let mut bytes = element.iter();
    while let Some(byte) = bytes.next() {
        let byte = if *byte == b'%' {
            let mut digit = || hex(*bytes.next()?);
            let (high, low) = (digit().ok_or(malformed)?, digit().ok_or(malformed)?);
            16 * high + low
        } else {
            *byte
        };
        if matches!(byte, b'/' | b'\\') || byte.is_ascii_control() {
            return Err(Reject::Malformed(
                "The path has an encoded slash, a backslash or a control character.",
            ));
        }
        decoded.push(byte);
    }
    Ok(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}
