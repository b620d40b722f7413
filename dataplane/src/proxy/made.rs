//! What TLS is served with, made of key material once: a configuration comes whole with each endpoint
//! that comes or goes.

use std::collections::BTreeMap;

use node_api::{Keys, Listener, ListenerTls, PoolRef, Upstream, UpstreamTls};
use proxy::tls::{ClientTls, ServerTls};

use crate::tls::{self, KeyError};

/// A listener or an upstream of a pool.
type Place = (PoolRef, String);

/// What was made of these keys. Nothing of it outlives them: who does not refer to a key any more gets
/// other ones, without it.
#[derive(Debug, Default)]
pub(super) struct Made {
    keys: Keys,
    servers: BTreeMap<Place, (ListenerTls, ServerTls)>,
    clients: BTreeMap<Place, (UpstreamTls, ClientTls)>,
}

impl Made {
    /// From now on of these keys.
    pub(super) fn renew(&mut self, keys: &Keys) {
        if self.keys != *keys {
            *self = Self {
                keys: keys.clone(),
                ..Self::default()
            };
        }
    }

    /// What a listener serves with; `None`: it is without TLS.
    ///
    /// # Errors
    /// If the keys do not serve: a sentence.
    pub(super) fn server(
        &mut self,
        pool: &PoolRef,
        listener: &Listener,
    ) -> Result<Option<ServerTls>, String> {
        let Some(tls) = &listener.tls else {
            return Ok(None);
        };
        let place = (pool.clone(), listener.name.clone());
        if let Some((_, server)) = self.servers.get(&place).filter(|(made, _)| made == tls) {
            return Ok(Some(server.clone()));
        }
        let server = tls::server(tls, &self.keys, pool).map_err(|error| {
            let name = &listener.name;
            problem(&format!("listener {name} of {pool} is not served"), &error)
        })?;
        let made = (tls.clone(), server.clone());
        self.servers.insert(place, made);
        Ok(Some(server))
    }

    /// What the endpoints of an upstream are reached with; `None`: it is without TLS.
    ///
    /// # Errors
    /// If the keys do not serve: a sentence.
    pub(super) fn client(
        &mut self,
        pool: &PoolRef,
        upstream: &Upstream,
    ) -> Result<Option<ClientTls>, String> {
        let Some(tls) = &upstream.tls else {
            return Ok(None);
        };
        let place = (pool.clone(), upstream.name.clone());
        if let Some((_, client)) = self.clients.get(&place).filter(|(made, _)| made == tls) {
            return Ok(Some(client.clone()));
        }
        let client = tls::client(tls, &self.keys).map_err(|error| {
            let name = &upstream.name;
            problem(&format!("upstream {name} of {pool} is not used"), &error)
        })?;
        let made = (tls.clone(), client.clone());
        self.clients.insert(place, made);
        Ok(Some(client))
    }
}

/// The agent hands on nothing that it did not look at.
fn problem(what: &str, error: &KeyError) -> String {
    format!("{what}: its key material {error}")
}
