//! What a session runs over: TCP, or TLS on it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

/// What a client of `wss://` knows: the name that it asks for, whom it trusts, and the tickets that it has got.
#[derive(Clone, Debug)]
pub struct Trust {
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts these certificates, PEM, and no others.
    pub fn new(name: &str, certificates: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(certificates.as_bytes()) {
            roots.add(certificate.context("no certificate in PEM form")?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            name: ServerName::try_from(name.to_owned())?,
            config: Arc::new(config),
        })
    }

    /// Keeps none, so that every handshake is a whole one.
    #[must_use]
    pub fn without_tickets(mut self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::disabled();
        self.config = Arc::new(config);
        self
    }
}

/// A connection to a virtual address.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    /// Shakes hands where there is somebody to trust.
    pub(super) fn new(mut stream: TcpStream, trust: Option<&Trust>) -> Result<Self> {
        let Some(trust) = trust else {
            return Ok(Self::Plain(stream));
        };
        let mut tls = ClientConnection::new(Arc::clone(&trust.config), trust.name.clone())?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)
                .context("the TLS handshake failed")?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, stream))))
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(tls) => &tls.sock,
        }
    }

    /// What the other side has shown.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.conn.peer_certificates()?.first(),
        }
    }

    /// Whether a ticket spared the handshake its certificate.
    pub(super) fn is_resumed(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.conn.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(tls) => match tls.read(buffer) {
                // The stream ended without TLS's own word for that.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                read => read,
            },
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
