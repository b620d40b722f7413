//! TLS towards clients.

use std::{fmt, sync::Arc};

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    server::NoServerSessionStorage,
    version::{TLS12, TLS13},
};

use super::{
    Digest, HTTP_1, HTTP_2, Identity, TicketKeys, Tls, TlsError, hello, names::Names, provider,
};

static SINCE_TLS12: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
static SINCE_TLS13: [&SupportedProtocolVersion; 1] = [&TLS13];

/// The oldest version that a client may speak.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum MinimumVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

impl MinimumVersion {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => &SINCE_TLS12,
            Self::Tls13 => &SINCE_TLS13,
        }
    }
}

/// How clients of a listener are spoken to. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    content: Digest,
}

impl ServerTls {
    /// A listener with these certificates, of which each client gets the one for the name it asks for,
    /// or else the first.
    pub fn new(
        identities: &[Identity],
        minimum_version: MinimumVersion,
        ticket_keys: &TicketKeys,
    ) -> Result<Self, TlsError> {
        if identities.is_empty() {
            return Err(TlsError::NoIdentity);
        }
        let certificates = identities.iter().map(Identity::load);
        let names = Names::new(certificates.collect::<Result<_, _>>()?);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(minimum_version.versions())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(names));
        // The first that the client speaks, too: one connection then carries many sessions.
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        config.ticketer = ticket_keys.ticketer()?;
        // Clients keep their sessions themselves: nothing of theirs stays here, and every gateway is as
        // good as the one before.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let version: &[u8] = match minimum_version {
            MinimumVersion::Tls12 => b"1.2",
            MinimumVersion::Tls13 => b"1.3",
        };
        let identities = identities.iter().flat_map(|identity| {
            let Identity {
                name: _,
                chain,
                key,
            } = identity;
            [chain.as_slice(), key]
        });
        // The keys have one length, so they need no marks between them.
        let keys = ticket_keys.0.as_flattened();
        Ok(Self {
            config: Arc::new(config),
            content: Digest::of([version, keys].into_iter().chain(identities)),
        })
    }

    /// The same, where clients get HTTP/1.1 whatever else they offer.
    #[must_use]
    pub fn without_http2(mut self) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![HTTP_1.to_vec()];
        self
    }

    /// Whether clients that offer HTTP/2 get it.
    pub(crate) fn offers_http2(&self) -> bool {
        let mut protocols = self.config.alpn_protocols.iter();
        protocols.any(|protocol| protocol == HTTP_2)
    }

    /// For a client that has sent `received` so far. The name that it asks for is kept if it is wanted.
    pub(crate) fn accept(
        &self,
        received: Vec<u8>,
        keeps_name: bool,
    ) -> Result<Box<Tls>, rustls::Error> {
        let name = keeps_name.then(|| hello::server_name(&received)).flatten();
        Tls::server(Arc::clone(&self.config), received, name)
    }
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content && self.offers_http2() == other.offers_http2()
    }
}

impl Eq for ServerTls {}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}
