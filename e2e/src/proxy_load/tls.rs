//! The certificate that all proxies show, and TLS at the generator's end.
//!
//! Whatever a proxy would choose, all get the same: TLS 1.3, `TLS_AES_128_GCM_SHA256`, X25519, a key on P-256. Each
//! issues session tickets as it does by itself, and the generator uses none, so that every handshake is a whole one.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
    /// Both in one, as `HAProxy` wants them.
    pub both: PathBuf,
}

impl Files {
    /// Puts certificate and key, both PEM, into `dir`, in the place of those that are there.
    pub fn write(dir: &Path, certificate: &str, key: &str) -> Result<Self> {
        let file = |name: &str, text: &str| {
            let file = dir.join(name);
            replace(&file, text)?;
            anyhow::Ok(file)
        };
        Ok(Self {
            key: file("tls.key", key)?,
            certificate: file("tls.crt", certificate)?,
            both: file("tls.pem", &[certificate, key].concat())?,
        })
    }
}

/// Puts `text` in the place of `file` in one step, for nobody else to read: there may be a key in it.
pub(super) fn replace(file: &Path, text: &str) -> Result<()> {
    let fresh = file.with_extension("new");
    let mut options = OpenOptions::new();
    let opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh);
    opened
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", fresh.display()))?;
    Ok(fs::rename(fresh, file)?)
}

/// A certificate for loopback, and the client's side of it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate and its key.
    pub files: Files,
    client: Arc<ClientConfig>,
    client_http2: Arc<ClientConfig>,
}

impl Identity {
    /// Makes one whose files are in `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = CertificateParams::new([Ipv4Addr::LOCALHOST.to_string()])?;
        let certificate = params.self_signed(&key)?;
        let client = client(certificate.der().clone())?;
        let mut client_http2 = client.clone();
        client_http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            files: Files::write(dir, &certificate.pem(), &key.serialize_pem())?,
            client: client.into(),
            client_http2: client_http2.into(),
        })
    }
}

fn client(certificate: CertificateDer<'static>) -> Result<ClientConfig> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let mut roots = RootCertStore::empty();
    roots.add(certificate)?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// One connection's TLS, apart from its socket.
#[derive(Debug)]
pub(super) struct Tls(ClientConnection);

impl Tls {
    /// The largest record (RFC 8446 section 5.2).
    pub(super) const RECORD_MAX: usize = 5 + (1 << 14) + 256;

    /// The client's side of a connection, which speaks HTTP/2 or HTTP/1.1.
    pub(super) fn new(identity: &Identity, is_http2: bool) -> Result<Self> {
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let config = if is_http2 {
            &identity.client_http2
        } else {
            &identity.client
        };
        let mut session = ClientConnection::new(Arc::clone(config), name)?;
        // What it holds back during a handshake is bounded by the request.
        session.set_buffer_limit(None);
        Ok(Self(session))
    }

    /// Opens what came and puts the plaintext, which is never longer than all that came, to the front of `room`.
    pub(super) fn open(&mut self, mut received: &[u8], room: &mut [u8]) -> Result<usize> {
        let mut length = 0;
        while !received.is_empty() {
            self.0.read_tls(&mut received)?;
            let plain = self.0.process_new_packets()?.plaintext_bytes_to_read();
            let room = room.get_mut(length..length + plain);
            let room = room.context("more plaintext than there is room for")?;
            self.0.reader().read_exact(room)?;
            length += plain;
        }
        Ok(length)
    }

    /// Takes plaintext, and appends to `out` all that is to be sent.
    pub(super) fn seal(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.0.writer().write_all(bytes)?;
        while self.0.wants_write() {
            self.0.write_tls(out)?;
        }
        Ok(())
    }
}
