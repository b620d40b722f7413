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
pub enum Chunk {
    /// In the hexadecimal size; `None`: before its first digit.
    Size(Option<u64>),
    /// In an extension of the size line.
    Extension(u64),
    /// Before the LF of the size line.
    SizeEnd(u64),
    /// In the data.
    Data(u64),
    /// Before the CR, then the LF, behind the data.
    DataEnd(u8),
    /// In the trailer; how many bytes its line has.
    Trailer(u64),
    /// Before the LF of a line of the trailer, which had so many.
    TrailerEnd(u64),
}

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
                Some(last) if last.eq_ignore_ascii_case(b"chunked") => {
                    Self::Chunked(Chunk::Size(None))
                }
                _ => Self::UntilEnd,
            }),
            (false, None) => Ok(Self::UntilEnd),
            (false, Some(length)) => {
                let digits = length.iter().all(u8::is_ascii_digit);
                let length = str::from_utf8(length).ok().filter(|_| digits);
                let length = length.and_then(|length| length.parse().ok());
                Ok(Self::Length(
                    length.ok_or("Content-Length is not a number.")?,
                ))
            }
        }
    }

    /// Steps over `bytes`.
    pub fn advance(&mut self, bytes: &[u8]) -> BodyEnd {
        match self {
            Self::UntilEnd => BodyEnd::More,
            Self::Length(left) => match usize::try_from(*left) {
                Ok(end) if end <= bytes.len() => {
                    *left = 0;
                    BodyEnd::At(end)
                }
                _ => {
                    *left -= bytes.len() as u64;
                    BodyEnd::More
                }
            },
            Self::Chunked(chunk) => chunk.advance(bytes),
        }
    }
}

impl Chunk {
    fn advance(&mut self, bytes: &[u8]) -> BodyEnd {
        let mut pos = 0;
        while pos < bytes.len() {
            if let Self::Data(left) = self {
                let here = bytes.len() - pos;
                let take = usize::try_from(*left).map_or(here, |left| left.min(here));
                *left -= take as u64;
                pos += take;
                if *left == 0 {
                    *self = Self::DataEnd(b'\r');
                }
                continue;
            }
            let byte = bytes[pos];
            pos += 1;
            *self = match (*self, byte) {
                (Self::Size(size), digit) if digit.is_ascii_hexdigit() => {
                    let value = char::from(digit).to_digit(16).map_or(0, u64::from);
                    match size.unwrap_or(0).checked_mul(16) {
                        Some(size) => Self::Size(Some(size + value)),
                        None => return BodyEnd::Broken(pos),
                    }
                }
                (Self::Size(Some(size)), b';' | b' ' | b'\t') => Self::Extension(size),
                (Self::Size(Some(size)) | Self::Extension(size), b'\r') => Self::SizeEnd(size),
                (Self::Extension(size), byte) if byte != b'\n' => Self::Extension(size),
                (Self::SizeEnd(0), b'\n') => Self::Trailer(0),
                (Self::SizeEnd(size), b'\n') => Self::Data(size),
                (Self::DataEnd(b'\r'), b'\r') => Self::DataEnd(b'\n'),
                (Self::DataEnd(b'\n'), b'\n') => Self::Size(None),
                (Self::Trailer(length), b'\r') => Self::TrailerEnd(length),
                (Self::Trailer(length), byte) if byte != b'\n' => {
                    Self::Trailer(length.saturating_add(1))
                }
                (Self::TrailerEnd(0), b'\n') => return BodyEnd::At(pos),
                (Self::TrailerEnd(_), b'\n') => Self::Trailer(0),
                _ => return BodyEnd::Broken(pos),
            };
        }
        BodyEnd::More
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
            let mut body = Body::Chunked(Chunk::Size(None));
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
        ] {
            let mut body = Body::Chunked(Chunk::Size(None));
            let end = body.advance(bad.as_bytes());
            assert!(matches!(end, BodyEnd::Broken(_)), "{bad:?} gave {end:?}");
        }
    }
}
