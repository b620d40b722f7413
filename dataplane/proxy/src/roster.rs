//! Which endpoint is the one of before: edits keep what is known of a server, and its sessions.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Weak},
};

use crate::{
    config::{self, Config},
    endpoint::Endpoint,
};

/// Endpoints with what the new configuration says of them; `None`: they are not in it.
pub(crate) type Listed = Vec<(Arc<Endpoint>, Option<config::Endpoint>)>;

/// Those of one pool that somebody still has, by the name of their upstream and where they listen.
type Members = BTreeMap<(String, SocketAddr), Weak<Endpoint>>;

/// All endpoints that somebody still has, by pool.
#[derive(Debug)]
pub(crate) struct Roster {
    workers: usize,
    pools: HashMap<String, Members>,
}

impl Roster {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            pools: HashMap::new(),
        }
    }

    /// The endpoints of each upstream of a pool, in their order.
    ///
    /// One is that of before if it was listed there before; else the one at the same address that is no
    /// longer listed elsewhere in the pool, as when an upstream has got another name.
    pub(crate) fn enrol(
        &mut self,
        pool: &str,
        upstreams: &[config::Upstream],
        listed: &mut Listed,
    ) -> Vec<Vec<Arc<Endpoint>>> {
        let mut former = self.pools.remove(pool).unwrap_or_default();
        let mut members = Members::new();
        let keys = upstreams.iter().flat_map(|upstream| {
            let endpoints = upstream.endpoints.iter();
            endpoints.map(|endpoint| (upstream.name.clone(), endpoint.address))
        });
        for key in keys {
            if let Some(known) = former.remove(&key) {
                members.insert(key, known);
            }
        }
        let elsewhere: HashMap<_, _> = former
            .keys()
            .map(|(upstream, address)| (*address, upstream.clone()))
            .collect();
        let workers = self.workers;
        let mut resolve = |upstream: &config::Upstream, wanted: &config::Endpoint| {
            let address = wanted.address;
            let key = (upstream.name.clone(), address);
            let known = members.get(&key).cloned().or_else(|| {
                let upstream = elsewhere.get(&address)?.clone();
                former.remove(&(upstream, address))
            });
            let known = known.as_ref().and_then(Weak::upgrade);
            let endpoint = known.unwrap_or_else(|| Arc::new(Endpoint::new(address, workers)));
            members.insert(key, Arc::downgrade(&endpoint));
            endpoint.secure(upstream);
            listed.push((Arc::clone(&endpoint), Some(*wanted)));
            endpoint
        };
        let enrolled = upstreams
            .iter()
            .map(|upstream| {
                let endpoints = upstream.endpoints.iter();
                endpoints.map(|wanted| resolve(upstream, wanted)).collect()
            })
            .collect();
        dismiss(&mut former, listed);
        // Those that are gone are known for as long as they have sessions: they may come back.
        for (key, endpoint) in former {
            members.entry(key).or_insert(endpoint);
        }
        self.pools.insert(pool.to_owned(), members);
        enrolled
    }

    /// What becomes of the endpoints of pools that are not in the configuration.
    pub(crate) fn dismiss_others(&mut self, config: &Config, listed: &mut Listed) {
        self.pools.retain(|pool, members| {
            if config.pools.contains_key(pool) {
                return true;
            }
            dismiss(members, listed);
            !members.is_empty()
        });
    }
}

/// They are not listed any more; those that nobody has are forgotten.
fn dismiss(members: &mut Members, listed: &mut Listed) {
    members.retain(|_, endpoint| {
        let endpoint = endpoint.upgrade();
        listed.extend(endpoint.iter().map(|endpoint| (Arc::clone(endpoint), None)));
        endpoint.is_some()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Balancing, Phase, Upstream};

    fn upstream(name: &str, ports: &[u16]) -> Upstream {
        let endpoint = |port: &u16| config::Endpoint {
            address: SocketAddr::from(([127, 0, 0, 1], *port)),
            weight: 1,
            phase: Phase::Ready,
            is_near: false,
        };
        Upstream {
            endpoints: ports.iter().map(endpoint).collect(),
            ..Upstream::for_tests(name, Balancing::RoundRobin)
        }
    }

    /// The endpoints, and the ports of those that are not listed any more.
    fn enrol(roster: &mut Roster, upstreams: &[Upstream]) -> (Vec<Vec<Arc<Endpoint>>>, Vec<u16>) {
        let mut listed = Listed::new();
        let enrolled = roster.enrol("pool", upstreams, &mut listed);
        let gone = listed.iter().filter(|(_, says)| says.is_none());
        let gone = gone.map(|(endpoint, _)| endpoint.address.port()).collect();
        (enrolled, gone)
    }

    fn same(one: &Arc<Endpoint>, other: &Arc<Endpoint>) -> bool {
        Arc::ptr_eq(one, other)
    }

    #[test]
    fn a_server_of_two_upstreams_is_one_of_each() {
        let mut roster = Roster::new(1);
        let both = [upstream("a", &[1]), upstream("b", &[1])];
        let (first, _) = enrol(&mut roster, &both);
        assert!(!same(&first[0][0], &first[1][0]));
        let (second, gone) = enrol(&mut roster, &both);
        assert!(same(&first[0][0], &second[0][0]) && same(&first[1][0], &second[1][0]));
        assert_eq!(gone, [0_u16; 0]);
        // What one of them loses the other does not.
        let (third, gone) = enrol(&mut roster, &both[1..]);
        assert!(same(&first[1][0], &third[0][0]));
        assert_eq!(gone, [1]);
    }

    #[test]
    fn an_upstream_with_another_name_has_the_same_servers() {
        let mut roster = Roster::new(1);
        let (first, _) = enrol(&mut roster, &[upstream("a", &[1, 2])]);
        let renamed = [upstream("b", &[3, 2]), upstream("c", &[2])];
        let (second, gone) = enrol(&mut roster, &renamed);
        assert!(same(&first[0][1], &second[0][1]), "moved");
        assert!(!same(&first[0][1], &second[1][0]), "and not to both");
        assert_eq!(gone, [1]);
    }

    #[test]
    fn one_that_is_gone_is_known_while_somebody_has_it() {
        let mut roster = Roster::new(1);
        let a = [upstream("a", &[1, 2])];
        let (first, _) = enrol(&mut roster, &a);
        let kept = Arc::clone(&first[0][0]);
        drop(first);
        let (_, gone) = enrol(&mut roster, &[upstream("a", &[])]);
        assert_eq!(gone, [1]);
        let (second, _) = enrol(&mut roster, &a);
        assert!(same(&kept, &second[0][0]));
        let mut listed = Listed::new();
        roster.dismiss_others(&Config::default(), &mut listed);
        assert_eq!(listed.len(), 2);
        drop((kept, second, listed));
        roster.dismiss_others(&Config::default(), &mut Listed::new());
        assert!(roster.pools.is_empty());
    }
}
