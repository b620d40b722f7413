//! What version 2 calls authentication.
//!
//! RFC 3768 took it out, as it protects from nothing: whoever can send on the segment can listen
//! there, too. It is spoken for groups that are shared with routers that want it.

use std::fmt;

/// What an advertisement of version 2 carries behind its addresses (RFC 2338 section 5.3.6).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Authentication {
    /// Type 0. The only one in version 3.
    #[default]
    None,
    /// Type 1, the same on all routers.
    SimplePassword(Password),
}

/// Eight bytes of a password, which are never shown.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Password([u8; 8]);

impl Password {
    /// One to eight printable characters of ASCII, filled up with zeros (RFC 2338 section 5.3.10);
    /// `None`: it is none.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        if text.is_empty() || !is_printable {
            return None;
        }
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }

    /// As it stands in a packet.
    pub(crate) const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// As it stands in a packet.
    pub(crate) const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_bounded_and_not_shown() {
        for wrong in ["", "123456789", "tab\t", "\u{e9}", "nul\0"] {
            assert_eq!(Password::new(wrong), None, "{wrong:?}");
        }
        let password = Password::new("a b~").unwrap();
        assert_eq!(password.as_bytes(), b"a b~\0\0\0\0");
        assert_ne!(Password::new("a b"), Some(password));
        let shown = format!("{:?}", Authentication::SimplePassword(password));
        assert_eq!(shown, "SimplePassword(Password(..))");
    }
}
