//! The Secret of the authorities, the ConfigMap of the bundle, the Secret of somebody else's certificate.

use std::{collections::BTreeMap, error::Error, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{
    AUTHORITY, BUNDLE_KEY,
    authority::{self, Authority},
    ring::Ring,
};
use crate::failure::Failure;

const CERTIFICATE_KEY: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
const MADE: &str = "tls.made";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const NEXT_MADE: &str = "next.made";
const FORMER: &str = "former.crt";
const FORMER_SINCE: &str = "former.since";
/// Where the authority stands in a Secret that others fill.
const GIVEN_AUTHORITY: &str = "ca.crt";

/// Whether the Secret is a place for authorities and has none yet.
pub(super) fn is_empty(secret: &Secret) -> bool {
    secret.data.as_ref().is_none_or(BTreeMap::is_empty)
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    let bytes = secret.data.as_ref()?.get(key)?;
    String::from_utf8(bytes.0.clone()).ok()
}

/// The authorities in a Secret.
///
/// # Errors
/// If it lacks what it must have.
pub(super) fn ring(secret: &Secret) -> Result<Ring, Failure> {
    let created = secret.metadata.creation_timestamp.as_ref();
    let created = created.and_then(|time| u64::try_from(time.0.as_second()).ok());
    let made = |key: &str| {
        text(secret, key)
            .and_then(|text| text.parse().ok())
            .or(created)
    };
    let (Some(certificate), Some(key)) = (text(secret, CERTIFICATE_KEY), text(secret, PRIVATE_KEY))
    else {
        return Err(Failure::plain(format!(
            "Secret {AUTHORITY} lacks {CERTIFICATE_KEY} or {PRIVATE_KEY}; delete it, and a new \
             authority is made"
        )));
    };
    let next = text(secret, NEXT_CERTIFICATE).zip(text(secret, NEXT_KEY));
    let since = text(secret, FORMER_SINCE).and_then(|text| text.parse().ok());
    Ok(Ring {
        current: Authority {
            certificate,
            key,
            made: made(MADE).unwrap_or_default(),
        },
        next: next.map(|(certificate, key)| Authority {
            certificate,
            key,
            made: made(NEXT_MADE).unwrap_or_default(),
        }),
        former: text(secret, FORMER).zip(since),
    })
}

/// A place for authorities.
pub(super) fn empty(namespace: &str) -> Secret {
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
pub(super) fn filled(mut secret: Secret, ring: &Ring) -> Secret {
    let mut data = BTreeMap::new();
    let mut put = |key: &str, text: &str| {
        data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
    };
    put(CERTIFICATE_KEY, &ring.current.certificate);
    put(PRIVATE_KEY, &ring.current.key);
    put(MADE, &ring.current.made.to_string());
    if let Some(next) = &ring.next {
        put(NEXT_CERTIFICATE, &next.certificate);
        put(NEXT_KEY, &next.key);
        put(NEXT_MADE, &next.made.to_string());
    }
    if let Some((certificate, since)) = &ring.former {
        put(FORMER, certificate);
        put(FORMER_SINCE, &since.to_string());
    }
    secret.data = Some(data);
    secret
}

/// What is served where somebody else issues the certificate, and what nodes are to trust then.
pub(super) struct Given {
    pub(super) config: Arc<ServerConfig>,
    pub(super) authority: String,
    /// Tells it from another one.
    pub(super) certificate: String,
}

/// Reads a Secret of type `kubernetes.io/tls` that also has the authority.
///
/// # Errors
/// If a part is missing, or they do not belong together.
pub(super) fn given(name: &str, secret: &Secret) -> Result<Given, Failure> {
    let part =
        |key: &str| {
            text(secret, key).filter(|text| !text.is_empty()).ok_or_else(|| {
            Failure::plain(format!(
                "Secret {name} has no {key}; it must have {CERTIFICATE_KEY}, {PRIVATE_KEY} and \
                 {GIVEN_AUTHORITY}, as cert-manager's issuers with an authority fill it"
            ))
        })
        };
    let (certificate, key) = (part(CERTIFICATE_KEY)?, part(PRIVATE_KEY)?);
    let authority = part(GIVEN_AUTHORITY)?;
    let config = || -> Result<_, Box<dyn Error + Send + Sync>> {
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
        let chain: Vec<_> = chain.collect::<Result<_, _>>()?;
        authority::config(chain, PrivateKeyDer::from_pem_slice(key.as_bytes())?)
    };
    let config = config()
        .map_err(|error| Failure::new(format!("Secret {name} cannot be served with"), error))?;
    Ok(Given {
        config,
        authority,
        certificate,
    })
}

/// The bundle's object. It goes with its owner.
pub(super) fn bundle(namespace: &str, text: String, owner: Option<(&str, &str)>) -> ConfigMap {
    let owner = owner.map(|(name, uid)| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    });
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(AUTHORITY.to_owned()),
            namespace: Some(namespace.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(BUNDLE_KEY.to_owned(), text)])),
        ..ConfigMap::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::pki::Lives;

    const LIVES: Lives = Lives {
        authority: Duration::from_hours(1200),
        certificate: Duration::from_hours(24),
    };

    #[test]
    fn a_secret_gives_back_what_it_was_made_of() {
        let now = SystemTime::now();
        let first = Ring::new(now, LIVES).unwrap();
        let later = now + LIVES.authority * 3 / 4;
        let staged = first.turn(later, LIVES, |_| false).unwrap().unwrap();
        let last = staged
            .turn(now + LIVES.authority, LIVES, |_| false)
            .unwrap()
            .unwrap();
        assert!(is_empty(&empty("wsha")));
        for expected in [first, staged, last] {
            let mut secret = filled(empty("wsha"), &expected);
            assert!(!is_empty(&secret));
            assert_eq!(ring(&secret).unwrap(), expected);
            secret
                .data
                .as_mut()
                .and_then(|data| data.remove(PRIVATE_KEY));
            assert!(
                ring(&secret).is_err(),
                "half of one is none, and is not replaced"
            );
        }
    }

    #[test]
    fn what_others_issue_must_be_whole() {
        let ring = Ring::new(SystemTime::now(), LIVES).unwrap();
        let mut secret = filled(empty("wsha"), &ring);
        let said = |secret: &Secret| given("own", secret).err().map(|it| it.whole());
        assert!(said(&secret).unwrap().contains("Secret own has no ca.crt"));
        let certificate = ByteString(ring.current.certificate.clone().into_bytes());
        let data = secret.data.get_or_insert_default();
        data.insert(GIVEN_AUTHORITY.to_owned(), certificate);
        assert_eq!(said(&secret), None);
        let other = Ring::new(SystemTime::now(), LIVES).unwrap();
        let key = ByteString(other.current.key.clone().into_bytes());
        let data = secret.data.get_or_insert_default();
        data.insert(PRIVATE_KEY.to_owned(), key);
        assert!(
            said(&secret)
                .unwrap()
                .starts_with("Secret own cannot be served with")
        );
    }
}
