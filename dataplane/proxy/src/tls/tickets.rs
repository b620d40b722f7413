//! Session tickets (RFC 8446 section 4.6.1, RFC 5077): the client keeps the state of a session, sealed
//! with a key of ours, and resumes with it at any gateway that has the key.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::{crypto::aws_lc_rs::Ticketer, server::ProducesTickets};

use super::TlsError;

/// For how long a client may use a ticket, in seconds. How long one can be opened is up to those who
/// rotate the keys.
const LIFETIME: u32 = 12 * 60 * 60;

/// Keys of session tickets. The first one seals, all of them open. Without any, tickets are this
/// process's own.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct TicketKeys(pub Vec<[u8; 32]>);

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({})", self.0.len())
    }
}

impl TicketKeys {
    pub(super) fn ticketer(&self) -> Result<Arc<dyn ProducesTickets>, TlsError> {
        if self.0.is_empty() {
            return own();
        }
        // Gateways draw their nonces each for itself and use one key for hours: with this cipher two
        // that are the same give nothing away but that the tickets are (RFC 8452 section 4).
        let key = |key: &[u8; 32]| RandomizedNonceKey::new(&AES_256_GCM_SIV, key);
        let keys = self.0.iter().map(key).collect::<Result<_, _>>();
        let keys = keys.map_err(|error| TlsError::Library {
            reason: error.to_string(),
        })?;
        Ok(Arc::new(Shared { keys }))
    }
}

/// Tickets of this process: one ticketer for all listeners, which changes its keys by itself, so that
/// a new certificate does not end what clients have.
fn own() -> Result<Arc<dyn ProducesTickets>, TlsError> {
    static OWN: Mutex<Option<Arc<dyn ProducesTickets>>> = Mutex::new(None);
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(own) = &*own {
        return Ok(Arc::clone(own));
    }
    Ok(Arc::clone(own.insert(Ticketer::new()?)))
}

/// Tickets of all gateways that have the same keys: a nonce, then what is sealed.
struct Shared {
    keys: Vec<RandomizedNonceKey>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl ProducesTickets for Shared {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let key = self.keys.first()?;
        let nonce = key
            .seal_in_place_append_tag(Aad::empty(), &mut sealed)
            .ok()?;
        Some([&nonce.as_ref()[..], &sealed].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        self.keys.iter().find_map(|key| {
            let mut opened = sealed.to_vec();
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let plain = key.open_in_place(nonce, Aad::empty(), &mut opened).ok()?;
            Some(plain.to_vec())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketer(keys: &[u8]) -> Arc<dyn ProducesTickets> {
        let keys = keys.iter().map(|key| [*key; 32]).collect();
        TicketKeys(keys).ticketer().unwrap()
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let ticket = ticketer(&[1, 2]).encrypt(b"state").unwrap();
        for keys in [&[1][..], &[3, 1], &[2, 3, 1]] {
            assert_eq!(ticketer(keys).decrypt(&ticket).unwrap(), b"state");
        }
        assert_eq!(ticketer(&[2, 3]).decrypt(&ticket), None);
    }

    #[test]
    fn what_was_changed_or_cut_is_not_opened() {
        let ticketer = ticketer(&[1]);
        let ticket = ticketer.encrypt(b"state").unwrap();
        for i in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[i] ^= 1;
            assert_eq!(ticketer.decrypt(&changed), None, "byte {i}");
            assert_eq!(ticketer.decrypt(&ticket[..i]), None, "{i} bytes");
        }
        assert_ne!(
            ticketer.encrypt(b"state"),
            Some(ticket),
            "a nonce came again"
        );
    }

    #[test]
    fn keys_are_not_shown() {
        assert_eq!(format!("{:?}", TicketKeys(vec![[7; 32]])), "TicketKeys(1)");
        assert!(!format!("{:?}", ticketer(&[7])).contains('7'));
    }

    #[test]
    fn tickets_of_the_process_are_those_of_all_its_listeners() {
        let ticket = ticketer(&[]).encrypt(b"state").unwrap();
        assert_eq!(ticketer(&[]).decrypt(&ticket).unwrap(), b"state");
    }
}
