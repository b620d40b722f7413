//! Frames that the proxy itself speaks (RFC 6455 section 5.5).

/// Close code for a session whose backend was lost: the client should come again and will be
/// brought to another one ("service restart" in the IANA registry of close codes).
pub(crate) const BACKEND_LOST: u16 = 1012;

/// Close code for a session that is to begin anew at an endpoint with less to do. Of the codes of the
/// IANA registry it is the one that bids clients come again, and not all at once (5-30 s, at random);
/// 1013 would keep them away, and 1001 says nothing of coming again.
pub(crate) const REBALANCED: u16 = 1012;

/// Close code for the backend of a session whose client was lost.
pub(crate) const CLIENT_LOST: u16 = 1001;

/// Close code for the client of a backend whose answer is not passed on, as 502 is before the 101 ("bad
/// gateway" in the registry). Libraries that do not know it take it for an error of protocol.
pub(crate) const BAD_GATEWAY: u16 = 1014;

/// Close codes of RFC 6455 section 7.4.1, and one of the registry ("try again later").
pub(crate) const GOING_AWAY: u16 = 1001;
pub(crate) const POLICY: u16 = 1008;
pub(crate) const TOO_BIG: u16 = 1009;
pub(crate) const TRY_AGAIN: u16 = 1013;

/// A key to mask what goes to a backend: there we are the client (section 5.3), and its keys must not be
/// foreseeable.
pub(crate) type Mask = Option<[u8; 4]>;

/// A Close frame.
pub(crate) fn close(code: u16, reason: &str, mask: Mask) -> Vec<u8> {
    // Section 5.5: 125 bytes at most, of which the code takes two. Reasons are ASCII.
    let reason = &reason.as_bytes()[..reason.len().min(123)];
    let payload: Vec<u8> = [&code.to_be_bytes(), reason].concat();
    control(0x88, &payload, mask)
}

/// A Ping frame.
pub(crate) fn ping(payload: &[u8], mask: Mask) -> Vec<u8> {
    control(0x89, payload, mask)
}

fn control(first: u8, payload: &[u8], mask: Mask) -> Vec<u8> {
    let mut frame = Vec::with_capacity(6 + payload.len());
    let len = u8::try_from(payload.len()).unwrap_or(125);
    frame.push(first);
    match mask {
        None => {
            frame.push(len);
            frame.extend_from_slice(payload);
        }
        Some(key) => {
            frame.push(0x80 | len);
            frame.extend_from_slice(&key);
            frame.extend(payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_as_in_the_standard() {
        assert_eq!(close(1001, "bye", None), b"\x88\x05\x03\xe9bye");
        // Section 5.7 masks "Hello" with this key.
        let masked = ping(b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
        assert_eq!(masked[..6], [0x89, 0x85, 0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(masked[6..], [0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn a_long_reason_is_cut_to_what_a_control_frame_holds() {
        assert_eq!(close(1000, &"x".repeat(300), None).len(), 2 + 125);
    }
}
