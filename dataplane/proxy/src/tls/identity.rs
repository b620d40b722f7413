//! A certificate with its key, as files and Secrets hold them.

use std::fmt;

use rustls::{
    InconsistentKeys,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
    sign::CertifiedKey,
};

use super::provider;

/// A certificate with its key.
#[derive(Clone, Eq, PartialEq)]
pub struct Identity {
    /// What errors call it, as `namespace/name`.
    pub name: String,
    /// PEM of the certificate and of those that lead from it to the CA, in that order.
    pub chain: Vec<u8>,
    /// PEM of the private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why certificates and keys cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// A listener without any.
    #[error("no certificate is given: a listener with TLS needs at least one")]
    NoIdentity,
    /// There is no certificate.
    #[error(
        "certificate {name}: tls.crt holds no certificate: put it there in PEM, followed by those that lead to its CA"
    )]
    NoCertificate {
        /// Its name.
        name: String,
    },
    /// Something that is no certificate.
    #[error("certificate {name}: tls.crt cannot be read ({reason}): put certificates there in PEM")]
    BadCertificate {
        /// Its name.
        name: String,
        /// What the library says.
        reason: String,
    },
    /// There is no key.
    #[error(
        "certificate {name}: tls.key holds no private key that can be read: put it there in PEM, not encrypted"
    )]
    NoKey {
        /// Its name.
        name: String,
    },
    /// A key of an unknown kind.
    #[error(
        "certificate {name}: tls.key is of a kind that is not known: use RSA of 2048 bits or more, ECDSA on P-256, P-384 or P-521, or Ed25519"
    )]
    UnknownKey {
        /// Its name.
        name: String,
    },
    /// The key is another one's.
    #[error(
        "certificate {name}: tls.key does not belong to the first certificate of tls.crt: give those that were made together"
    )]
    KeyMismatch {
        /// Its name.
        name: String,
    },
    /// A name that no certificate can have.
    #[error(
        "hostname {hostname} is neither a DNS name nor an address: give the one that the endpoints' certificate is for"
    )]
    Hostname {
        /// The name.
        hostname: String,
    },
    /// A CA that says nothing.
    #[error("ca.crt holds no certificate of a CA that can be used: put it there in PEM")]
    NoCa,
    /// What cannot be.
    #[error("TLS cannot be set up: {reason}")]
    Library {
        /// What the library says.
        reason: String,
    },
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Library {
            reason: error.to_string(),
        }
    }
}

impl Identity {
    /// In the form that handshakes need.
    pub(super) fn load(&self) -> Result<CertifiedKey, TlsError> {
        let name = || self.name.clone();
        let bad = |reason: String| TlsError::BadCertificate {
            name: name(),
            reason,
        };
        let chain = CertificateDer::pem_slice_iter(&self.chain)
            .collect::<Result<Vec<_>, PemError>>()
            .map_err(|error| bad(error.to_string()))?;
        let Some(own) = chain.first() else {
            return Err(TlsError::NoCertificate { name: name() });
        };
        // Only the own one is read here: the others are for the peer, who may know what we do not.
        webpki::EndEntityCert::try_from(own).map_err(|error| bad(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| TlsError::NoKey { name: name() })?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|_| TlsError::UnknownKey { name: name() })?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) | Ok(()) => {
                Ok(certified)
            }
            Err(_) => Err(TlsError::KeyMismatch { name: name() }),
        }
    }
}
