//! Which web pages may connect (RFC 6455 section 10.2): browsers say where a page is from, and send the
//! user's cookies along whichever page it is.

use crate::handshake::Fields;

/// Whether a handshake with these fields may go on where `allowed` are the only origins; none: all
/// are. A client that sends no Origin is no browser: it could send any.
pub(crate) fn is_allowed(allowed: &[String], fields: &Fields<'_>) -> bool {
    let matches = |origin: &[u8]| allowed.iter().any(|pattern| covers(pattern, origin));
    allowed.is_empty() || fields.all("origin").all(matches)
}

/// Whether an origin is the one that `pattern` names, or one of those. Browsers send it in lower case
/// (RFC 6454 section 6.2), others may not.
fn covers(pattern: &str, origin: &[u8]) -> bool {
    let Some((scheme, suffix)) = pattern.split_once("*.") else {
        return origin.eq_ignore_ascii_case(pattern.as_bytes());
    };
    let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let dot = origin.len().checked_sub(suffix.len() + 1);
    dot.and_then(|dot| origin.split_at_checked(dot))
        .and_then(|(start, end)| Some((start.split_at_checked(scheme.len())?, end)))
        .is_some_and(|((start, names), end)| {
            start.eq_ignore_ascii_case(scheme.as_bytes())
                && !names.is_empty()
                && names.iter().all(is_in_name)
                && end
                    .strip_prefix(b".")
                    .is_some_and(|end| end.eq_ignore_ascii_case(suffix.as_bytes()))
        })
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_name_is_itself_alone() {
        let pattern = "https://chat.example.com";
        assert!(covers(pattern, b"https://chat.example.com"));
        assert!(covers(pattern, b"HTTPS://Chat.example.com"));
        for other in [
            "http://chat.example.com",
            "https://chat.example.com:8443",
            "https://chat.example.com.evil.example",
            "https://evil.example/https://chat.example.com",
            "https://chatXexample.com",
            "null",
            "",
        ] {
            assert!(!covers(pattern, other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_one_name_or_more() {
        let pattern = "https://*.example.com:8443";
        for origin in ["https://a.example.com:8443", "https://a.b.example.com:8443"] {
            assert!(covers(pattern, origin.as_bytes()), "{origin}");
        }
        for other in [
            "https://example.com:8443",
            "https://.example.com:8443",
            "https://a.example.com",
            "http://a.example.com:8443",
            "https://aexample.com:8443",
            "https://evil.example/.example.com:8443",
            "https://evil.example:1.example.com:8443",
            "https://evil@.example.com:8443",
        ] {
            assert!(!covers(pattern, other.as_bytes()), "{other}");
        }
    }
}
