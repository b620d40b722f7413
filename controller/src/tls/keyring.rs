//! What is known of the Secrets that pools name, and what nodes are told of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use crds::WebSocketHAPool;
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use node_api::{
    PoolRef,
    stream::{ResourceName, Revision},
};
use serde::Serialize;

use super::{
    Fault, Reference, Ring, SecretName, Use,
    material::Material,
    references::{has_tickets, references},
};
use crate::desired::{Body, Part, Resource};

/// What is found where a Secret should be.
#[derive(Clone)]
pub enum Look {
    /// Its namespace is not among those whose Secrets may be read.
    NotPermitted,
    /// The API server has not told yet.
    Pending,
    /// Nothing.
    Missing,
    /// The Secret.
    Here(Arc<Secret>),
}

enum Found {
    NotPermitted,
    Pending,
    Missing,
    Here(Arc<Material>),
}

/// What is known of the Secrets that pools name.
#[derive(Default)]
pub struct Keyring {
    parts: BTreeMap<PoolRef, Arc<Part>>,
    found: BTreeMap<SecretName, Found>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

impl Keyring {
    /// What nodes of the pool are told besides the pool: the object that it was before, unless it has
    /// changed. A Secret that cannot be used is told to nobody, and nobody is told that it is gone: whoever
    /// has it goes on with it.
    pub fn part(&self, pool: &PoolRef) -> Option<&Arc<Part>> {
        self.parts.get(pool)
    }

    /// What is wrong at that time with the Secrets that the pool names.
    pub fn faults<'a>(
        &self,
        pool: &'a WebSocketHAPool,
        now: Timestamp,
    ) -> Vec<(Reference<'a>, Fault)> {
        let references = references(pool).into_iter();
        let faults = references.filter_map(|reference| {
            let fault = self.fault(&reference.secret, reference.used, now)?;
            Some((reference, fault))
        });
        faults.collect()
    }

    fn fault(&self, name: &SecretName, used: Use, now: Timestamp) -> Option<Fault> {
        match self.found.get(name) {
            None | Some(Found::Pending) => Some(Fault::pending(name)),
            Some(Found::NotPermitted) => Some(Fault::not_permitted(name)),
            Some(Found::Missing) => Some(Fault::missing(name, used)),
            Some(Found::Here(material)) => material.fault(used, now),
        }
    }
}

/// Reads again and again; what has not changed costs no more than to see that.
#[derive(Default)]
pub struct Reader {
    known: BTreeMap<SecretName, Known>,
    parts: BTreeMap<PoolRef, Arc<Part>>,
    ring: Option<Ring>,
    tickets: BTreeMap<PoolRef, Resource>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

/// A Secret, and what was made of it.
struct Known {
    secret: Arc<Secret>,
    material: Arc<Material>,
    uses: BTreeSet<Use>,
    told: Option<Resource>,
}

impl Reader {
    /// Looks at every Secret that a pool names.
    ///
    /// # Errors
    /// If content has no JSON form, which no type of the contract is without.
    pub fn read(
        &mut self,
        pools: &[Arc<WebSocketHAPool>],
        ring: Option<Ring>,
        look: impl Fn(&SecretName) -> Look,
        now: Timestamp,
    ) -> Result<Keyring, serde_json::Error> {
        if self.ring != ring {
            self.ring = ring;
            self.tickets.clear();
        }
        // A Secret is one resource for all pools that name it, with no more than they use of it: where one
        // is named for its authority, its key stays here.
        let mut uses: BTreeMap<SecretName, BTreeSet<Use>> = BTreeMap::new();
        for pool in pools {
            for reference in references(pool) {
                let of_secret = uses.entry(reference.secret).or_default();
                of_secret.insert(reference.used);
            }
        }
        let mut keyring = Keyring::default();
        let mut former = std::mem::take(&mut self.known);
        for (name, uses) in uses {
            let found = match look(&name) {
                Look::NotPermitted => Found::NotPermitted,
                Look::Pending => Found::Pending,
                Look::Missing => Found::Missing,
                Look::Here(secret) => {
                    let known = known(&name, secret, uses, former.remove(&name), now)?;
                    let material = Arc::clone(&known.material);
                    self.known.insert(name.clone(), known);
                    Found::Here(material)
                }
            };
            keyring.found.insert(name, found);
        }
        let mut former = std::mem::take(&mut self.parts);
        let mut tickets = std::mem::take(&mut self.tickets);
        for pool in pools {
            let name = plan::model::pool_ref(pool);
            let sealed = match tickets.remove(&name) {
                Some(sealed) => Some(sealed),
                None => self.tickets_of(pool, &name)?,
            };
            let part = self.part(pool, &name, sealed.as_ref());
            if let Some(sealed) = sealed {
                self.tickets.insert(name.clone(), sealed);
            }
            if part == Part::default() {
                continue;
            }
            let part = match former.remove(&name) {
                Some(former) if *former == part => former,
                _ => Arc::new(part),
            };
            keyring.parts.insert(name.clone(), Arc::clone(&part));
            self.parts.insert(name, part);
        }
        Ok(keyring)
    }

    fn tickets_of(
        &self,
        pool: &WebSocketHAPool,
        name: &PoolRef,
    ) -> Result<Option<Resource>, serde_json::Error> {
        let ring = self.ring.as_ref().filter(|_| has_tickets(pool));
        let keys = ring.map(|ring| Arc::new(ring.keys_of(name)));
        keys.map(|keys| resource(&*keys, Body::TicketKeys(Arc::clone(&keys))))
            .transpose()
    }

    fn part(&self, pool: &WebSocketHAPool, name: &PoolRef, tickets: Option<&Resource>) -> Part {
        let mut part = Part::default();
        let secrets: BTreeSet<_> = references(pool).into_iter().map(|it| it.secret).collect();
        for secret in secrets {
            let name = ResourceName::Secret(secret.to_string());
            let known = self.known.get(&secret);
            match known.and_then(|known| known.told.clone()) {
                Some(told) => part.resources.push((name, told)),
                None => drop(part.kept.insert(name)),
            }
        }
        if has_tickets(pool) {
            let name = ResourceName::TicketKeys(name.clone());
            match tickets {
                Some(tickets) => part.resources.push((name, tickets.clone())),
                None => drop(part.kept.insert(name)),
            }
        }
        part
    }
}

fn known(
    name: &SecretName,
    secret: Arc<Secret>,
    uses: BTreeSet<Use>,
    former: Option<Known>,
    now: Timestamp,
) -> Result<Known, serde_json::Error> {
    let former = former.filter(|former| Arc::ptr_eq(&former.secret, &secret));
    let material = match &former {
        Some(former) => Arc::clone(&former.material),
        None => Arc::new(Material::read(name, &secret)),
    };
    let body = told(&material, &uses, now);
    let told = match (body, former) {
        (None, _) => None,
        (Some(_), Some(former)) if former.uses == uses && former.told.is_some() => former.told,
        (Some(body), _) => {
            let body = Arc::new(body);
            Some(resource(&*body, Body::Secret(Arc::clone(&body)))?)
        }
    };
    Ok(Known {
        secret,
        material,
        uses,
        told,
    })
}

/// What is told of a Secret; `None`: nothing now.
fn told(material: &Material, uses: &BTreeSet<Use>, now: Timestamp) -> Option<node_api::Secret> {
    let authority = material.authority.as_ref().ok().cloned();
    let authority = authority.filter(|_| uses.contains(&Use::Authority));
    if !uses.contains(&Use::Identity) {
        return authority.map(|ca| node_api::Secret {
            ca: Some(ca),
            ..node_api::Secret::default()
        });
    }
    let identity = material.identity.as_ref().ok();
    let identity = identity.filter(|identity| identity.fault(now).is_none())?;
    Some(node_api::Secret {
        certificate: Some(identity.chain.clone()),
        key: Some(identity.key.clone()),
        ca: authority,
    })
}

fn resource(content: &impl Serialize, body: Body) -> Result<Resource, serde_json::Error> {
    Ok(Resource {
        revision: Revision::of(content)?,
        body,
    })
}
