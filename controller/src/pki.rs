//! The controller's certificate, without help from outside: an own authority, kept in a Secret by
//! the replica that leads, and a bundle that the data plane trusts. Each replica issues its serving
//! certificate for itself, in memory.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
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
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{failure::Failure, write::MANAGER};

/// Secret of the authority, and ConfigMap of the bundle.
pub const AUTHORITY: &str = "wsha-ca";
/// Where the bundle stands in its ConfigMap.
pub const BUNDLE_KEY: &str = "ca.crt";
const CERTIFICATE_KEY: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";

/// Life of the authority.
const AUTHORITY_LIFE: Duration = Duration::from_hours(24 * 3650);
/// Life of a serving certificate; a new one is issued when half of it is over.
const SERVING_LIFE: Duration = Duration::from_hours(24 * 30);
/// How far clocks may differ.
const SKEW: Duration = Duration::from_hours(1);
/// How often the authority is looked for while there is none.
const LOOK: Duration = Duration::from_secs(1);
/// Limit for one call.
const CALL: Duration = Duration::from_secs(3);

/// An authority: its certificate and key, both PEM.
#[derive(Clone, Eq, PartialEq)]
pub struct Authority {
    certificate: String,
    key: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// If there is no randomness for its key.
    pub fn generate(now: SystemTime) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = authority();
        valid(&mut params, now, AUTHORITY_LIFE);
        Ok(Self {
            certificate: params.self_signed(&key)?.pem(),
            key: key.serialize_pem(),
        })
    }

    /// What clients trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A configuration that serves a new certificate for `names`.
    ///
    /// # Errors
    /// If a name cannot stand in a certificate, or the authority's key is none.
    pub fn serving(
        &self,
        names: &[String],
        now: SystemTime,
    ) -> Result<Arc<ServerConfig>, Box<dyn std::error::Error + Send + Sync>> {
        let issuer = Issuer::new(authority(), KeyPair::from_pem(&self.key)?);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = named("wsha controller");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        valid(&mut params, now, SERVING_LIFE);
        let certificate = params.signed_by(&key, &issuer)?;
        let chain = vec![
            certificate.der().clone(),
            CertificateDer::from_pem_slice(self.certificate.as_bytes())?,
        ];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Arc::new(config))
    }
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

/// Keeps the certificate in `tls` for ever: from the authority as it stands, which the replica that
/// leads makes where there is none.
pub async fn run(
    client: Client,
    namespace: String,
    names: Vec<String>,
    leads: watch::Receiver<bool>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
) {
    let mut problem = None;
    let mut in_use: Option<(Authority, SystemTime)> = None;
    loop {
        let now = SystemTime::now();
        let leads = *leads.borrow();
        match standing(&client, &namespace, leads, now).await {
            Ok(Some(authority)) => {
                problem = None;
                let fresh = in_use.as_ref().is_some_and(|(used, since)| {
                    let age = now.duration_since(*since).unwrap_or_default();
                    *used == authority && age < SERVING_LIFE / 2
                });
                if !fresh {
                    match authority.serving(&names, now) {
                        Ok(config) => {
                            tls.send_replace(Some(config));
                            in_use = Some((authority, now));
                            tracing::info!(?names, "serves with a new certificate");
                        }
                        Err(error) => tracing::error!(%error, "cannot issue a certificate"),
                    }
                }
            }
            Ok(None) => {}
            Err(failure) => {
                let text = failure.to_string();
                if problem.as_ref() != Some(&text) {
                    failure.warn("no new certificate");
                    problem = Some(text);
                }
            }
        }
        sleep(if in_use.is_some() { LOOK * 30 } else { LOOK }).await;
    }
}

/// The authority in its Secret; made there, and its bundle beside it, if this replica leads.
async fn standing(
    client: &Client,
    namespace: &str,
    leads: bool,
    now: SystemTime,
) -> Result<Option<Authority>, Failure> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let found = call("read the authority's Secret", secrets.get_opt(AUTHORITY)).await?;
    // One without data is a place for it: whoever may not create Secrets finds it made.
    let made = found.as_ref().filter(|secret| !is_empty(secret));
    let (authority, secret) = match made {
        Some(secret) => (from_secret(secret)?, secret.clone()),
        None if !leads => return Ok(None),
        None => {
            let authority = Authority::generate(now)
                .map_err(|error| Failure::new("cannot make an authority", error))?;
            let params = PostParams::default();
            let is_there = found.is_some();
            let secret = filled(found.unwrap_or_else(|| empty(namespace)), &authority);
            // Of two that make one at once the first stands: the other's is refused.
            let kept = if is_there {
                let kept = secrets.replace(AUTHORITY, &params, &secret);
                call("keep the authority", kept).await?
            } else {
                let kept = secrets.create(&params, &secret);
                call("keep the authority", kept).await?
            };
            (authority, kept)
        }
    };
    if leads {
        bundle(client, namespace, &authority, &secret).await?;
    }
    Ok(Some(authority))
}

async fn call<T>(
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    match timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::new(format!("cannot {what}"), error)),
        Err(error) => Err(Failure::new(format!("cannot {what}"), error)),
    }
}

fn is_empty(secret: &Secret) -> bool {
    secret.data.as_ref().is_none_or(BTreeMap::is_empty)
}

fn from_secret(secret: &Secret) -> Result<Authority, Failure> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        String::from_utf8(bytes.0.clone()).ok()
    };
    match (text(CERTIFICATE_KEY), text(PRIVATE_KEY)) {
        (Some(certificate), Some(key)) => Ok(Authority { certificate, key }),
        _ => Err(Failure::plain(format!(
            "Secret {AUTHORITY} lacks {CERTIFICATE_KEY} or {PRIVATE_KEY}; delete it, and a new \
             authority is made"
        ))),
    }
}

fn empty(namespace: &str) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(AUTHORITY.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    }
}

/// With its resource version and type as they were.
fn filled(mut secret: Secret, authority: &Authority) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    secret.data = Some(BTreeMap::from([
        (CERTIFICATE_KEY.to_owned(), bytes(&authority.certificate)),
        (PRIVATE_KEY.to_owned(), bytes(&authority.key)),
    ]));
    secret
}

/// The bundle goes with the Secret.
async fn bundle(
    client: &Client,
    namespace: &str,
    authority: &Authority,
    secret: &Secret,
) -> Result<(), Failure> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let owner = secret.metadata.uid.clone().map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        name: AUTHORITY.to_owned(),
        uid,
        ..OwnerReference::default()
    });
    let object = ConfigMap {
        metadata: ObjectMeta {
            name: Some(AUTHORITY.to_owned()),
            namespace: Some(namespace.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(
            BUNDLE_KEY.to_owned(),
            authority.certificate.clone(),
        )])),
        ..ConfigMap::default()
    };
    let params = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(&object);
    call("write the bundle", api.patch(AUTHORITY, &params, &patch)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

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
        let authority = Authority::generate(now).unwrap();
        let names = ["controller.wsha.svc".to_owned(), "10.0.0.1".to_owned()];
        let serving = authority.serving(&names, now).unwrap();
        for name in &names {
            shake(Arc::clone(&serving), authority.certificate(), name).unwrap();
        }
        let other = shake(Arc::clone(&serving), authority.certificate(), "elsewhere");
        assert!(other.is_err());
        let stranger = Authority::generate(now).unwrap();
        assert!(shake(serving, stranger.certificate(), &names[0]).is_err());
    }

    #[test]
    fn certificates_end() {
        let now = SystemTime::now();
        let authority = Authority::generate(now).unwrap();
        let names = ["controller".to_owned()];
        let old = now - SERVING_LIFE - SKEW;
        let serving = authority.serving(&names, old).unwrap();
        assert!(shake(serving, authority.certificate(), &names[0]).is_err());
    }

    #[test]
    fn a_secret_gives_back_what_it_was_made_of() {
        let authority = Authority::generate(SystemTime::now()).unwrap();
        assert!(is_empty(&empty("wsha")));
        let mut secret = filled(empty("wsha"), &authority);
        assert!(!is_empty(&secret));
        assert_eq!(from_secret(&secret).unwrap(), authority);
        secret
            .data
            .as_mut()
            .and_then(|data| data.remove(PRIVATE_KEY));
        assert!(
            from_secret(&secret).is_err(),
            "half of one is none, and is not replaced"
        );
    }
}
