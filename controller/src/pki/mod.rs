//! The controller's certificate: by default without help from outside, by authorities of our own that the
//! replica that leads keeps in a Secret; each replica issues its serving certificate for itself, in memory.
//! Or somebody else's, from a Secret that is named. Either way the leading replica keeps a bundle of what
//! gateway nodes are to trust in a ConfigMap, and an authority that follows another serves only once they
//! do.

mod authority;
mod objects;
mod ring;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use rustls::ServerConfig;
use tokio::{sync::watch, time::sleep};

use crate::{
    failure::Failure,
    registry::Registry,
    write::{MANAGER, call},
};

pub use authority::Authority;
pub use ring::{Lives, Ring};

/// Secret of the authorities, and ConfigMap of the bundle.
pub const AUTHORITY: &str = "wsha-ca";
/// Where the bundle stands in its ConfigMap.
pub const BUNDLE_KEY: &str = "ca.crt";

/// How often the authority is looked for while there is none.
const LOOK: Duration = Duration::from_secs(1);
/// How long nodes may take to trust an authority that somebody else has changed.
const GRACE: Duration = Duration::from_mins(10);

/// Keeps the certificate.
pub struct Keeper {
    /// Client of the API server.
    pub client: Client,
    /// Where the objects are.
    pub namespace: String,
    /// Names and addresses that certificates carry.
    pub names: Vec<String>,
    /// Secret of somebody else's certificate, if it is to be used.
    pub given: Option<String>,
    /// How long things are good.
    pub lives: Lives,
    /// Whether this replica writes.
    pub leads: watch::Receiver<bool>,
    /// What nodes trust.
    pub registry: Arc<Registry>,
    /// Where the certificate goes.
    pub tls: watch::Sender<Option<Arc<ServerConfig>>>,
}

/// What is served now.
#[derive(Debug, Default)]
struct InUse {
    /// By which authority of our own, and since when.
    own: Option<(Authority, SystemTime)>,
    /// Which certificate of somebody else's, and its authority.
    given: Option<(String, String)>,
    /// When its authority was seen to change.
    changing: Option<SystemTime>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Keeper");
        shown.field("names", &self.names).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Keeps it for ever.
    pub async fn run(self) {
        let mut problem = None;
        let mut in_use = InUse::default();
        loop {
            let turned = match self.given.clone() {
                Some(name) => self.given(&name, &mut in_use).await,
                None => self.own(&mut in_use).await,
            };
            match turned {
                Ok(()) => problem = None,
                Err(failure) => {
                    let text = failure.whole();
                    if problem.as_ref() != Some(&text) {
                        failure.warn("no new certificate");
                        problem = Some(text);
                    }
                }
            }
            let serves = in_use.own.is_some() || in_use.given.is_some();
            sleep(if serves { self.lives.look() } else { LOOK }).await;
        }
    }

    /// Whether every node with a stream to this replica trusts the authority of that fingerprint.
    fn trusts(&self, fingerprint: &str) -> bool {
        let views = self.registry.views();
        let mut connected = views.values().filter(|view| view.connected);
        connected.all(|view| view.authorities.iter().any(|it| it == fingerprint))
    }

    async fn own(&self, in_use: &mut InUse) -> Result<(), Failure> {
        let now = SystemTime::now();
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = call("read the authority's Secret", secrets.get_opt(AUTHORITY)).await?;
        let leads = *self.leads.borrow();
        // One without data is a place for it: whoever may not create Secrets finds it made.
        let standing = found.as_ref().filter(|secret| !objects::is_empty(secret));
        let standing = standing.map(objects::ring).transpose()?;
        let turned = match &standing {
            Some(ring) if leads => ring.turn(now, self.lives, |it| self.trusts(it)),
            Some(_) => Ok(None),
            None if leads => Ring::new(now, self.lives).map(Some),
            None => return Ok(()),
        };
        let turned = turned.map_err(|error| Failure::new("cannot make an authority", error))?;
        let (ring, uid) = match (turned, standing) {
            (Some(ring), _) => {
                let kept = self.keep(&secrets, found, &ring).await?;
                tracing::info!(
                    follows = ring.next.is_some(),
                    former = ring.former.is_some(),
                    "the authorities have changed"
                );
                (ring, kept.metadata.uid)
            }
            (None, Some(ring)) => (ring, found.and_then(|secret| secret.metadata.uid)),
            (None, None) => return Ok(()),
        };
        if leads {
            self.bundle(ring.bundle(), AUTHORITY, uid.as_deref())
                .await?;
        }
        let is_fresh = in_use.own.as_ref().is_some_and(|(used, since)| {
            let age = now.duration_since(*since).unwrap_or_default();
            used.certificate() == ring.current.certificate() && age < self.lives.certificate / 2
        });
        if !is_fresh {
            let config = ring
                .current
                .serving(&self.names, now, self.lives.certificate);
            let config =
                config.map_err(|error| Failure::new("cannot issue a certificate", error))?;
            self.tls.send_replace(Some(config));
            in_use.own = Some((ring.current, now));
            tracing::info!(names = ?self.names, "serves with a new certificate");
        }
        Ok(())
    }

    /// Of two that write at once the first stands: the other's is refused.
    async fn keep(
        &self,
        secrets: &Api<Secret>,
        found: Option<Secret>,
        ring: &Ring,
    ) -> Result<Secret, Failure> {
        let params = PostParams::default();
        if let Some(found) = found {
            let secret = objects::filled(found, ring);
            let kept = secrets.replace(AUTHORITY, &params, &secret);
            call("keep the authority", kept).await
        } else {
            let secret = objects::filled(objects::empty(&self.namespace), ring);
            let kept = secrets.create(&params, &secret);
            call("keep the authority", kept).await
        }
    }

    /// Serves what somebody else issues. A certificate of another authority than before waits until nodes
    /// trust that, for a while: the old one is good as long as that lasts.
    async fn given(&self, name: &str, in_use: &mut InUse) -> Result<(), Failure> {
        let now = SystemTime::now();
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = call("read the certificate's Secret", secrets.get_opt(name)).await?;
        let Some(secret) = found else {
            return Err(Failure::plain(format!(
                "there is no Secret {name}, which --tls-secret names"
            )));
        };
        let given = objects::given(name, &secret)?;
        let before = in_use.given.as_ref();
        let former = before.map(|(_, authority)| authority.clone());
        let former = former.filter(|authority| *authority != given.authority);
        if *self.leads.borrow() {
            let bundle = [
                given.authority.as_str(),
                former.as_deref().unwrap_or_default(),
            ]
            .join("\n");
            self.bundle(bundle, name, secret.metadata.uid.as_deref())
                .await?;
        }
        if former.is_some() {
            let since = *in_use.changing.get_or_insert(now);
            let waited = now.duration_since(since).unwrap_or_default();
            let mut all = authority::fingerprints(&given.authority).into_iter();
            if waited < GRACE && !all.all(|it| self.trusts(&it)) {
                return Ok(());
            }
        }
        in_use.changing = None;
        if before.is_none_or(|(certificate, _)| *certificate != given.certificate) {
            self.tls.send_replace(Some(given.config));
            in_use.given = Some((given.certificate, given.authority));
            tracing::info!(secret = name, "serves with a new certificate");
        }
        Ok(())
    }

    async fn bundle(&self, text: String, owner: &str, uid: Option<&str>) -> Result<(), Failure> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let owner = uid.map(|uid| (owner, uid));
        let object = objects::bundle(&self.namespace, text, owner);
        let params = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&object);
        call("write the bundle", api.patch(AUTHORITY, &params, &patch)).await?;
        Ok(())
    }
}
