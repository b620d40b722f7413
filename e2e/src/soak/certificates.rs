//! The certificate of the listeners that speak TLS, which is replaced while sessions live.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::SanType;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::cluster::{Authority, Purpose};
use crate::lab::{Host, VIP_SERVER1, VIP_SERVER2};
use crate::testing::{Cluster, Gateway, inside};
use crate::wait;

/// The Secret that the listeners name.
pub(super) const SECRET: &str = "soak-tls";

/// Whom the certificates are for.
const NAME: &str = "soak.example";

/// Bound against hangs for a certificate to come into use.
const PATIENCE: Duration = Duration::from_mins(1);

/// The authority, and where what it signs goes.
#[derive(Debug)]
pub(super) struct Certificates {
    authority: Authority,
    /// A directory of each gateway.
    dirs: Vec<PathBuf>,
}

impl Certificates {
    /// The first certificate, on both gateways.
    pub(super) fn new(cluster: &Cluster) -> Result<Self> {
        let dirs = Gateway::BOTH.map(|gateway| cluster.tls_dir(gateway));
        let certificates = Self {
            authority: Authority::new(&cluster.lab.client().dir().join("authority"))?,
            dirs: dirs.map(|dir| dir.join("default").join(SECRET)).into(),
        };
        certificates.issue()?;
        Ok(certificates)
    }

    /// Puts another one in the place of the one before.
    fn issue(&self) -> Result<CertificateDer<'static>> {
        let names = [SanType::DnsName(NAME.try_into()?)];
        let server = Purpose::Server;
        let signed = self.authority.issue(SECRET, server, NAME, &[], &names)?;
        for dir in &self.dirs {
            fs::create_dir_all(dir)?;
            for (file, made) in [("tls.key", &signed.key), ("tls.crt", &signed.certificate)] {
                let fresh = dir.join("new");
                fs::copy(made, &fresh)?;
                fs::rename(&fresh, dir.join(file))?;
            }
        }
        Ok(CertificateDer::from_pem_file(&signed.certificate)?)
    }

    /// Replaces the certificate, and waits until both addresses show the new one at `port`.
    pub(super) fn replace(&self, client: &Host, port: u16) -> Result<()> {
        let fresh = self.issue()?;
        let trust = Arc::new(self.client(&[])?);
        for address in [VIP_SERVER1, VIP_SERVER2] {
            let what = format!("{address} to show the new certificate");
            wait::until(&what, PATIENCE, || {
                // A gateway may be about to come back.
                let shown = inside(client, || shown(address, port, &trust)).ok();
                Ok((shown.as_ref() == Some(&fresh)).then_some(()))
            })?;
        }
        Ok(())
    }

    /// A client that offers these protocols (RFC 7301), and trusts what is signed here.
    pub(super) fn client(&self, protocols: &[&str]) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority.certificate())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        Ok(config)
    }
}

/// As whom clients ask for it.
pub(super) fn name() -> ServerName<'static> {
    // It is one.
    ServerName::try_from(NAME).unwrap_or_else(|_| Ipv4Addr::LOCALHOST.into())
}

fn shown(address: Ipv4Addr, port: u16, trust: &ClientConfig) -> Result<CertificateDer<'static>> {
    let mut stream = TcpStream::connect(SocketAddrV4::new(address, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // A ticket would spare it the certificate.
    let mut config = trust.clone();
    config.resumption = Resumption::disabled();
    let mut tls = ClientConnection::new(Arc::new(config), name())?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    let shown = tls.peer_certificates().and_then(<[_]>::first);
    shown.cloned().context("no certificate")
}
