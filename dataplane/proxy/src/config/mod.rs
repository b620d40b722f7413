//! What the proxy is to do: plain data, checked as a whole before any of it is applied.

mod error;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use ipnet::IpNet;

pub use self::error::ConfigError;
use crate::{
    health::Health,
    limits::Limits,
    proxy_protocol, routing,
    tls::{ClientTls, ServerTls},
};

/// Desired state of the whole proxy. Equal content means nothing to do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// Pools by name (for a `WebSocketHAPool`: `namespace/name`).
    pub pools: BTreeMap<String, Pool>,
}

/// Where clients are accepted and to which servers they are brought.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pool {
    /// Where clients are accepted.
    pub listeners: Vec<Listener>,
    /// The servers, in groups.
    pub upstreams: Vec<Upstream>,
    /// Pings to quiet sides.
    pub heartbeat: Heartbeat,
    /// How sessions end when they must.
    pub drain: Drain,
    /// Of how many connections in a hundred a [`crate::Record`] is made; `None`: of none.
    pub access_log: Option<u8>,
    /// What clients may do.
    pub limits: Limits,
}

/// A named group of addresses on which clients are accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// Name, unique in the pool.
    pub name: String,
    /// Each address of each virtual router, with the listener's port.
    pub addresses: Vec<SocketAddr>,
    /// Origins of the web pages that may connect, in lower case; empty: all. `*.` before a host
    /// stands for any names.
    pub allowed_origins: Vec<String>,
    /// Proxies before this one, which are believed about who the client is.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each connection begins with a header of the PROXY protocol; from others than
    /// `trusted_proxies` none is accepted then.
    pub proxy_protocol: bool,
    /// Whether clients speak TLS, behind that header, and how.
    pub tls: Option<ServerTls>,
    /// Which upstream a request goes to, in any order; empty: all to the only one.
    pub routes: Vec<Route>,
    /// What becomes of requests that ask for no session; `None`: they are refused.
    pub plain_requests: Option<PlainRequests>,
}

/// Requests that ask for no session and are brought to endpoints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PlainRequests {
    /// How long one may stand still: until its client sends more of its content, until its endpoint
    /// answers, or sends more of its answer, and until its client takes that.
    pub timeout: Duration,
}

/// Requests by their host and path, and the upstream that they go to. Of the routes that match a request
/// the one with the most specific hostname is taken, of these the one with the longest prefix.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Hosts in lower case, without port; `*.` before one stands for any names. Empty: all.
    pub hostnames: Vec<String>,
    /// The first elements of the path: `/`, or `/a/b` for itself and what is below it. Of unreserved
    /// characters alone (RFC 3986 section 2.3).
    pub path_prefix: String,
    /// Name of the upstream.
    pub upstream: String,
}

/// A group of servers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// Name, unique in the pool.
    pub name: String,
    /// The servers, each address once.
    pub endpoints: Vec<Endpoint>,
    /// How one is chosen.
    pub balancing: Balancing,
    /// Time over which one that is new, or back, comes to its full share; zero: at once.
    pub slow_start: Duration,
    /// Live sessions that one gets at most.
    pub endpoint_sessions: Option<u32>,
    /// Limit for one attempt to connect, TLS included.
    pub connect_timeout: Duration,
    /// Limit from the client's first byte to the 101, tries on several endpoints included. TLS with the
    /// client has half of it.
    pub handshake_timeout: Duration,
    /// The header of the PROXY protocol that endpoints get before all else.
    pub proxy_protocol: Option<proxy_protocol::Version>,
    /// Whether endpoints are spoken to by TLS, and how.
    pub tls: Option<ClientTls>,
    /// How its endpoints are kept an eye on.
    pub health: Health,
    /// The endpoints that are near take all sessions as long as they are that part of all usable ones,
    /// in percent, by weight; `None`: it does not matter which are near.
    pub min_near_percent: Option<u8>,
    /// Whether sessions are moved away from endpoints that have too many; `None`: they are not.
    pub rebalance: Option<Rebalance>,
}

/// Sessions that are ended since their endpoint has more than its share: they come again, and go to one
/// that has less.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rebalance {
    /// Of a hundred live sessions of the upstream, how many are ended in a minute at most.
    pub percent_per_minute: u16,
    /// How much more than its share an endpoint may have, in percent of it.
    pub tolerance_percent: u16,
}

/// One server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of new sessions relative to the others, at least 1.
    pub weight: u16,
    /// Whether it takes new sessions.
    pub phase: Phase,
    /// Whether it is in the zone of this host.
    pub is_near: bool,
}

/// Where an endpoint is in its life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Takes new sessions.
    Ready,
    /// Takes none for now; those it has go on.
    NotReady,
    /// Takes none; those it has are closed over `Drain::timeout`.
    Terminating,
}

/// How an endpoint is chosen for a new session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Balancing {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest live sessions for its weight.
    LeastConnections,
    /// Of two taken at random the one with fewer live sessions for its weight.
    PowerOfTwo,
    /// The same one for the same client, on all gateways.
    ConsistentHash(ConsistentHash),
}

/// How clients are brought to the same endpoint again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConsistentHash {
    /// By what they are told apart.
    pub key: HashKey,
    /// The most that an endpoint may have of its share of all live sessions, in percent; more than
    /// 100.
    pub max_load_percent: Option<u16>,
}

/// By what clients are told apart. Those that lack it are served in turn.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HashKey {
    /// Their address.
    SourceAddress,
    /// The first header of this name.
    Header(String),
    /// The first cookie of this name.
    Cookie(String),
    /// The first parameter of this name in the query, as it stands.
    QueryParameter(String),
}

/// Pings that the proxy sends to a side that has been quiet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Heartbeat {
    /// Silence after which a side is pinged; zero: never.
    pub interval: Duration,
    /// Silence after that ping which ends the session.
    pub timeout: Duration,
}

/// How sessions end when their endpoint, listener, address or pool goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drain {
    /// Until when, at the latest, the sessions of a gone endpoint are closed, evenly over that time
    /// where there is no rate.
    pub timeout: Duration,
    /// How many of them are closed in a second, if not more must be; at least 1.
    pub sessions_per_second: Option<u32>,
    /// Close code sent (RFC 6455 section 7.4).
    pub close_code: u16,
}

impl Config {
    /// All addresses on which clients are accepted.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.pools
            .values()
            .flat_map(|pool| &pool.listeners)
            .flat_map(|listener| listener.addresses.iter().copied())
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let mut taken = BTreeMap::new();
        for (name, pool) in &self.pools {
            for address in pool
                .listeners
                .iter()
                .flat_map(|listener| &listener.addresses)
            {
                if let Some(first) = taken.insert(*address, name) {
                    return Err(ConfigError::AddressTaken {
                        address: *address,
                        first: first.clone(),
                        second: name.clone(),
                    });
                }
            }
            pool.check(name)?;
        }
        Ok(())
    }
}

impl Pool {
    /// Whether requests go to that upstream.
    pub(crate) fn is_routed(&self, upstream: &str) -> bool {
        let mut listeners = self.listeners.iter();
        listeners.any(|listener| {
            let mut routes = listener.routes.iter();
            listener.routes.is_empty() || routes.any(|route| route.upstream == upstream)
        })
    }

    fn check(&self, name: &str) -> Result<(), ConfigError> {
        let pool = || name.to_owned();
        let deaf =
            |listener: &&Listener| listener.proxy_protocol && listener.trusted_proxies.is_empty();
        if let Some(listener) = self.listeners.iter().find(deaf) {
            return Err(ConfigError::NoTrustedProxies {
                pool: pool(),
                listener: listener.name.clone(),
            });
        }
        for listener in &self.listeners {
            let plain = listener.plain_requests;
            if plain.is_some_and(|plain| plain.timeout.is_zero()) {
                return Err(ConfigError::ZeroPlainTimeout {
                    pool: pool(),
                    listener: listener.name.clone(),
                });
            }
            routing::check(&listener.routes, &self.upstreams).map_err(|problem| {
                ConfigError::Routes {
                    pool: pool(),
                    listener: listener.name.clone(),
                    problem,
                }
            })?;
        }
        let mut names = BTreeSet::new();
        for upstream in &self.upstreams {
            if !names.insert(&upstream.name) {
                return Err(ConfigError::DuplicateUpstream {
                    pool: pool(),
                    upstream: upstream.name.clone(),
                });
            }
            upstream.check(name)?;
        }
        if self.drain.sessions_per_second == Some(0) {
            return Err(ConfigError::ZeroDrainRate { pool: pool() });
        }
        if let Some(field) = self.limits.impossible() {
            return Err(ConfigError::ZeroLimit {
                pool: pool(),
                field,
            });
        }
        // RFC 6455 section 7.4.1: 1004-1006 and 1015 are never sent; 7.4.2: below 3000 is reserved.
        if !matches!(self.drain.close_code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(ConfigError::CloseCode {
                pool: pool(),
                code: self.drain.close_code,
            });
        }
        Ok(())
    }
}

impl Upstream {
    /// One without endpoints.
    #[cfg(test)]
    pub(crate) fn for_tests(name: &str, balancing: Balancing) -> Self {
        Self {
            name: name.to_owned(),
            endpoints: Vec::new(),
            balancing,
            slow_start: Duration::ZERO,
            endpoint_sessions: None,
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(1),
            proxy_protocol: None,
            tls: None,
            health: Health::default(),
            min_near_percent: None,
            rebalance: None,
        }
    }

    fn check(&self, pool: &str) -> Result<(), ConfigError> {
        let pool = || pool.to_owned();
        let upstream = || self.name.clone();
        let mut seen = BTreeSet::new();
        for endpoint in &self.endpoints {
            let address = endpoint.address;
            if !seen.insert(address) {
                return Err(ConfigError::DuplicateEndpoint {
                    pool: pool(),
                    upstream: upstream(),
                    address,
                });
            }
            if endpoint.weight == 0 {
                return Err(ConfigError::ZeroWeight {
                    pool: pool(),
                    upstream: upstream(),
                    address,
                });
            }
        }
        if let Balancing::ConsistentHash(hash) = &self.balancing
            && let Some(percent @ ..=100) = hash.max_load_percent
        {
            return Err(ConfigError::LoadPercent {
                pool: pool(),
                upstream: upstream(),
                percent,
            });
        }
        if matches!(self.balancing, Balancing::ConsistentHash(_)) && self.rebalance.is_some() {
            return Err(ConfigError::RebalancedHash {
                pool: pool(),
                upstream: upstream(),
            });
        }
        let check = self.health.check.as_ref();
        let timeouts = [
            ("connectTimeout", Some(self.connect_timeout)),
            ("handshakeTimeout", Some(self.handshake_timeout)),
            ("healthCheck.interval", check.map(|check| check.interval)),
            ("healthCheck.timeout", check.map(|check| check.timeout)),
        ];
        let is_zero = |timeout: Option<Duration>| timeout.is_some_and(|it| it.is_zero());
        match timeouts.into_iter().find(|(_, timeout)| is_zero(*timeout)) {
            Some((field, _)) => Err(ConfigError::ZeroTimeout {
                pool: pool(),
                upstream: upstream(),
                field,
            }),
            None => Ok(()),
        }
    }
}
