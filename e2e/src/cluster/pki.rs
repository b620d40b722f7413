//! Keys and certificates of a control plane.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

/// What a certificate is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// A server proves who it is.
    Server,
    /// A client does.
    Client,
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub struct Signed {
    /// PEM of the certificate.
    pub certificate: PathBuf,
    /// PEM of the key.
    pub key: PathBuf,
}

/// An authority of this control plane alone.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

impl Authority {
    /// Makes one that keeps its files in `dir`.
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "wsha e2e");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().context("cannot make a key")?;
        let own = params
            .self_signed(&key)
            .context("cannot sign the authority's certificate")?;
        let certificate = dir.join("ca.crt");
        fs::write(&certificate, own.pem())?;
        Ok(Self {
            dir: dir.to_owned(),
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// PEM of its certificate.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// Signs a certificate for `name`, which as a client's is the user, a member of `groups`.
    pub fn issue(
        &self,
        file: &str,
        purpose: Purpose,
        name: &str,
        groups: &[&str],
        alternatives: &[SanType],
    ) -> Result<Signed> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.subject_alt_names = alternatives.to_vec();
        params.extended_key_usages = vec![match purpose {
            Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        let key = KeyPair::generate().context("cannot make a key")?;
        let signed: Certificate = params
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("cannot sign a certificate for {name}"))?;
        let certificate = self.dir.join(format!("{file}.crt"));
        fs::write(&certificate, signed.pem())?;
        Ok(Signed {
            certificate,
            key: write_key(&self.dir, file, &key)?,
        })
    }

    /// A key alone, `FILE.key` and `FILE.pub`: what signs the tokens of service accounts.
    pub fn key(&self, file: &str) -> Result<()> {
        let key = KeyPair::generate().context("cannot make a key")?;
        fs::write(self.dir.join(format!("{file}.pub")), key.public_key_pem())?;
        write_key(&self.dir, file, &key).map(drop)
    }
}

/// Names of the API server: as pods know it, and the addresses it listens on.
pub(super) fn server_names(addresses: &[IpAddr]) -> Result<Vec<SanType>> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let names = names.map(|name| Ok(SanType::DnsName(name.try_into()?)));
    let addresses = addresses
        .iter()
        .map(|address| Ok(SanType::IpAddress(*address)));
    names.into_iter().chain(addresses).collect()
}

/// Names of a node.
pub(super) fn node_names(name: &str, address: Ipv4Addr) -> Result<Vec<SanType>> {
    let address = SanType::IpAddress(address.into());
    Ok(vec![SanType::DnsName(name.try_into()?), address])
}

fn write_key(dir: &Path, file: &str, key: &KeyPair) -> Result<PathBuf> {
    private_file(&dir.join(format!("{file}.key")), &key.serialize_pem())
}

/// Writes what nobody else may read.
pub(super) fn private_file(path: &Path, content: &str) -> Result<PathBuf> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    std::io::Write::write_all(&mut file, content.as_bytes())?;
    Ok(path.to_owned())
}
