//! Which Secrets a pool names, and for what.

use std::fmt;

use crds::WebSocketHAPool;
use plan::model::pool_ref;

/// A Secret.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SecretName {
    /// Its namespace: that of the pool.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a Secret is used for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Use {
    /// To show who we are: a certificate and its key.
    Identity,
    /// To know who servers are: the certificates of their authorities.
    Authority,
}

/// What of a pool names the Secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holder<'a> {
    /// The listener of that name.
    Listener(&'a str),
    /// An upstream.
    Upstream,
}

/// A field that names a Secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reference<'a> {
    /// The field, from the root of the object.
    pub path: String,
    /// What it belongs to.
    pub holder: Holder<'a>,
    /// The Secret.
    pub secret: SecretName,
    /// What for.
    pub used: Use,
}

/// Every field of a pool that names a Secret.
pub fn references(pool: &WebSocketHAPool) -> Vec<Reference<'_>> {
    let namespace = pool_ref(pool).namespace;
    let mut all = Vec::new();
    let mut add = |path: String, holder, name: &str, used| {
        let secret = SecretName {
            namespace: namespace.clone(),
            name: name.to_owned(),
        };
        all.push(Reference {
            path,
            holder,
            secret,
            used,
        });
    };
    for (at, listener) in pool.spec.listeners.iter().enumerate() {
        let holder = Holder::Listener(&listener.name);
        let named = listener.tls.iter().flat_map(|tls| &tls.certificate_refs);
        for (index, reference) in named.enumerate() {
            let path = format!("spec.listeners[{at}].tls.certificateRefs[{index}]");
            add(path, holder, &reference.name, Use::Identity);
        }
    }
    for (at, upstream) in pool.spec.upstreams.iter().enumerate() {
        let Some(tls) = &upstream.tls else {
            continue;
        };
        let path = |field: &str| format!("spec.upstreams[{at}].tls.{field}");
        let name = &tls.ca_certificate_ref.name;
        let holder = Holder::Upstream;
        add(path("caCertificateRef"), holder, name, Use::Authority);
        if let Some(reference) = &tls.client_certificate_ref {
            let path = path("clientCertificateRef");
            add(path, holder, &reference.name, Use::Identity);
        }
    }
    all
}

/// Whether clients of the pool may resume sessions.
pub(super) fn has_tickets(pool: &WebSocketHAPool) -> bool {
    let mut listeners = pool.spec.listeners.iter();
    listeners.any(|listener| listener.tls.is_some())
}
