//! What a client says first: looked at before anything is done for it, since what it asks for costs more
//! than all that comes behind.

use rustls::server::Acceptor;

/// Bytes of a first message that are waited for: more than any client sends. TLS decides of longer ones.
pub(crate) const HELLO_MAX: usize = 16 * 1024;

/// Of a record before its content: its kind, a version and a length (RFC 8446 section 5.1).
const RECORD_HEADER: usize = 5;
/// Of a message of the handshake: its kind and a length (section 4).
const MESSAGE_HEADER: usize = 4;
/// The kind of records that the handshake is in.
const HANDSHAKE: u8 = 22;

/// Whether the first message has come whole, or what came is none: that is for TLS to refuse.
pub(crate) fn is_whole(mut received: &[u8]) -> bool {
    if received.len() >= HELLO_MAX {
        return true;
    }
    let mut message_length = None;
    let mut have = 0;
    // The message may be cut into records anywhere, its own header included.
    let mut header = [0; MESSAGE_HEADER];
    while let [kind, _, _, high, low, rest @ ..] = received {
        if *kind != HANDSHAKE {
            return true;
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // Empty ones are against section 5.1, and would be looked at for nothing.
        if length == 0 {
            return true;
        }
        let content = &rest[..length.min(rest.len())];
        for (to, from) in header.iter_mut().skip(have).zip(content) {
            *to = *from;
        }
        have += content.len();
        if message_length.is_none() && have >= MESSAGE_HEADER {
            let [_, length @ ..] = header;
            let length = length
                .iter()
                .fold(0, |all, byte| all << 8 | usize::from(*byte));
            message_length = Some(MESSAGE_HEADER + length);
        }
        if message_length.is_some_and(|length| have >= length) {
            return true;
        }
        received = &received[received.len().min(RECORD_HEADER + length)..];
    }
    false
}

/// The server that a whole first message asks for (RFC 6066 section 3): a DNS name, in lower case.
pub(super) fn server_name(mut received: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    loop {
        // It takes some at a time.
        if acceptor.read_tls(&mut received).ok()? == 0 {
            return None;
        }
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted.client_hello().server_name().map(str::to_owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

    use super::*;
    use crate::tls::provider;

    /// What a client sends first that asks for `name`.
    fn hello(name: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same in records of so many bytes.
    fn cut(hello: &[u8], length: u8) -> Vec<u8> {
        let pieces = hello[RECORD_HEADER..].chunks(length.into());
        let record = |piece: &[u8]| {
            let length = u8::try_from(piece.len()).unwrap();
            [&[HANDSHAKE, 3, 1, 0, length], piece].concat()
        };
        pieces.flat_map(record).collect()
    }

    #[test]
    fn it_is_whole_with_its_last_byte_however_it_is_cut() {
        let whole = hello("chat.example");
        for bytes in [
            whole.clone(),
            cut(&whole, 1),
            cut(&whole, 3),
            cut(&whole, 100),
        ] {
            for end in 0..bytes.len() {
                assert!(!is_whole(&bytes[..end]), "{end} of {}", bytes.len());
            }
            assert!(is_whole(&bytes));
            assert!(is_whole(&[&bytes[..], b"more"].concat()));
        }
    }

    #[test]
    fn what_is_none_is_not_waited_for() {
        for bytes in [
            &b"\x15\x03\x01\0\x02\x01\0"[..],
            b"\x16\x03\x01\0\0",
            b"\x80\x2e\x01\0\x02",
        ] {
            assert!(is_whole(bytes), "{bytes:?}");
        }
        let endless = [
            &b"\x16\x03\x01\xff\xff\x01\xff\xff\xff"[..],
            &[0; HELLO_MAX - 9],
        ]
        .concat();
        assert!(is_whole(&endless));
        assert!(!is_whole(&endless[..HELLO_MAX - 1]));
    }

    #[test]
    fn the_name_is_found_if_one_is_asked_for() {
        let name = |hello: &[u8]| server_name(hello);
        let asked = hello("Chat.Example");
        assert_eq!(name(&asked).as_deref(), Some("chat.example"));
        assert_eq!(name(&cut(&asked, 50)).as_deref(), Some("chat.example"));
        assert_eq!(name(&hello("192.0.2.1")), None);
        assert_eq!(name(&asked[..50]), None);
        assert_eq!(name(b"GET / HTTP/1.1\r\n\r\n"), None);
    }
}
