//! The status of an HTTP/1.1 answer, read strictly (RFC 9112 section 4); pure.
//!
//! What follows the status line is of no interest. An interim answer (RFC 9110 section 15.2) is passed
//! over, with its fields.

/// Longest head that is read, interim answers included.
pub(super) const LONGEST: usize = 8 * 1024;
/// `HTTP/1.1 200`, and a blank or the end of the line behind it.
const STATUS_LINE: usize = 12;

/// What is known after some bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// The status of the final answer.
    Status(u16),
    /// More bytes are needed.
    Incomplete,
    /// This is no answer in HTTP/1.
    Malformed,
}

/// Looks at the beginning of what was answered.
pub(super) fn status(mut bytes: &[u8]) -> Found {
    loop {
        match first_line(bytes) {
            Found::Status(100..=199) => {}
            found => return found,
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Found::Incomplete;
        };
        bytes = bytes.get(end + 4..).unwrap_or(&[]);
    }
}

fn first_line(bytes: &[u8]) -> Found {
    let is_digit = |at: usize| bytes.get(at).is_none_or(u8::is_ascii_digit);
    let is = |at: usize, expected: u8| bytes.get(at).is_none_or(|byte| *byte == expected);
    let is_name = b"HTTP/1."
        .iter()
        .enumerate()
        .all(|(at, byte)| is(at, *byte));
    let is_shape = is_name && is_digit(7) && is(8, b' ') && (9..STATUS_LINE).all(is_digit);
    // RFC 9112 section 4: the blank stands there even without a reason, which some leave out.
    let is_end = is(STATUS_LINE, b' ') || is(STATUS_LINE, b'\r');
    if !is_shape || !is_end {
        return Found::Malformed;
    }
    let Some(digits) = bytes
        .get(9..STATUS_LINE)
        .filter(|_| bytes.len() > STATUS_LINE)
    else {
        return Found::Incomplete;
    };
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    if (100..=599).contains(&number) {
        Found::Status(number)
    } else {
        Found::Malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_found_as_soon_as_it_is_there() {
        let text = b"HTTP/1.1 204 No Content\r\n\r\n";
        for end in 0..=STATUS_LINE {
            assert_eq!(status(&text[..end]), Found::Incomplete, "{end}");
        }
        assert_eq!(status(&text[..=STATUS_LINE]), Found::Status(204));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Found::Status(503));
    }

    #[test]
    fn interim_answers_are_passed_over() {
        let text = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n";
        assert_eq!(status(text), Found::Status(200));
        for end in 0..42 {
            assert_eq!(status(&text[..end]), Found::Incomplete, "{end}");
        }
    }

    #[test]
    fn what_is_no_answer_in_http_1_is_seen_at_once() {
        for text in [
            "S",
            "HTTP/2",
            "HTTP/1.x",
            "HTTP/1.1  200 OK",
            "HTTP/1.1 2000",
            "HTTP/1.1 20x",
            "HTTP/1.1 099 ",
            "HTTP/1.1 600 ",
            "HTTP/1.1 200\n",
            "http/1.1 200 OK",
            " HTTP/1.1 200 OK",
        ] {
            assert_eq!(status(text.as_bytes()), Found::Malformed, "{text:?}");
        }
    }
}
