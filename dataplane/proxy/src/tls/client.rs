//! TLS towards endpoints.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, Error, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    sign::SingleCertAndKey,
};

use super::{Digest, HTTP_1, Identity, Tls, TlsError, provider};

/// How the endpoints of an upstream are spoken to. Cheap to clone.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
    content: Digest,
}

impl ClientTls {
    /// Endpoints must have a certificate for `server_name` that one of the CAs in `ca` (PEM) vouches
    /// for. `identity` is shown to those that ask for a certificate of ours.
    pub fn new(
        server_name: &str,
        ca: &[u8],
        identity: Option<&Identity>,
    ) -> Result<Self, TlsError> {
        let hostname = || TlsError::Hostname {
            hostname: server_name.to_owned(),
        };
        let name = ServerName::try_from(server_name).map_err(|_| hostname())?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca) {
            let certificate = certificate.map_err(|_| TlsError::NoCa)?;
            roots.add(certificate).map_err(|_| TlsError::NoCa)?;
        }
        if roots.is_empty() {
            return Err(TlsError::NoCa);
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = SingleCertAndKey::from(identity.load()?);
                builder.with_client_cert_resolver(Arc::new(key))
            }
        };
        config.alpn_protocols = vec![HTTP_1.to_vec()];
        let (chain, key) = identity.map_or((&[][..], &[][..]), |identity| {
            (&identity.chain, &identity.key)
        });
        Ok(Self {
            config: Arc::new(config),
            server_name: name.to_owned(),
            content: Digest::of([server_name.as_bytes(), ca, chain, key]),
        })
    }

    pub(crate) fn connect(&self) -> Result<Box<Tls>, Error> {
        Tls::client(Arc::clone(&self.config), self.server_name.clone())
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Eq for ClientTls {}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Why TLS with an endpoint does not come about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// Its certificate is for another name.
    Hostname,
    /// Its certificate's time is over, or has not come.
    Validity,
    /// No CA of ours vouches for its certificate.
    Untrusted,
    /// It said that it will not.
    Refused,
    /// It does not speak TLS, or nothing that both know.
    Failed,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        use CertificateError as Bad;
        match error {
            Error::InvalidCertificate(bad) => match bad {
                Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Self::Hostname,
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. } => Self::Validity,
                _ => Self::Untrusted,
            },
            Error::AlertReceived(_) => Self::Refused,
            _ => Self::Failed,
        }
    }
}
