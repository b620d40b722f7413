//! From key material as a node has it ([`node_api::Keys`]) to what the relay's library serves with, and
//! what is wrong with it. The agent asks before it hands anything to the proxy; the proxy makes the same
//! of what it gets.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use node_api::{Http2, Keys, ListenerTls, PoolRef, Secret, TicketKeys, TlsVersion, UpstreamTls};
use proxy::tls::{ClientTls, Identity, MinimumVersion, ServerTls, TlsError};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// Any name will do to look at authorities.
const SOME_HOST: &str = "localhost";

/// What is wrong with key material, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is nothing in it.
    #[error("holds neither tls.crt and tls.key nor ca.crt; put them there")]
    Empty,
    /// Half of what a listener needs.
    #[error("has no certificate; add tls.crt")]
    NoCertificate,
    /// Half of what a listener needs.
    #[error("has no key; add tls.key")]
    NoKey,
    /// Not what an upstream needs.
    #[error("has no authorities; add ca.crt")]
    NoAuthorities,
    /// It is not what it is said to be.
    #[error("cannot be used: {0}")]
    Unusable(#[from] TlsError),
    /// A key for tickets that is none.
    #[error("has a key that is not 32 bytes in base64; make one with `openssl rand -base64 32`")]
    Ticket,
    /// It was not told.
    #[error("is not there")]
    Absent,
}

/// Whether everything that the Secret `name` holds can be used.
pub fn check(name: &str, secret: &Secret) -> Result<(), KeyError> {
    if *secret == Secret::default() {
        return Err(KeyError::Empty);
    }
    if secret.certificate.is_some() || secret.key.is_some() {
        let identity = identity(name, secret)?;
        let tickets = proxy::tls::TicketKeys::default();
        ServerTls::new(&[identity], MinimumVersion::Tls12, &tickets)?;
    }
    if let Some(ca) = &secret.ca {
        ClientTls::new(SOME_HOST, ca.as_bytes(), None)?;
    }
    Ok(())
}

/// Whether keys for tickets can be used.
pub fn check_tickets(keys: &TicketKeys) -> Result<(), KeyError> {
    ticket_keys(keys).map(drop)
}

/// Whether a Secret holds what a listener needs.
pub fn has_identity(secret: &Secret) -> bool {
    secret.certificate.is_some() && secret.key.is_some()
}

/// What a listener of `pool` serves with.
pub fn server(tls: &ListenerTls, keys: &Keys, pool: &PoolRef) -> Result<ServerTls, KeyError> {
    let identities = tls.certificates.iter().map(|name| {
        let secret = keys.secrets.get(name).ok_or(KeyError::Absent)?;
        identity(name, secret)
    });
    let identities: Vec<_> = identities.collect::<Result<_, _>>()?;
    let version = match tls.minimum_version {
        TlsVersion::V12 => MinimumVersion::Tls12,
        TlsVersion::V13 => MinimumVersion::Tls13,
    };
    let tickets = keys.tickets_of(pool).map(ticket_keys).transpose()?;
    let server = ServerTls::new(&identities, version, &tickets.unwrap_or_default())?;
    Ok(match tls.http2 {
        Http2::Enabled => server,
        Http2::Disabled => server.without_http2(),
    })
}

/// What endpoints of an upstream are reached with.
pub fn client(tls: &UpstreamTls, keys: &Keys) -> Result<ClientTls, KeyError> {
    let secret = |name: &String| keys.secrets.get(name).ok_or(KeyError::Absent);
    let ca = secret(&tls.ca)?.ca.as_ref();
    let ca = ca.ok_or(KeyError::NoAuthorities)?;
    let own = tls.client_certificate.as_ref();
    let own = own.map(|name| identity(name, secret(name)?)).transpose()?;
    let client = ClientTls::new(&tls.hostname, ca.as_bytes(), own.as_ref())?;
    Ok(client)
}

/// When the first certificate of a Secret's chain ends, in seconds since the Unix epoch: from then on
/// clients refuse it.
pub fn not_after(secret: &Secret) -> Option<i64> {
    let chain = CertificateDer::pem_slice_iter(secret.certificate.as_ref()?.as_bytes());
    let ends = chain.filter_map(|certificate| {
        let certificate = certificate.ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        Some(certificate.validity().not_after.timestamp())
    });
    ends.min()
}

fn identity(name: &str, secret: &Secret) -> Result<Identity, KeyError> {
    let chain = secret.certificate.as_ref().ok_or(KeyError::NoCertificate)?;
    let key = secret.key.as_ref().ok_or(KeyError::NoKey)?;
    Ok(Identity {
        name: name.to_owned(),
        chain: chain.clone().into_bytes(),
        key: key.clone().into_bytes(),
    })
}

fn ticket_keys(keys: &TicketKeys) -> Result<proxy::tls::TicketKeys, KeyError> {
    let keys = keys.0.iter().map(|text| {
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| KeyError::Ticket)?;
        bytes.try_into().map_err(|_| KeyError::Ticket)
    });
    keys.collect::<Result<_, _>>().map(proxy::tls::TicketKeys)
}

/// Content for tests.
#[cfg(test)]
pub(crate) mod samples {
    /// A certificate that is its own authority, and its key.
    pub(crate) struct Identity {
        pub(crate) certificate: String,
        pub(crate) key: String,
    }

    impl Identity {
        pub(crate) fn new(hostname: &str) -> Self {
            let made = rcgen::generate_simple_self_signed([hostname.to_owned()]).unwrap();
            Self {
                certificate: made.cert.pem(),
                key: made.signing_key.serialize_pem(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_chain_is_that_of_its_first_certificate_to_end() {
        let until = |year| {
            let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().pem()
        };
        let of = |chain: &str| {
            not_after(&Secret {
                certificate: Some(chain.to_owned()),
                ..Secret::default()
            })
        };
        // date --date 2031-01-01Z +%s
        let end = Some(1_924_992_000);
        assert_eq!(of(&until(2031)), end);
        assert_eq!(of(&(until(2040) + &until(2031))), end);
        assert_eq!(of("no certificate"), None);
        assert_eq!(not_after(&Secret::default()), None);
    }
}
