//! Certificates in Secrets, for those who trust them alone.

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

/// A certificate that has signed itself, and its key, both PEM.
#[derive(Debug)]
pub struct SelfSigned {
    /// The certificate.
    pub chain: String,
    /// Its private key.
    pub key: String,
}

impl SelfSigned {
    /// Issues one for a host.
    pub fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![name.to_owned()])?;
        Ok(Self {
            chain: certificate.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// The manifest of a Secret of the namespace `default` that holds it.
    pub fn secret(&self, name: &str) -> String {
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "default"},
            "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": self.chain, "tls.key": self.key},
        });
        secret.to_string()
    }
}
