//! A certificate that somebody else issues, as cert-manager does: served, renewed, and its authority followed
//! by another, under a living session.

use std::fs;

use anyhow::{Result, ensure};
use e2e::testing::{Gateway, Session};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::serving;
use crate::stage::{AsWhom, Stage, VIP1, on_stage_after};

/// The Secret that the controllers are told of.
const SECRET: &str = "given-tls";

/// An authority outside of the cluster.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // One that is called as what it issues is taken for that itself.
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "outside authority");
        Ok(Self {
            certificate: params.self_signed(&key)?.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Issues a certificate for the controllers and puts it into the Secret.
    fn issue(&self, stage: &Stage<'_>) -> Result<String> {
        let key = KeyPair::generate()?;
        let name = stage.control_plane.site().address().to_string();
        let certificate = CertificateParams::new(vec![name])?.signed_by(&key, &self.issuer)?;
        let secret = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": "wsha"},
            "type": "kubernetes.io/tls",
            "stringData": {
                "tls.crt": certificate.pem(),
                "tls.key": key.serialize_pem(),
                "ca.crt": self.certificate,
            },
        });
        stage.apply(&secret.to_string())?;
        Ok(certificate.pem())
    }
}

/// Waits until every replica serves what a client that trusts `certificate` alone accepts.
fn served(stage: &Stage<'_>, what: &str, certificate: &str) -> Result<()> {
    stage.wait(what, |stage| {
        Ok(stage.is_served_by(certificate)?.then_some(()))
    })
}

#[test]
fn a_given_certificate_is_served_renewed_and_followed() -> Result<()> {
    let test = "a_given_certificate_is_served_renewed_and_followed";
    let first = Authority::new()?;
    // The life of what is not issued says how often it is looked for what is.
    let words = [&format!("--tls-secret={SECRET}"), "--certificate-life=1m"];
    let before = |stage: &Stage<'_>| first.issue(stage).map(drop);
    on_stage_after(test, 2, &words, AsWhom::Administrator, before, |stage| {
        serving(stage)?;
        let mut session = Session::open(stage.cluster.lab.client(), VIP1)?;
        ensure!(stage.bundle()?.trim() == first.certificate.trim());
        ensure!(stage.is_served_by(&first.certificate)?);
        let own = stage.kubectl(&["get", "secrets", "-n", "wsha", "-o", "name"])?;
        ensure!(!own.contains("secret/wsha-ca"), "{own}");

        // Renewed by the same authority: whoever trusts the new certificate itself sees it.
        let renewed = first.issue(stage)?;
        served(stage, "the renewed certificate", &renewed)?;
        ensure!(stage.is_served_by(&first.certificate)?);

        // By another authority: not before every gateway trusts that.
        let second = Authority::new()?;
        let last = second.issue(stage)?;
        let both = stage.wait("the other authority in the bundle", |stage| {
            let bundle = stage.bundle()?;
            Ok(bundle.contains(second.certificate.trim()).then_some(bundle))
        })?;
        ensure!(both.contains(first.certificate.trim()), "{both}");
        fs::write(stage.authority_file(Gateway::One), &both)?;
        ensure!(stage.is_served_by(&renewed)?, "served before all trust it");
        fs::write(stage.authority_file(Gateway::Two), &both)?;
        served(stage, "the certificate of the other authority", &last)?;
        stage.wait("the former authority to leave the bundle", |stage| {
            Ok((stage.bundle()?.trim() == second.certificate.trim()).then_some(()))
        })?;
        stage.wait_condition("chat", "Programmed", "True")?;
        session.undisturbed()
    })
}
