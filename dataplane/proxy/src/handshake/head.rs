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

/// Fields for which there is room from the start: browsers send some fifteen.
const USUAL: usize = 16;

const NO_TOKEN: &str = "A field's name is not a token.";

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
        while let Some(rest @ [next, ..]) = buf.get(self.pos..) {
            let after_cr = self.pos > self.line_start && buf[self.pos - 1] == b'\r';
            match next {
                // RFC 9112 section 2.2: a bare LF may be taken as a line end by some.
                b'\n' if !after_cr => {
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
                _ if after_cr => return Outcome::Bad(Fault::Malformed("A CR stands alone.")),
                b'\r' => self.pos += 1,
                _ => match plain(rest) {
                    // RFC 9110 section 5.5: NUL and other controls are refused.
                    0 => return Outcome::Bad(Fault::Malformed("There is a control character.")),
                    plain => self.pos += plain,
                },
            }
            // What comes first of both, as if bytes had come one by one.
            let line_end = self.line_start.saturating_add(limits.line);
            if self.lines == 0 && self.pos > line_end && line_end <= limits.head {
                return Outcome::Bad(Fault::LineTooLong);
            }
            if self.pos > limits.head {
                return Outcome::Bad(Fault::TooLarge);
            }
        }
        Outcome::NeedMore
    }
}

/// How many bytes `bytes` begins with that are neither control characters, but for tabs, nor end a line.
fn plain(bytes: &[u8]) -> usize {
    const LOW: u64 = u64::MAX / 0xff * 0x7f;
    const HIGH: u64 = !LOW;
    // Eight at once: the high bit of each byte tells of it, and no byte of the next one.
    let others = |word: u64| {
        let each = |byte: u8| u64::MAX / 0xff * u64::from(byte);
        let controls = !((word | HIGH) - each(b' ')) & !word;
        let deletes = ((word & LOW) + each(1)) & !word;
        let tab = word ^ each(b'\t');
        let but_tabs = ((tab & LOW) + LOW) | tab;
        (controls | deletes) & but_tabs & HIGH
    };
    first(bytes, others).unwrap_or(bytes.len())
}

/// Where `wanted` is first, looked for in eight bytes at once.
fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    first(bytes, |word| {
        let is_zero = word ^ (ONES * u64::from(wanted));
        // A bit too many may follow the first one.
        is_zero.wrapping_sub(ONES) & !is_zero & (ONES << 7)
    })
}

/// Where `marks`, which is given eight bytes, sets the high bit of one first. What follows the end is zero.
fn first(bytes: &[u8], marks: impl Fn(u64) -> u64) -> Option<usize> {
    let at = |marks: u64| (marks.trailing_zeros() / 8) as usize;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(8 * index + at(marks));
        }
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let end = at(marks(u64::from_le_bytes(last)));
    (end < rest.len()).then_some(8 * words.len() + end)
}

/// Fields of a head, in their order, names as they came.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fields<'a>(pub(super) Vec<(&'a str, &'a [u8])>);

impl<'a> Fields<'a> {
    /// Splits a complete head into its start line and fields.
    pub(super) fn split(head: &'a [u8]) -> Result<(&'a [u8], Self), &'static str> {
        let (start, mut rest) = next_line(head);
        let mut fields = Vec::with_capacity(USUAL);
        loop {
            let (line, behind) = next_line(rest);
            if line.is_empty() {
                return Ok((start, Self(fields)));
            }
            fields.push(Self::field(line)?);
            rest = behind;
        }
    }

    /// Fields without a start line, up to an empty line; `None`: they are malformed.
    pub(crate) fn of_section(section: &'a [u8]) -> Option<Self> {
        let lines = section.split(|byte| *byte == b'\n');
        let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let lines = lines.take_while(|line| !line.is_empty());
        let field = |line: &'a [u8]| {
            let is_plain = plain(line) == line.len();
            is_plain.then(|| Self::field(line).ok()).flatten()
        };
        lines.map(field).collect::<Option<_>>().map(Self)
    }

    fn field(line: &'a [u8]) -> Result<(&'a str, &'a [u8]), &'static str> {
        // RFC 9112 section 5.2: obs-fold.
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err("A field is folded over lines.");
        }
        let end = line.iter().position(|byte| !is_tchar(*byte));
        let (name, rest) = line.split_at(end.unwrap_or(line.len()));
        // RFC 9112 section 5.1: no whitespace before the colon; a token has none anyway.
        let [b':', value @ ..] = rest else {
            let has_colon = rest.contains(&b':');
            return Err(if has_colon {
                NO_TOKEN
            } else {
                "A field has no colon."
            });
        };
        if name.is_empty() {
            return Err(NO_TOKEN);
        }
        let name = str::from_utf8(name).map_err(|_| NO_TOKEN)?;
        Ok((name, value.trim_ascii()))
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
    pub(crate) fn single(&self, name: &str) -> Result<Option<&'a [u8]>, ()> {
        let mut all = self.all(name);
        let first = all.next();
        if all.next().is_some() {
            return Err(());
        }
        Ok(first)
    }

    /// Elements of a comma-separated list over all fields called `name` (RFC 9110 section 5.6.1).
    pub fn list(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.all(name).flat_map(|value| Elements(Some(value)))
    }

    /// Whether `element` is in the list, in upper or lower case.
    pub(crate) fn lists(&self, name: &str, element: &str) -> bool {
        let is_it = |listed: &[u8]| listed.eq_ignore_ascii_case(element.as_bytes());
        // Nearly always it stands alone.
        self.all(name)
            .any(|value| is_it(value) || Elements(Some(value)).any(is_it))
    }

    /// Whether Connection names the field (RFC 9110 section 7.6.1): it concerns this connection
    /// alone and is not passed on.
    pub fn is_connection_option(&self, name: &str) -> bool {
        self.lists("connection", name)
    }
}

/// What is left of a list in one field.
struct Elements<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.0?;
            let end = find(rest, b',');
            self.0 = end.map(|end| &rest[end + 1..]);
            let element = rest[..end.unwrap_or(rest.len())].trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}

/// The first line of a complete head, and what is behind it. The cursor has seen to it that each line ends with
/// CRLF, the last one empty.
fn next_line(head: &[u8]) -> (&[u8], &[u8]) {
    let end = find(head, b'\n').unwrap_or(head.len());
    let (line, rest) = head.split_at(end);
    let rest = rest.get(1..).unwrap_or_default();
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_tchar(*byte))
}

fn is_tchar(byte: u8) -> bool {
    TCHARS[usize::from(byte)]
}

/// Which bytes a token is made of.
static TCHARS: [bool; 256] = alphanumeric_or(b"!#$%&'*+-.^_`|~");

/// Letters, digits and `others`. A table, where each byte of a text is looked up.
pub(super) const fn alphanumeric_or(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_eight_bytes_looked_at_together_each_counts_by_itself() {
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    // Another behind it, which must not be found first.
                    if let Some(last) = bytes.last_mut().filter(|_| at + 1 < length) {
                        *last = b'\n';
                    }
                    let is_control = byte.is_ascii_control() && byte != b'\t';
                    let next = if length > at + 1 { length - 1 } else { length };
                    let expected = if is_control { at } else { next };
                    assert_eq!(plain(&bytes), expected, "{bytes:?}");
                    let position = bytes.iter().position(|it| *it == b'\n');
                    assert_eq!(find(&bytes, b'\n'), position, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn bounds_and_bad_bytes_are_met_in_their_order_however_bytes_come() {
        use Fault::{LineTooLong, Malformed, TooLarge};
        let limits = Limits {
            line: 40,
            head: 80,
            fields: 2,
        };
        let control = Malformed("There is a control character.");
        let text = |length| "x".repeat(length);
        for (head, expected) in [
            (format!("{}\r\n\r\n", text(39)), Ok(43)),
            (format!("{}\r\n\r\n", text(40)), Err(LineTooLong)),
            (format!("{}\0", text(40)), Err(control)),
            (format!("{}\0", text(41)), Err(LineTooLong)),
            (format!("{}\x7f\r\n", text(17)), Err(control)),
            (format!("a\tb\r\n{}\r\n\r\n", text(70)), Ok(79)),
            (format!("a\r\n{}\r\n", text(77)), Err(TooLarge)),
            (format!("a\r\n{}\0", text(78)), Err(TooLarge)),
            ("a\r\nb\r\nc\r\nd\r\n".to_owned(), Err(TooLarge)),
            ("a\r\rb".to_owned(), Err(Malformed("A CR stands alone."))),
            ("a\r\n\rb".to_owned(), Err(Malformed("A CR stands alone."))),
            ("a\nb".to_owned(), Err(Malformed("A line ends without CR."))),
        ] {
            let bytes = head.as_bytes();
            for step in [bytes.len(), 1, 7] {
                let mut cursor = Cursor::default();
                let ends = (step..bytes.len()).step_by(step).chain([bytes.len()]);
                let mut outcomes = ends.map(|end| cursor.advance(&bytes[..end], limits));
                let outcome = outcomes.find(|outcome| *outcome != Outcome::NeedMore);
                let met = match outcome {
                    Some(Outcome::Done(_, end)) => Ok(end),
                    Some(Outcome::Bad(fault)) => Err(fault),
                    _ => panic!("{head:?} in steps of {step} needs more"),
                };
                assert_eq!(met, expected, "{head:?} in steps of {step}");
            }
        }
    }
}
