//! Which upstream a request goes to, by its host and path.
//!
//! Of the routes that match, the one with the most specific hostname is taken, of these the one with the
//! longest prefix, whatever their order. A request that some servers would read as one of another route
//! is refused: what may not be reached by one route must not be reached by another.

mod path;

use std::{sync::Arc, time::Duration};

use self::path::Path;
use crate::{config::Route, handshake::Reject, live::Upstream};

/// The routes of a listener.
#[derive(Debug)]
pub(crate) struct Routing {
    /// The most specific ones first.
    destinations: Vec<Destination>,
    /// Whether hosts make a difference.
    by_host: bool,
    /// Whether paths do.
    by_path: bool,
}

/// Where the requests of a host and path go.
#[derive(Debug)]
pub(crate) struct Destination {
    hostname: Hostname,
    /// The elements of the prefix.
    prefix: Vec<Vec<u8>>,
    pub(crate) upstream: Arc<Upstream>,
    /// What it matches, for people; `None`: nothing was said of that.
    pub(crate) route: Option<String>,
}

/// In the order of precedence, the lowest one first.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Hostname {
    Any,
    /// All names below a domain, which is there with the dot before it; a longer one is more specific.
    Below(usize, String),
    Exact(String),
}

/// What is wrong with routes, with the remedy.
pub(crate) fn check(routes: &[Route], upstreams: &[crate::config::Upstream]) -> Result<(), String> {
    if routes.is_empty() && upstreams.len() != 1 {
        return Err(format!(
            "there are {} upstreams and no routes: say which requests go to which",
            upstreams.len()
        ));
    }
    let is_known = |name: &str| upstreams.iter().any(|upstream| upstream.name == name);
    match routes.iter().find(|route| !is_known(&route.upstream)) {
        Some(Route { upstream, .. }) => Err(format!(
            "a route leads to {upstream}, which is no upstream of the pool: use the name of one"
        )),
        None => Ok(()),
    }
}

impl Routing {
    /// The routes of a configuration that was checked.
    pub(crate) fn new(routes: &[Route], upstreams: &[Arc<Upstream>]) -> Self {
        let mut destinations: Vec<_> = if routes.is_empty() {
            let only = upstreams.first().map(|upstream| Destination {
                hostname: Hostname::Any,
                prefix: Vec::new(),
                upstream: Arc::clone(upstream),
                route: None,
            });
            only.into_iter().collect()
        } else {
            let routes = routes.iter().filter_map(|route| {
                let mut upstreams = upstreams.iter();
                let upstream = upstreams.find(|upstream| upstream.name == route.upstream)?;
                Some(Destination::of(route, upstream))
            });
            routes.flatten().collect()
        };
        destinations.sort_by(|one, other| {
            let specific = |it: &Destination| it.prefix.len();
            (&other.hostname, specific(other)).cmp(&(&one.hostname, specific(one)))
        });
        Self {
            by_host: destinations.iter().any(|it| it.hostname != Hostname::Any),
            by_path: destinations.iter().any(|it| !it.prefix.is_empty()),
            destinations,
        }
    }

    /// Where a request goes. `host` is what it asks for, with its port if it has one; `target` its path
    /// and query as the server gets them.
    pub(crate) fn choose(&self, host: &[u8], target: &[u8]) -> Result<&Destination, Reject> {
        // RFC 3986 section 3.2.2 lets a name be percent-encoded, and few servers know.
        if self.by_host && host.contains(&b'%') {
            return Err(Reject::Malformed("The host is percent-encoded."));
        }
        let host = name(host);
        let of_host = || self.destinations.iter().filter(|it| it.hostname.is(host));
        if !self.by_path {
            return of_host().next().ok_or(Reject::NoRoute);
        }
        let path = Path::read(target)?;
        let plain = of_host().find(|it| path.begins_with(&it.prefix));
        let lenient = of_host().find(|it| path.may_begin_with(&it.prefix));
        match (plain, lenient) {
            (Some(plain), Some(lenient)) if std::ptr::eq(plain, lenient) => Ok(plain),
            (None, None) => Err(Reject::NoRoute),
            // Whatever a server makes of parameters and empty elements lies between the two: who takes
            // more of them away matches more routes, never fewer.
            _ => Err(Reject::Malformed(
                "Servers read the path in different ways.",
            )),
        }
    }

    /// How long a handshake may take before it is known where it goes.
    pub(crate) fn patience(&self) -> Duration {
        let upstreams = self.destinations.iter().map(|it| &it.upstream);
        let longest = upstreams.map(|upstream| upstream.handshake_timeout).max();
        longest.unwrap_or_default()
    }
}

impl Destination {
    /// One for each of a route's hostnames.
    fn of(route: &Route, upstream: &Arc<Upstream>) -> Vec<Self> {
        let prefix = &route.path_prefix;
        let destination = |hostname, name: &str| Self {
            hostname,
            prefix: path::elements(prefix),
            upstream: Arc::clone(upstream),
            route: Some(format!("{name}{prefix}")),
        };
        if route.hostnames.is_empty() {
            return vec![destination(Hostname::Any, "")];
        }
        let hostnames = route.hostnames.iter();
        let each = hostnames.map(|name| destination(Hostname::new(name), name));
        each.collect()
    }
}

impl Hostname {
    fn new(text: &str) -> Self {
        match text.strip_prefix('*') {
            Some(domain) => Self::Below(domain.len(), domain.to_owned()),
            None => Self::Exact(text.to_owned()),
        }
    }

    /// Names are the same in upper and lower case (RFC 3986 section 3.2.2).
    fn is(&self, host: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Below(len, domain) => {
                let labels = host.len().checked_sub(*len).filter(|labels| *labels > 0);
                labels.is_some_and(|at| host[at..].eq_ignore_ascii_case(domain.as_bytes()))
            }
            Self::Exact(name) => host.eq_ignore_ascii_case(name.as_bytes()),
        }
    }
}

/// The name or address in a host and port. A dot at its end stands for the root, as none does (RFC 3986
/// section 3.2.2).
fn name(host: &[u8]) -> &[u8] {
    // Colons of an IPv6 address stand in brackets.
    let bracket = host.iter().position(|byte| *byte == b']');
    let from = bracket.unwrap_or(0);
    let port = host[from..].iter().position(|byte| *byte == b':');
    let name = port.map_or(host, |port| &host[..from + port]);
    name.strip_suffix(b".").unwrap_or(name)
}

#[cfg(test)]
mod tests;
