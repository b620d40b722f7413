//! Manifests as values, so that a test edits a field and writes the file again.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::lab::{BACKEND_PORT, PORT, VIP_SERVER1, VIP_SERVER2};

/// What stands in one file.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The pools.
    pub pools: Vec<Pool>,
    /// Names and addresses of the gateways.
    pub nodes: Vec<(&'static str, Ipv4Addr)>,
}

/// A `WebSocketHAPool`.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name; the namespace is `default`.
    pub name: &'static str,
    /// Entries of `spec.virtualIPs`, each as a YAML flow mapping without its braces.
    pub virtual_ips: Vec<String>,
    /// Names and ports of the listeners.
    pub listeners: Vec<(&'static str, u16)>,
    /// Names and ports of those that speak TLS, and the Secret that each has its certificate from.
    pub secure: Vec<(&'static str, u16, &'static str)>,
    /// Routes of each listener, each as a YAML flow mapping without its braces.
    pub routes: Vec<String>,
    /// The endpoints of its first upstream, `echo`.
    pub endpoints: Vec<Endpoint>,
    /// Further fields of that upstream, one `name: value` each.
    pub upstream: Vec<String>,
    /// Names and endpoints of further upstreams.
    pub more_upstreams: Vec<(&'static str, Vec<Endpoint>)>,
    /// Further fields of the spec, one `name: value` each.
    pub spec: Vec<String>,
}

/// An endpoint of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its port.
    pub port: u16,
    /// Its weight.
    pub weight: u16,
}

impl Endpoint {
    /// The lab's backend with this last byte: 16 to 19.
    pub fn backend(last: u8) -> Self {
        Self {
            address: Ipv4Addr::new(192, 168, 1, last),
            port: BACKEND_PORT,
            weight: 1,
        }
    }
}

impl Pool {
    /// A pool with one listener and the article's three backends.
    pub fn new(name: &'static str, virtual_ips: Vec<String>) -> Self {
        Self {
            name,
            virtual_ips,
            listeners: vec![("ws", PORT)],
            secure: Vec::new(),
            routes: Vec::new(),
            endpoints: [16, 17, 18].map(Endpoint::backend).into(),
            upstream: Vec::new(),
            more_upstreams: Vec::new(),
            spec: Vec::new(),
        }
    }
}

impl Manifest {
    /// A file with both gateways and these pools.
    pub fn of(pools: Vec<Pool>) -> Self {
        let nodes = vec![
            ("server1", Ipv4Addr::new(192, 168, 1, 14)),
            ("server2", Ipv4Addr::new(192, 168, 1, 15)),
        ];
        Self { pools, nodes }
    }

    /// The article's set-up.
    pub fn article() -> Self {
        let virtual_ips = vec![
            format!("address: {VIP_SERVER2}, preferredNodeName: server2"),
            format!("address: {VIP_SERVER1}, preferredNodeName: server1"),
        ];
        Self::of(vec![Pool::new("chat", virtual_ips)])
    }

    /// The first pool.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pools[0]
    }

    /// All virtual addresses, in the order of the file.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let entries = self.pools.iter().flat_map(|pool| &pool.virtual_ips);
        entries
            .filter_map(|entry| field(entry, "address")?.parse().ok())
            .collect()
    }

    /// Each address that has a preferred node, with that node's name.
    pub fn homes(&self) -> Vec<(IpAddr, String)> {
        let entries = self.pools.iter().flat_map(|pool| &pool.virtual_ips);
        let home = |entry: &String| {
            Some((
                field(entry, "address")?.parse().ok()?,
                field(entry, "preferredNodeName")?.to_owned(),
            ))
        };
        entries.filter_map(home).collect()
    }
}

/// The value of `name` in a flow mapping of plain scalars.
fn field<'entry>(entry: &'entry str, name: &str) -> Option<&'entry str> {
    entry
        .split(", ")
        .find_map(|part| part.strip_prefix(name)?.strip_prefix(": "))
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pool in &self.pools {
            writeln!(f, "---\n{pool}")?;
        }
        for (name, address) in &self.nodes {
            writeln!(
                f,
                "---\napiVersion: v1\nkind: Node\nmetadata: {{ name: {name}, labels: {{ wsha.dev/gateway: \"true\" }} }}"
            )?;
            writeln!(
                f,
                "status:\n  addresses: [{{ type: InternalIP, address: {address} }}]"
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "apiVersion: wsha.dev/v1alpha1\nkind: WebSocketHAPool")?;
        writeln!(
            f,
            "metadata: {{ name: {}, namespace: default }}\nspec:\n  virtualIPs:",
            self.name
        )?;
        for entry in &self.virtual_ips {
            writeln!(f, "    - {{ {entry} }}")?;
        }
        writeln!(
            f,
            "  gateways:\n    nodeSelector: {{ matchLabels: {{ wsha.dev/gateway: \"true\" }} }}\n  listeners:"
        )?;
        let routes = self.routes.iter().map(|route| format!("{{ {route} }}"));
        let routes = routes.collect::<Vec<_>>().join(", ");
        for (name, port) in &self.listeners {
            writeln!(
                f,
                "    - {{ name: {name}, port: {port}, routes: [{routes}] }}"
            )?;
        }
        for (name, port, secret) in &self.secure {
            writeln!(
                f,
                "    - {{ name: {name}, port: {port}, routes: [{routes}], tls: {{ certificateRefs: [{{ name: {secret} }}] }} }}"
            )?;
        }
        writeln!(f, "  upstreams:\n    - name: echo")?;
        for field in &self.upstream {
            writeln!(f, "      {field}")?;
        }
        list(f, &self.endpoints)?;
        for (name, endpoints) in &self.more_upstreams {
            writeln!(f, "    - name: {name}")?;
            list(f, endpoints)?;
        }
        for field in &self.spec {
            writeln!(f, "  {field}")?;
        }
        Ok(())
    }
}

/// The endpoints of an upstream.
fn list(f: &mut fmt::Formatter<'_>, endpoints: &[Endpoint]) -> fmt::Result {
    writeln!(f, "      endpoints:")?;
    for Endpoint {
        address,
        port,
        weight,
    } in endpoints
    {
        writeln!(
            f,
            "        - {{ address: {address}, port: {port}, weight: {weight} }}"
        )?;
    }
    Ok(())
}
