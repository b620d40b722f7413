//! What of the pools can be served with the key material that is there; pure.
//!
//! What cannot be served as asked for goes on as it was: an edit that names a Secret which is not there
//! yet costs no client. What never was served is not begun.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use node_api::{
    EndpointPhase, Listener, ListenerTls, NodeConfig, Pool, PoolRef, Secret, Upstream, UpstreamTls,
    VirtualRouter,
};

use crate::tls;

/// A listener or an upstream of a pool.
type Place = (PoolRef, String);

/// What was served last.
#[derive(Debug, Default)]
pub(super) struct Fitting {
    listeners: BTreeMap<Place, Option<ListenerTls>>,
    upstreams: BTreeMap<Place, Option<UpstreamTls>>,
    secrets: BTreeMap<String, Secret>,
}

/// What is to be served now.
#[derive(Debug, Default)]
pub(super) struct Fitted {
    /// All that refers to what is there, with no more keys than it refers to.
    pub(super) config: NodeConfig,
    /// Listeners that are not opened, each with a sentence.
    pub(super) closed: BTreeMap<SocketAddr, String>,
    /// What is otherwise than asked for, each a sentence.
    pub(super) warnings: Vec<String>,
}

impl Fitting {
    /// Fits `wanted` to its keys. `why` says of a Secret that cannot be used why not, with the remedy.
    pub(super) fn fit(&mut self, wanted: &NodeConfig, why: impl Fn(&str) -> String) -> Fitted {
        let former = std::mem::take(self);
        let mut fitted = Fitted {
            config: wanted.clone(),
            ..Fitted::default()
        };
        let usable = |name: &str| wanted.keys.secrets.get(name);
        let look = Look {
            identity: &|name| usable(name).is_some_and(tls::has_identity),
            authorities: &|name| usable(name).is_some_and(|secret| secret.ca.is_some()),
            why: &why,
        };
        for (name, pool) in &mut fitted.config.pools {
            let addresses = pool.virtual_routers.iter();
            let addresses: Vec<_> = addresses
                .flat_map(VirtualRouter::client_addresses)
                .collect();
            pool.listeners.retain_mut(|listener| {
                let place = (name.clone(), listener.name.clone());
                let before = former.listeners.get(&place);
                match look.listener(name, listener, before, &mut fitted.warnings) {
                    Ok(()) => {
                        self.listeners.insert(place, listener.tls.clone());
                        true
                    }
                    Err(sentence) => {
                        let at = |address: &IpAddr| SocketAddr::new(*address, listener.port);
                        let closed = addresses
                            .iter()
                            .map(|address| (at(address), sentence.clone()));
                        fitted.closed.extend(closed);
                        false
                    }
                }
            });
            for upstream in &mut pool.upstreams {
                let place = (name.clone(), upstream.name.clone());
                let before = former.upstreams.get(&place);
                if look.upstream(name, upstream, before, &mut fitted.warnings) {
                    self.upstreams.insert(place, upstream.tls.clone());
                }
            }
        }
        let names = fitted.config.pools.values().flat_map(Pool::secrets);
        let secrets = names.filter_map(|name| {
            let secret = usable(name).or_else(|| former.secrets.get(name))?;
            Some((name.to_owned(), secret.clone()))
        });
        let secrets: BTreeMap<_, _> = secrets.collect();
        self.secrets.clone_from(&secrets);
        fitted.config.keys.secrets = secrets;
        fitted
    }
}

/// What is there, and what to say of what is not.
struct Look<'a> {
    identity: &'a dyn Fn(&str) -> bool,
    authorities: &'a dyn Fn(&str) -> bool,
    why: &'a dyn Fn(&str) -> String,
}

impl Look<'_> {
    /// Leaves a listener with the certificates that are there.
    ///
    /// # Errors
    /// If there is none, and the listener was not served `before`.
    fn listener(
        &self,
        pool: &PoolRef,
        listener: &mut Listener,
        before: Option<&Option<ListenerTls>>,
        warnings: &mut Vec<String>,
    ) -> Result<(), String> {
        let name = &listener.name;
        let Some(tls) = &mut listener.tls else {
            return Ok(());
        };
        let certificates = std::mem::take(&mut tls.certificates);
        let (there, missing): (Vec<_>, Vec<_>) =
            (certificates.into_iter()).partition(|secret| (self.identity)(secret));
        let whys: Vec<_> = missing.iter().map(|secret| (self.why)(secret)).collect();
        let whys = whys.join("; ");
        if there.is_empty() {
            let sentence = format!("listener {name} of {pool} has no certificate: {whys}");
            let Some(before) = before else {
                return Err(sentence);
            };
            warnings.push(format!("{sentence}; meanwhile it goes on as it was"));
            listener.tls.clone_from(before);
            return Ok(());
        }
        tls.certificates = there;
        if !missing.is_empty() {
            warnings.push(format!(
                "listener {name} of {pool} lacks a certificate: {whys}; meanwhile clients get the others"
            ));
        }
        Ok(())
    }

    /// Whether an upstream can be reached as it is left. One that cannot, and was not served `before`, gets
    /// no session: what was never reached without TLS is not begun without.
    fn upstream(
        &self,
        pool: &PoolRef,
        upstream: &mut Upstream,
        before: Option<&Option<UpstreamTls>>,
        warnings: &mut Vec<String>,
    ) -> bool {
        let Some(tls) = &upstream.tls else {
            return true;
        };
        let own = tls.client_certificate.as_deref();
        let own = own.filter(|secret| !(self.identity)(secret));
        let ca = Some(tls.ca.as_str()).filter(|secret| !(self.authorities)(secret));
        let missing: Vec<_> = ca.into_iter().chain(own).map(self.why).collect();
        if missing.is_empty() {
            return true;
        }
        let (name, whys) = (&upstream.name, missing.join("; "));
        let sentence = format!("upstream {name} of {pool} cannot be reached by TLS: {whys}");
        if let Some(before) = before {
            warnings.push(format!("{sentence}; meanwhile it goes on as it was"));
            upstream.tls.clone_from(before);
            return true;
        }
        warnings.push(sentence);
        upstream.tls = None;
        let ready = upstream.endpoints.iter_mut();
        for endpoint in ready.filter(|one| one.phase == EndpointPhase::Ready) {
            endpoint.phase = EndpointPhase::NotReady;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node_api::{Balancing, Endpoint, Keys, TlsVersion};

    use super::*;
    use crate::agent::desired::tests::config;

    fn secret(parts: &str) -> Secret {
        let part = |name: char| parts.contains(name).then(|| name.to_string());
        Secret {
            certificate: part('c'),
            key: part('k'),
            ca: part('a'),
        }
    }

    fn keys(secrets: &[(&str, &str)]) -> Keys {
        let secrets = secrets.iter();
        Keys {
            secrets: secrets
                .map(|(name, parts)| ((*name).to_owned(), secret(parts)))
                .collect(),
            tickets: Vec::new(),
        }
    }

    fn tls(certificates: &[&str]) -> ListenerTls {
        ListenerTls {
            certificates: certificates.iter().map(ToString::to_string).collect(),
            minimum_version: TlsVersion::V12,
            http2: node_api::Http2::default(),
        }
    }

    /// One pool with a plain listener, and one with these certificates.
    fn wanted(certificates: &[&str], secrets: &[(&str, &str)]) -> NodeConfig {
        let mut config = config(&["10.0.0.1", "10.0.0.2"], &[80, 443]);
        let pool = config.pools.values_mut().next().unwrap();
        pool.listeners[1].tls = Some(tls(certificates));
        config.keys = keys(secrets);
        config
    }

    fn fit(fitting: &mut Fitting, wanted: &NodeConfig) -> Fitted {
        fitting.fit(wanted, |name| format!("{name} is missing"))
    }

    fn listener(fitted: &Fitted) -> Option<&ListenerTls> {
        let pool = fitted.config.pools.values().next().unwrap();
        pool.listeners.get(1)?.tls.as_ref()
    }

    #[test]
    fn a_listener_is_opened_with_its_first_certificate() {
        let mut fitting = Fitting::default();
        for lacking in [&[][..], &[("d/a", "a")], &[("d/a", "c")], &[("d/b", "ck")]] {
            let fitted = fit(&mut fitting, &wanted(&["d/a"], lacking));
            let closed: Vec<_> = fitted.closed.keys().map(ToString::to_string).collect();
            assert_eq!(closed, ["10.0.0.1:443", "10.0.0.2:443"]);
            let why = fitted.closed.values().next().unwrap();
            assert!(
                why.contains("p443") && why.contains("d/a is missing"),
                "{why}"
            );
            assert_eq!(listener(&fitted), None);
            assert!(fitted.config.keys.is_empty(), "nobody refers to any");
        }
        let whole = wanted(&["d/a"], &[("d/a", "ck")]);
        let fitted = fit(&mut fitting, &whole);
        assert_eq!(fitted.config, whole);
        assert!(fitted.closed.is_empty() && fitted.warnings.is_empty());
    }

    #[test]
    fn a_listener_goes_on_with_what_it_had() {
        let mut fitting = Fitting::default();
        fit(&mut fitting, &wanted(&["d/a"], &[("d/a", "ck")]));
        // Its Secret is gone, and then another one is named that is not there.
        for certificates in ["d/a", "d/b"] {
            let fitted = fit(&mut fitting, &wanted(&[certificates], &[]));
            assert!(fitted.closed.is_empty());
            assert!(fitted.warnings[0].contains("goes on as it was"));
            assert_eq!(listener(&fitted), Some(&tls(&["d/a"])));
            assert_eq!(fitted.config.keys, keys(&[("d/a", "ck")]));
        }
        let fitted = fit(&mut fitting, &wanted(&["d/b"], &[("d/b", "ck")]));
        assert_eq!(listener(&fitted), Some(&tls(&["d/b"])));
        assert_eq!(fitted.config.keys, keys(&[("d/b", "ck")]));
    }

    #[test]
    fn an_edit_that_lacks_its_keys_leaves_a_listener_without_tls() {
        let mut fitting = Fitting::default();
        fit(&mut fitting, &config(&["10.0.0.1"], &[80, 443]));
        let fitted = fit(&mut fitting, &wanted(&["d/a"], &[]));
        let pool = fitted.config.pools.values().next().unwrap();
        assert_eq!((pool.listeners.len(), listener(&fitted)), (2, None));
        assert!(fitted.warnings[0].contains("p443 of default/chat has no certificate"));
    }

    #[test]
    fn of_several_certificates_those_that_are_there_serve() {
        let fitted = fit(
            &mut Fitting::default(),
            &wanted(&["d/a", "d/b"], &[("d/b", "ck")]),
        );
        assert_eq!(listener(&fitted), Some(&tls(&["d/b"])));
        assert!(fitted.warnings[0].contains("d/a is missing"));
    }

    #[test]
    fn an_upstream_is_never_reached_without_the_tls_that_is_asked_for() {
        let upstream = |tls| Upstream {
            name: "echo".to_owned(),
            endpoints: vec![Endpoint {
                address: [10, 0, 0, 9].into(),
                port: 8010,
                weight: 1,
                phase: EndpointPhase::Ready,
                zone: None,
            }],
            balancing: Balancing::RoundRobin,
            slow_start: Duration::ZERO,
            endpoint_sessions: None,
            connect_timeout: Duration::ZERO,
            handshake_timeout: Duration::ZERO,
            proxy_protocol: None,
            tls,
            health: node_api::Health::default(),
            zone_preference: None,
            rebalance: None,
        };
        let asked = UpstreamTls {
            hostname: "chat.example".to_owned(),
            ca: "d/ca".to_owned(),
            client_certificate: Some("d/own".to_owned()),
        };
        let wanted = |secrets| {
            let mut config = config(&["10.0.0.1"], &[80]);
            let pool = config.pools.values_mut().next().unwrap();
            pool.upstreams = vec![upstream(Some(asked.clone()))];
            config.keys = keys(secrets);
            config
        };
        let mut fitting = Fitting::default();
        let upstream =
            |fitted: &Fitted| fitted.config.pools.values().next().unwrap().upstreams[0].clone();
        for lacking in [
            &[][..],
            &[("d/ca", "a")],
            &[("d/ca", "ck"), ("d/own", "ck")],
        ] {
            let fitted = fit(&mut fitting, &wanted(lacking));
            let left = upstream(&fitted);
            assert_eq!(left.endpoints[0].phase, EndpointPhase::NotReady);
            assert!(fitted.warnings[0].contains("cannot be reached by TLS"));
        }
        let whole = wanted(&[("d/ca", "a"), ("d/own", "ck")]);
        assert_eq!(fit(&mut fitting, &whole).config, whole);
        let fitted = fit(&mut fitting, &wanted(&[]));
        assert_eq!(
            upstream(&fitted),
            upstream(&Fitted {
                config: whole.clone(),
                ..Fitted::default()
            })
        );
        assert_eq!(fitted.config.keys, whole.keys);
    }
}
