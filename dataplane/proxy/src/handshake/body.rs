//! Where the content of a response ends (RFC 9112 section 6.3), while it is passed on untouched.

use super::head::Fields;

/// Position in the content of a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks (RFC 9112 section 7.1).
    Chunked(Chunk),
    /// It ends with the connection.
    UntilEnd,
}

/// Position in chunked content.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chunk {
    at: At,
    /// Bytes that the size line, or the trailer, may still have.
    room: u16,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum At {
    /// In the hexadecimal size; `None`: before its first digit.
    Size(Option<u64>),
    /// In the whitespace behind the size.
    Blank(u64),
    /// In an extension of the size line.
    Extension(u64),
    /// Before the LF of the size line.
    SizeEnd(u64),
    /// In the data.
    Data(u64),
    /// Before the CR, then the LF, behind the data.
    DataEnd(u8),
    /// In a line of the trailer; whether it has bytes.
    Trailer(bool),
    /// Before the LF of such a line.
    TrailerEnd(bool),
}

/// What bytes of content are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// The content itself.
    Data,
    /// The trailer section of chunks, with the empty line that ends it (RFC 9112 section 7.1.2).
    Trailer,
}

/// Bytes of a chunk's size line: extensions, of which nobody has a use, could be without end (RFC 9112
/// section 7.1.1).
const SIZE_LINE: u16 = 256;

/// Bytes of a trailer section.
const TRAILER: u16 = 8 * 1024;

/// How far content goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyEnd {
    /// All bytes belong to it and more follow.
    More,
    /// It ends behind so many bytes.
    At(usize),
    /// It is malformed behind so many bytes.
    Broken(usize),
}

impl Body {
    /// Content of a response to a GET.
    pub(super) fn of_response(status: u16, fields: &Fields<'_>) -> Result<Self, &'static str> {
        if (100..200).contains(&status) || status == 204 || status == 304 {
            return Ok(Self::Length(0));
        }
        let coded = fields.all("transfer-encoding").next().is_some();
        let Ok(length) = fields.single("content-length") else {
            return Err("Content-Length is there more than once.");
        };
        match (coded, length) {
            (true, Some(_)) => Err("There are Transfer-Encoding and Content-Length."),
            // RFC 9112 section 6.3: chunked must be the last coding; without it the end is the
            // connection's.
            (true, None) => Ok(match fields.list("transfer-encoding").last() {
                Some(last) if last.eq_ignore_ascii_case(b"chunked") => Self::chunked(),
                _ => Self::UntilEnd,
            }),
            (false, None) => Ok(Self::UntilEnd),
            (false, Some(length)) => Ok(Self::Length(Self::number(length)?)),
        }
    }

    /// Chunks, from the beginning.
    pub const fn chunked() -> Self {
        Self::Chunked(Chunk {
            at: At::Size(None),
            room: SIZE_LINE,
        })
    }

    /// What Content-Length says: digits and nothing else (RFC 9110 section 8.6).
    pub(crate) fn number(length: &[u8]) -> Result<u64, &'static str> {
        let digits = length.iter().all(u8::is_ascii_digit);
        let length = str::from_utf8(length).ok().filter(|_| digits);
        let length = length.and_then(|length| length.parse().ok());
        length.ok_or("Content-Length is not a number.")
    }

    /// Steps over `bytes`.
    pub fn advance(&mut self, bytes: &[u8]) -> BodyEnd {
        self.pass(bytes, |_, _| {})
    }

    /// Steps over `bytes`, and gives what of them is content, without its coding, in its order.
    pub fn pass(&mut self, bytes: &[u8], mut take: impl FnMut(Part, &[u8])) -> BodyEnd {
        match self {
            Self::UntilEnd => {
                take(Part::Data, bytes);
                BodyEnd::More
            }
            Self::Length(left) => match usize::try_from(*left) {
                Ok(end) if end <= bytes.len() => {
                    *left = 0;
                    take(Part::Data, &bytes[..end]);
                    BodyEnd::At(end)
                }
                _ => {
                    *left -= bytes.len() as u64;
                    take(Part::Data, bytes);
                    BodyEnd::More
                }
            },
            Self::Chunked(chunk) => chunk.pass(bytes, take),
        }
    }
}

impl Chunk {
    fn pass(&mut self, bytes: &[u8], mut take: impl FnMut(Part, &[u8])) -> BodyEnd {
        let mut pos = 0;
        while pos < bytes.len() {
            if let At::Data(left) = &mut self.at {
                let here = bytes.len() - pos;
                let run = usize::try_from(*left).map_or(here, |left| left.min(here));
                *left -= run as u64;
                take(Part::Data, &bytes[pos..pos + run]);
                pos += run;
                if *left == 0 {
                    self.at = At::DataEnd(b'\r');
                }
                continue;
            }
            let byte = bytes[pos];
            pos += 1;
            let is_of_trailer = matches!(self.at, At::Trailer(_) | At::TrailerEnd(_));
            let Some(is_last) = self.step(byte) else {
                return BodyEnd::Broken(pos);
            };
            if is_of_trailer {
                take(Part::Trailer, &[byte]);
            }
            if is_last {
                return BodyEnd::At(pos);
            }
        }
        BodyEnd::More
    }

    /// Takes in a byte that is no data, and says whether it is the last one; `None`: it cannot stand there.
    fn step(&mut self, byte: u8) -> Option<bool> {
        self.room = self.room.checked_sub(1)?;
        self.at = match (self.at, byte) {
            (At::Size(size), digit) if digit.is_ascii_hexdigit() => {
                let value = char::from(digit).to_digit(16).map_or(0, u64::from);
                At::Size(Some(size.unwrap_or(0).checked_mul(16)? + value))
            }
            (At::Size(Some(size)) | At::Blank(size), b' ' | b'\t') => At::Blank(size),
            (At::Size(Some(size)) | At::Blank(size), b';') => At::Extension(size),
            (At::Size(Some(size)) | At::Blank(size) | At::Extension(size), b'\r') => {
                At::SizeEnd(size)
            }
            (At::Extension(size), byte) if byte == b'\t' || !byte.is_ascii_control() => {
                At::Extension(size)
            }
            (At::SizeEnd(0), b'\n') => {
                self.room = TRAILER;
                At::Trailer(false)
            }
            (At::SizeEnd(size), b'\n') => {
                // With the line's end behind the data.
                self.room = SIZE_LINE + 2;
                At::Data(size)
            }
            (At::DataEnd(b'\r'), b'\r') => At::DataEnd(b'\n'),
            (At::DataEnd(b'\n'), b'\n') => At::Size(None),
            (At::Trailer(has_bytes), b'\r') => At::TrailerEnd(has_bytes),
            (At::Trailer(_), byte) if byte != b'\n' => At::Trailer(true),
            (At::TrailerEnd(true), b'\n') => At::Trailer(false),
            (At::TrailerEnd(false), b'\n') => return Some(true),
            _ => return None,
        };
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_where_they_end_however_they_are_cut() {
        let content = b"5\r\nhello\r\n0a;x=y\r\n0123456789\r\n0\r\nA: b\r\n\r\n";
        let stream = [&content[..], b"HTTP/1.1 200 OK"].concat();
        for cut in 0..stream.len() {
            let mut body = Body::chunked();
            let end = match body.advance(&stream[..cut]) {
                BodyEnd::More => match body.advance(&stream[cut..]) {
                    BodyEnd::At(end) => cut + end,
                    other => panic!("cut at {cut}: {other:?}"),
                },
                BodyEnd::At(end) => end,
                BodyEnd::Broken(at) => panic!("cut at {cut}: broken at {at}"),
            };
            assert_eq!(end, content.len());
        }
    }

    #[test]
    fn what_is_not_chunks_is_broken() {
        for bad in [
            "x\r\n",
            "\r\n",
            ";x\r\n",
            "5\nhello",
            "1\r\nab",
            "fffffffffffffffff\r\n",
            "0\r\nA: b\n",
            "0\r\n\rA",
            "5 5\r\n",
            "5;a\0\r\n",
            &format!("5;{}\r\n", "x".repeat(300)),
            &format!("{}5\r\n", "0".repeat(300)),
            &format!("0\r\nA: {}\r\n", "b".repeat(9000)),
        ] {
            let mut body = Body::chunked();
            let end = body.advance(bad.as_bytes());
            assert!(matches!(end, BodyEnd::Broken(_)), "{bad:?} gave {end:?}");
        }
    }
}
