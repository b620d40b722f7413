//! The servers behind an upstream.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort as SpecPort},
        discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use node_api::{Endpoint, EndpointPhase};

use crate::{
    Objects, Problem,
    model::{EndpointSource, ServicePort, endpoint_address, parse_address},
};

/// The label by which a slice belongs to a Service.
pub(crate) const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Servers found, and what could not be used.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Sorted by address and port, each once.
    pub(crate) endpoints: Vec<Endpoint>,
    /// References that lead nowhere, endpoints that are refused.
    pub(crate) problems: Vec<Problem>,
}

/// Looks up the servers of `source`. `path` is the upstream's field, `virtual_addresses` are those
/// of all pools: a virtual address as an endpoint would be a loop.
pub(crate) fn find(
    objects: &Objects,
    namespace: &str,
    path: &str,
    source: &EndpointSource,
    virtual_addresses: &BTreeSet<IpAddr>,
) -> Found {
    let mut found = Found::default();
    match source {
        EndpointSource::Listed(listed) => found.endpoints.clone_from(listed),
        EndpointSource::Service { name, port } => {
            let path = format!("{path}.service");
            match service_port(objects, namespace, &path, name, port) {
                Ok(port) => slices(
                    objects,
                    namespace,
                    &path,
                    name,
                    port,
                    virtual_addresses,
                    &mut found,
                ),
                Err(problem) => found.problems.push(problem),
            }
        }
    }
    found
        .endpoints
        .sort_by_key(|endpoint| (endpoint.address, endpoint.port));
    found
}

/// The name of the Service's port, by which the slices know it; empty where it has none.
fn service_port<'a>(
    objects: &'a Objects,
    namespace: &str,
    path: &str,
    name: &str,
    port: &ServicePort,
) -> Result<&'a str, Problem> {
    let service = objects
        .services
        .iter()
        .find(|service| is(&service.metadata, namespace, name))
        .ok_or_else(|| {
            Problem::new(
                format!("{path}.name"),
                format!("names Service {namespace}/{name}, which does not exist; create it or correct the name"),
            )
        })?;
    let matches = |candidate: &&SpecPort| match port {
        ServicePort::Number(number) => candidate.port == i32::from(*number),
        ServicePort::Name(name) => candidate.name.as_deref() == Some(name),
    };
    ports(service).find(matches).map_or_else(
        || {
            let known: Vec<_> = ports(service).map(describe).collect();
            Err(Problem::new(
                format!("{path}.port"),
                format!(
                    "is {port}, which is no port of Service {namespace}/{name}; it has {}",
                    if known.is_empty() {
                        "none".to_owned()
                    } else {
                        known.join(", ")
                    }
                ),
            ))
        },
        |port| Ok(port.name.as_deref().unwrap_or_default()),
    )
}

fn ports(service: &Service) -> impl Iterator<Item = &SpecPort> {
    service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten())
}

fn describe(port: &SpecPort) -> String {
    match &port.name {
        Some(name) => format!("{} ({name})", port.port),
        None => port.port.to_string(),
    }
}

fn is(metadata: &ObjectMeta, namespace: &str, name: &str) -> bool {
    metadata.name.as_deref() == Some(name)
        && metadata.namespace.as_deref().unwrap_or("default") == namespace
}

fn slices(
    objects: &Objects,
    namespace: &str,
    path: &str,
    service: &str,
    port: &str,
    virtual_addresses: &BTreeSet<IpAddr>,
    found: &mut Found,
) {
    let mut phases: BTreeMap<(IpAddr, u16), EndpointPhase> = BTreeMap::new();
    let mut problems = BTreeSet::new();
    for slice in &objects.endpoint_slices {
        let labels = slice.metadata.labels.as_ref();
        let of = labels.and_then(|labels| labels.get(SERVICE_LABEL));
        let here = slice.metadata.namespace.as_deref().unwrap_or("default") == namespace;
        if !here || of.is_none_or(|of| of != service) {
            continue;
        }
        let slice_name = slice.metadata.name.as_deref().unwrap_or_default();
        if slice.address_type == "FQDN" {
            problems.insert(Problem::new(
                path,
                format!(
                    "has EndpointSlice {namespace}/{slice_name} of addressType FQDN; list addresses \
                     in slices of type IPv4 or IPv6"
                ),
            ));
            continue;
        }
        for endpoint in &slice.endpoints {
            for text in &endpoint.addresses {
                match usable(text, virtual_addresses) {
                    Ok(address) => {
                        for port in slice_ports(slice, port) {
                            let phase = phase(endpoint);
                            let known = phases.entry((address, port)).or_insert(phase);
                            // In two slices while it moves from one to the other.
                            if eagerness(phase) > eagerness(*known) {
                                *known = phase;
                            }
                        }
                    }
                    Err(error) => {
                        problems.insert(Problem::new(
                            path,
                            format!("has an endpoint in EndpointSlice {namespace}/{slice_name} that is refused: {error}"),
                        ));
                    }
                }
            }
        }
    }
    found.problems.extend(problems);
    found
        .endpoints
        .extend(phases.into_iter().map(|((address, port), phase)| Endpoint {
            address,
            port,
            weight: 1,
            phase,
        }));
}

fn usable(text: &str, virtual_addresses: &BTreeSet<IpAddr>) -> Result<IpAddr, String> {
    let address = parse_address(text).map_err(|error| error.to_string())?;
    endpoint_address(address).map_err(|error| error.to_string())?;
    if virtual_addresses.contains(&address) {
        return Err(format!(
            "{address} is a virtual address; use the server's own"
        ));
    }
    Ok(address)
}

fn slice_ports<'a>(slice: &'a EndpointSlice, name: &'a str) -> impl Iterator<Item = u16> + 'a {
    let ports = slice.ports.iter().flatten();
    let named = ports.filter(move |port| port.name.as_deref().unwrap_or_default() == name);
    let tcp = named.filter(|port| port.protocol.as_deref().is_none_or(|it| it == "TCP"));
    tcp.filter_map(|port| u16::try_from(port.port?).ok().filter(|port| *port > 0))
}

/// An endpoint that terminates gets no new sessions even while it still serves; one that is only
/// not ready may come back, so that its sessions stay.
fn phase(endpoint: &SliceEndpoint) -> EndpointPhase {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // An unknown `ready` means ready, an unknown `terminating` means not (discovery.k8s.io/v1).
    if conditions.terminating == Some(true) {
        EndpointPhase::Terminating
    } else if conditions.ready == Some(false) || conditions.serving == Some(false) {
        EndpointPhase::NotReady
    } else {
        EndpointPhase::Ready
    }
}

fn eagerness(phase: EndpointPhase) -> u8 {
    match phase {
        EndpointPhase::Ready => 2,
        EndpointPhase::NotReady => 1,
        EndpointPhase::Terminating => 0,
    }
}
