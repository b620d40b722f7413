//! Which requests go to which upstream.

use serde::{Deserialize, Serialize};

use crate::config::Pool;

/// Requests by their host and path. Of those that match one the most specific is meant: by its hostname
/// first, then by the length of its prefix.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Hosts in lower case; `*.` before one stands for any names. Empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hostnames: Vec<String>,
    /// Path that stands for itself and all below it.
    pub path_prefix: String,
    /// Name of the upstream.
    pub upstream_name: String,
}

impl Pool {
    /// Whether each request has an upstream to go to, if any route matches it.
    ///
    /// # Errors
    /// Where one leads nowhere, with the remedy.
    pub fn check_routes(&self) -> Result<(), String> {
        if self.upstreams.is_empty() {
            return Err("it has no upstream: name one in spec.upstreams".to_owned());
        }
        let is_known = |name: &str| self.upstreams.iter().any(|upstream| upstream.name == name);
        for listener in &self.listeners {
            let name = &listener.name;
            if listener.routes.is_empty() && self.upstreams.len() > 1 {
                return Err(format!(
                    "listener {name} has no routes, and there are several upstreams: say which \
                     requests go to which"
                ));
            }
            let mut routes = listener.routes.iter();
            if let Some(route) = routes.find(|route| !is_known(&route.upstream_name)) {
                return Err(format!(
                    "listener {name} has a route to {}, which is no upstream: use the name of one",
                    route.upstream_name
                ));
            }
        }
        Ok(())
    }

    /// Whether requests go to the upstream of that name.
    pub fn is_routed(&self, upstream: &str) -> bool {
        self.listeners.iter().any(|listener| {
            let mut routes = listener.routes.iter();
            listener.routes.is_empty() || routes.any(|route| route.upstream_name == upstream)
        })
    }
}
