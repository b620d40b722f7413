//! The head that requests and responses share: a start line, fields, an empty line (RFC 9112
//! section 2.1). Both work on the whole head; a cursor finds its end as bytes arrive.

use super::Outcome;

/// Bounds of a head.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the start line.
    pub line: usize,
    /// Bytes of the whole head.
    pub head: usize,
    /// Number of fields.
    pub fields: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: 8 * 1024,
            head: 32 * 1024,
            fields: 100,
        }
    }
}

/// What is wrong with the bytes of a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    LineTooLong,
    TooLarge,
    Malformed(&'static str),
}

/// Finds the end of a head, looking at each byte once.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    pos: usize,
    line_start: usize,
    lines: usize,
    /// Where the head begins: behind an empty line that may precede it.
    start: usize,
}

impl Cursor {
    /// `Done`: where the head begins, and its end behind the empty line.
    pub(super) fn advance(&mut self, buf: &[u8], limits: Limits) -> Outcome<usize, Fault> {
        while let Some(&byte) = buf.get(self.pos) {
            let before = self.pos.checked_sub(1).and_then(|i| buf.get(i));
            match byte {
                // RFC 9112 section 2.2: a bare LF may be taken as a line end by some.
                b'\n' if before != Some(&b'\r') => {
                    return Outcome::Bad(Fault::Malformed("A line ends without CR."));
                }
                b'\n' => {
                    let empty = self.pos == self.line_start + 1;
                    self.pos += 1;
                    match (empty, self.lines) {
                        // RFC 9112 section 2.2: one empty line before a request is ignored.
                        (true, 0) if self.start == 0 => self.start = self.pos,
                        (true, 0) => return Outcome::Bad(Fault::Malformed("There is no request.")),
                        (true, _) => return Outcome::Done(self.start, self.pos),
                        (false, _) => self.lines += 1,
                    }
                    self.line_start = self.pos;
                    // The start line does not count.
                    if self.lines > limits.fields + 1 {
                        return Outcome::Bad(Fault::TooLarge);
                    }
                    continue;
                }
                _ if before == Some(&b'\r') && self.pos > self.line_start => {
                    return Outcome::Bad(Fault::Malformed("A CR stands alone."));
                }
                b'\r' | b'\t' | b' '..=b'~' | 0x80.. => {}
                // RFC 9110 section 5.5: NUL and other controls are refused.
                _ => return Outcome::Bad(Fault::Malformed("There is a control character.")),
            }
            self.pos += 1;
            if self.lines == 0 && self.pos - self.line_start > limits.line {
                return Outcome::Bad(Fault::LineTooLong);
            }
            if self.pos > limits.head {
                return Outcome::Bad(Fault::TooLarge);
            }
        }
        Outcome::NeedMore
    }
}

/// Fields of a head, in their order, names as they came.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fields<'a>(pub(super) Vec<(&'a str, &'a [u8])>);

impl<'a> Fields<'a> {
    /// Splits a complete head into its start line and fields.
    pub(super) fn split(head: &'a [u8]) -> Result<(&'a [u8], Self), &'static str> {
        // The cursor has seen to it that each line ends with CRLF, the last one empty.
        let mut lines = head.split(|byte| *byte == b'\n');
        let line = |line: &'a [u8]| line.strip_suffix(b"\r").unwrap_or(line);
        let start = line(lines.next().unwrap_or_default());
        let lines = lines.map(line).take_while(|line| !line.is_empty());
        let fields = lines.map(Self::field).collect::<Result<_, _>>()?;
        Ok((start, Self(fields)))
    }

    fn field(line: &'a [u8]) -> Result<(&'a str, &'a [u8]), &'static str> {
        // RFC 9112 section 5.2: obs-fold.
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err("A field is folded over lines.");
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.ok_or("A field has no colon.")?);
        // RFC 9112 section 5.1: no whitespace before the colon; a token has none anyway.
        if !is_token(name) {
            return Err("A field's name is not a token.");
        }
        let name = str::from_utf8(name).map_err(|_| "A field's name is not a token.")?;
        Ok((name, value[1..].trim_ascii()))
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.0.iter().copied()
    }

    /// Values of the fields called `name`, in their order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// The value of the only field called `name`; `Err`: there are several.
    pub(super) fn single(&self, name: &str) -> Result<Option<&'a [u8]>, ()> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() {
            return Err(());
        }
        Ok(first)
    }

    /// Elements of a comma-separated list over all fields called `name` (RFC 9110 section 5.6.1).
    pub fn list(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    pub(super) fn lists(&self, name: &str, element: &str) -> bool {
        self.list(name)
            .any(|listed| listed.eq_ignore_ascii_case(element.as_bytes()))
    }

    /// Whether Connection names the field (RFC 9110 section 7.6.1): it concerns this connection
    /// alone and is not passed on.
    pub fn is_connection_option(&self, name: &str) -> bool {
        self.lists("connection", name)
    }
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_tchar)
}
