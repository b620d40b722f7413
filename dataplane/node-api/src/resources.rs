//! From a pool to the resources that travel, and back; pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::{
    config::{Endpoint, Pool},
    stream::{EndpointsDelta, ResourceName, Revision},
};

/// A pool cannot be put together: the endpoints of this upstream are not known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MissingEndpoints(pub String);

/// What pools may require of this release ([`Pool::requires`]).
const KNOWN: &[&str] = &[PLAIN_REQUESTS];

/// Requests that ask for no session are served ([`Listener::plain_requests`](crate::Listener)): a node
/// that ignored it would refuse them.
pub const PLAIN_REQUESTS: &str = "plainRequests";

impl Pool {
    /// What the pool requires and this release does not know, in the order in which it is said.
    pub fn unknown(&self) -> Vec<&str> {
        let required = self.requires.iter().map(String::as_str);
        required.filter(|name| !KNOWN.contains(name)).collect()
    }

    /// Takes the pool apart: its settings, and the endpoints of each upstream by its name.
    pub fn split(mut self) -> (Self, BTreeMap<String, Vec<Endpoint>>) {
        let endpoints = self.upstreams.iter_mut().map(|upstream| {
            let endpoints = std::mem::take(&mut upstream.endpoints);
            (upstream.name.clone(), endpoints)
        });
        let endpoints = endpoints.collect();
        (self, endpoints)
    }

    /// Puts the endpoints back, found by the name of the upstream.
    ///
    /// # Errors
    /// If those of an upstream are not known.
    pub fn join(
        mut self,
        mut endpoints_of: impl FnMut(&str) -> Option<Vec<Endpoint>>,
    ) -> Result<Self, MissingEndpoints> {
        for upstream in &mut self.upstreams {
            upstream.endpoints = endpoints_of(&upstream.name)
                .ok_or_else(|| MissingEndpoints(upstream.name.clone()))?;
        }
        Ok(self)
    }
}

impl Endpoint {
    /// Where it listens; tells endpoints of an upstream apart.
    pub const fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

impl EndpointsDelta {
    /// What makes `new` of `old`, each with its revision. Both are sorted by address and port and
    /// name each endpoint once, as those of an [`crate::Upstream`] do.
    pub fn between(
        name: ResourceName,
        (base, old): (Revision, &[Endpoint]),
        (revision, new): (Revision, &[Endpoint]),
    ) -> Self {
        let before: BTreeMap<_, _> = by_address(old);
        let after: BTreeMap<_, _> = by_address(new);
        let upserts = after
            .iter()
            .filter(|(address, endpoint)| before.get(address) != Some(endpoint))
            .map(|(_, endpoint)| (*endpoint).clone());
        let removals = before.keys().filter(|address| !after.contains_key(address));
        Self {
            name,
            base,
            revision,
            upserts: upserts.collect(),
            removals: removals.copied().collect(),
        }
    }

    /// What it makes of `base`; sorted, whatever the order in the message.
    pub fn apply(&self, base: &[Endpoint]) -> Vec<Endpoint> {
        let gone: BTreeSet<_> = self.removals.iter().collect();
        let mut endpoints = by_address(base);
        endpoints.retain(|address, _| !gone.contains(address));
        endpoints.extend(by_address(&self.upserts));
        endpoints.into_values().cloned().collect()
    }
}

fn by_address(endpoints: &[Endpoint]) -> BTreeMap<SocketAddr, &Endpoint> {
    let pairs = endpoints.iter().map(|one| (one.socket_address(), one));
    pairs.collect()
}
