//! An authority of our own, and the certificates that it issues.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    version::TLS13,
};

/// How far clocks may differ.
const SKEW: Duration = Duration::from_hours(1);

/// An authority: its certificate and key, both PEM.
#[derive(Clone, Eq, PartialEq)]
pub struct Authority {
    pub(super) certificate: String,
    pub(super) key: String,
    /// When it was made, seconds since the Unix epoch.
    pub(super) made: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one, good for `life`.
    ///
    /// # Errors
    /// If there is no randomness for its key.
    pub fn generate(now: SystemTime, life: Duration) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = authority();
        valid(&mut params, now, life);
        Ok(Self {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
            made: seconds(now),
        })
    }

    /// What clients trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// How long it has been.
    pub fn age(&self, now: SystemTime) -> Duration {
        Duration::from_secs(seconds(now).saturating_sub(self.made))
    }

    /// By this nodes name it.
    pub fn fingerprint(&self) -> Option<String> {
        fingerprints(&self.certificate).pop()
    }

    /// A configuration that serves a new certificate for `names`, good for `life`.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate, or the authority's key is none.
    pub fn serving(
        &self,
        names: &[String],
        now: SystemTime,
        life: Duration,
    ) -> Result<Arc<ServerConfig>, Box<dyn Error + Send + Sync>> {
        let issuer = Issuer::new(authority(), KeyPair::from_pem(&self.key)?);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("wsha controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        valid(&mut params, now, life);
        let certificate = params.signed_by(&key, &issuer)?;
        let chain = vec![
            certificate.der().clone(),
            CertificateDer::from_pem_slice(self.certificate.as_bytes())?,
        ];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        config(chain, key)
    }
}

/// What serves a certificate.
///
/// # Errors
/// If certificate and key do not belong together.
pub(super) fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Box<dyn Error + Send + Sync>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// The fingerprints of the certificates in a PEM text, as nodes tell them.
pub(super) fn fingerprints(pem: &str) -> Vec<String> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
    certificates
        .map(|certificate| node_api::stream::fingerprint(&certificate))
        .collect()
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// What every authority of ours has in common, so that its key alone can issue.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("wsha authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// For `life` from now, and a little before for clocks that are late.
fn valid(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + unix.saturating_sub(SKEW);
    params.not_after = epoch + unix + life;
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    const LIFE: Duration = Duration::from_hours(24);

    use super::*;

    /// Lets a client that trusts `trusted` shake hands with `server`, in memory.
    fn shake(server: Arc<ServerConfig>, trusted: &str, name: &str) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(server).unwrap();
        for _ in 0..10 {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut &*wire).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut &*wire).unwrap();
            client.process_new_packets()?;
        }
        assert!(!client.is_handshaking());
        Ok(())
    }

    #[test]
    fn its_certificates_are_trusted_for_their_names_alone() {
        let now = SystemTime::now();
        let authority = Authority::generate(now, LIFE).unwrap();
        let names = ["controller.wsha.svc".to_owned(), "10.0.0.1".to_owned()];
        let serving = authority.serving(&names, now, LIFE).unwrap();
        for name in &names {
            shake(Arc::clone(&serving), authority.certificate(), name).unwrap();
        }
        let other = shake(Arc::clone(&serving), authority.certificate(), "elsewhere");
        assert!(other.is_err());
        let stranger = Authority::generate(now, LIFE).unwrap();
        assert!(shake(serving, stranger.certificate(), &names[0]).is_err());
    }

    #[test]
    fn certificates_end() {
        let now = SystemTime::now();
        let authority = Authority::generate(now, LIFE).unwrap();
        let names = ["controller".to_owned()];
        let old = now - LIFE - SKEW;
        let serving = authority.serving(&names, old, LIFE).unwrap();
        assert!(shake(serving, authority.certificate(), &names[0]).is_err());
    }
}
