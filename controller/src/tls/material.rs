//! What a Secret holds, as far as pools use it.

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::{SecretName, Use};

/// Type of a Secret with a certificate and its key.
const TYPE: &str = "kubernetes.io/tls";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITY: &str = "ca.crt";

/// What kind of fault, one word without blanks: the reason of a condition. The first two are those of the
/// Gateway API's listeners.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The Secret is not there, or does not hold what it should.
    InvalidCertificateRef,
    /// The administrator does not permit the Secrets of the namespace.
    RefNotPermitted,
    /// The certificate's time is over.
    CertificateExpired,
    /// The API server has not told of the Secret yet.
    Pending,
}

/// Why a Secret cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    /// For programs.
    pub reason: Reason,
    /// A clause without a full stop that names the Secret and the remedy.
    pub message: String,
}

impl Fault {
    fn invalid(message: String) -> Self {
        Self {
            reason: Reason::InvalidCertificateRef,
            message,
        }
    }

    pub(super) fn missing(name: &SecretName, used: Use) -> Self {
        let SecretName { namespace, name } = name;
        let how = match used {
            Use::Identity => {
                format!("tls {name} --namespace {namespace} --cert CHAIN --key KEY")
            }
            Use::Authority => {
                format!("generic {name} --namespace {namespace} --from-file {AUTHORITY}=FILE")
            }
        };
        Self::invalid(format!(
            "there is no Secret {namespace}/{name}; create it: kubectl create secret {how}"
        ))
    }

    pub(super) fn not_permitted(name: &SecretName) -> Self {
        Self {
            reason: Reason::RefNotPermitted,
            message: format!(
                "Secret {name} is not read, as namespace {} is not among those whose Secrets the \
                 controller may read; add it to the chart's value tls.namespaces",
                name.namespace
            ),
        }
    }

    pub(super) fn pending(name: &SecretName) -> Self {
        Self {
            reason: Reason::Pending,
            message: format!(
                "the API server has not told of Secret {name}; if that lasts, see whether Role and \
                 RoleBinding wsha-controller-secrets are in namespace {}, and what the controller logs",
                name.namespace
            ),
        }
    }
}

/// What a Secret holds.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Material {
    pub(super) identity: Result<Identity, Fault>,
    /// Certificates, PEM.
    pub(super) authority: Result<String, Fault>,
}

/// A certificate and its key, PEM.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Identity {
    pub(super) chain: String,
    pub(super) key: String,
    /// When the first certificate ends. Chains hold others that are over, as a root that was signed anew.
    ends: Timestamp,
    name: SecretName,
}

impl Identity {
    /// What is wrong with it at that time.
    pub(super) fn fault(&self, now: Timestamp) -> Option<Fault> {
        (self.ends <= now).then(|| Fault {
            reason: Reason::CertificateExpired,
            message: format!(
                "the certificate in Secret {} ended at {}; have whoever issued it issue another one, and put \
                 that and its key there",
                self.name, self.ends
            ),
        })
    }
}

impl Material {
    /// Reads it.
    pub(super) fn read(name: &SecretName, secret: &Secret) -> Self {
        Self {
            identity: identity(name, secret),
            authority: authority(name, secret),
        }
    }

    /// What is wrong with it for that use at that time.
    pub(super) fn fault(&self, used: Use, now: Timestamp) -> Option<Fault> {
        match used {
            Use::Identity => match &self.identity {
                Ok(identity) => identity.fault(now),
                Err(fault) => Some(fault.clone()),
            },
            Use::Authority => self.authority.as_ref().err().cloned(),
        }
    }
}

/// What is to be kept of a Secret that was read; the rest is nobody's business here.
pub(crate) fn lean(secret: &mut Secret) {
    let is_tls = secret.type_.as_deref() == Some(TYPE);
    if let Some(data) = &mut secret.data {
        data.retain(|key, _| key == AUTHORITY || (is_tls && (key == CERTIFICATE || key == KEY)));
    }
}

fn text(secret: &Secret, key: &str) -> String {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    let bytes = data.map_or(&[][..], |ByteString(bytes)| bytes.as_slice());
    String::from_utf8_lossy(bytes).into_owned()
}

fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes());
    let read: Vec<_> = read.collect::<Result<_, _>>().ok()?;
    (!read.is_empty()).then_some(read)
}

/// Errors of what is read are not quoted: they may repeat what they found.
fn identity(name: &SecretName, secret: &Secret) -> Result<Identity, Fault> {
    let type_ = secret.type_.as_deref().unwrap_or("Opaque");
    if type_ != TYPE {
        return Err(Fault::invalid(format!(
            "Secret {name} is of type {type_}, not {TYPE}; delete it and create it anew: kubectl create \
             secret tls"
        )));
    }
    let (chain, key) = (text(secret, CERTIFICATE), text(secret, KEY));
    let read = certificates(&chain);
    let ends = read.as_ref().and_then(|read| ends(read.first()?));
    let (Some(read), Some(ends)) = (read, ends) else {
        return Err(Fault::invalid(format!(
            "{CERTIFICATE} of Secret {name} is no chain of certificates in PEM form; put it there, the \
             certificate of the listener first"
        )));
    };
    let Ok(der) = PrivateKeyDer::from_pem_slice(key.as_bytes()) else {
        return Err(Fault::invalid(format!(
            "{KEY} of Secret {name} is no private key in PEM form; put the certificate's key there, \
             without a password"
        )));
    };
    let provider = aws_lc_rs::default_provider();
    if CertifiedKey::from_der(read, der, &provider).is_err() {
        return Err(Fault::invalid(format!(
            "{KEY} of Secret {name} is not the key of the first certificate in {CERTIFICATE}, or of a \
             kind that TLS does not use; put both there as they were issued"
        )));
    }
    Ok(Identity {
        chain,
        key,
        ends,
        name: name.clone(),
    })
}

fn authority(name: &SecretName, secret: &Secret) -> Result<String, Fault> {
    let authority = text(secret, AUTHORITY);
    if certificates(&authority).is_none() {
        return Err(Fault::invalid(format!(
            "Secret {name} has no {AUTHORITY} with certificates in PEM form; put those there of the \
             authorities that the servers' certificates come from"
        )));
    }
    Ok(authority)
}

/// When a certificate ends (RFC 5280 section 4.1.2.5).
fn ends(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}
