//! The servers behind an upstream.

mod slices;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort as SpecPort},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use node_api::Endpoint;

use crate::{
    Objects, Problem, Reason, Shared,
    model::{EndpointSource, ServicePort},
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

/// Namespace and name.
type Name<'a> = (&'a str, &'a str);

/// All Services, and their slices.
pub(crate) struct Servers<'a> {
    services: BTreeMap<Name<'a>, &'a Shared<Service>>,
    slices: BTreeMap<Name<'a>, Vec<&'a Shared<EndpointSlice>>>,
    /// Those of all pools: as an endpoint one would be a loop.
    virtual_addresses: &'a BTreeSet<IpAddr>,
}

/// The objects that the servers of an upstream are taken from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    service: Option<Shared<Service>>,
    slices: Vec<Shared<EndpointSlice>>,
}

impl<'a> Servers<'a> {
    pub(crate) fn new(objects: &'a Objects, virtual_addresses: &'a BTreeSet<IpAddr>) -> Self {
        let services = objects.services.iter().filter_map(|service| {
            let name = service.metadata.name.as_deref()?;
            Some(((namespace(&service.metadata), name), service))
        });
        let mut slices: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for slice in &objects.endpoint_slices {
            let labels = slice.metadata.labels.as_ref();
            if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_LABEL)) {
                let name = (namespace(&slice.metadata), service.as_str());
                slices.entry(name).or_default().push(slice);
            }
        }
        Self {
            services: services.collect(),
            slices,
            virtual_addresses,
        }
    }

    /// The objects that the servers of `source` are taken from.
    pub(crate) fn sources(&self, namespace: &str, source: &EndpointSource) -> Sources {
        let EndpointSource::Service { name, .. } = source else {
            return Sources::default();
        };
        let name = (namespace, name.as_str());
        let slices = self.slices.get(&name).into_iter().flatten();
        Sources {
            service: self.services.get(&name).copied().cloned(),
            slices: slices.copied().cloned().collect(),
        }
    }

    /// Whether the servers of `source` are taken from these objects still.
    pub(crate) fn stand(
        &self,
        namespace: &str,
        source: &EndpointSource,
        sources: &Sources,
    ) -> bool {
        let EndpointSource::Service { name, .. } = source else {
            return true;
        };
        let name = (namespace, name.as_str());
        let service = match (self.services.get(&name), &sources.service) {
            (Some(now), Some(before)) => now.is(before),
            (now, before) => now.is_none() && before.is_none(),
        };
        let slices = self.slices.get(&name).map_or(&[][..], Vec::as_slice);
        let mut pairs = slices.iter().zip(&sources.slices);
        service && slices.len() == sources.slices.len() && pairs.all(|(now, before)| now.is(before))
    }

    /// Looks up the servers of `source`. `path` is the upstream's field.
    pub(crate) fn find(&self, namespace: &str, path: &str, source: &EndpointSource) -> Found {
        let mut found = match source {
            EndpointSource::Listed(listed) => Found {
                endpoints: listed.clone(),
                problems: Vec::new(),
            },
            EndpointSource::Service { name, port } => {
                let path = format!("{path}.service");
                self.of_service((namespace, name), &path, port)
                    .unwrap_or_else(|problem| Found {
                        endpoints: Vec::new(),
                        problems: vec![problem],
                    })
            }
        };
        found
            .endpoints
            .sort_by_key(|endpoint| (endpoint.address, endpoint.port));
        found
    }

    fn of_service(&self, name: Name<'_>, path: &str, port: &ServicePort) -> Result<Found, Problem> {
        let shown = format!("{}/{}", name.0, name.1);
        let unresolved = |field: &str, message: String| {
            Problem::of(Reason::Unresolved, format!("{path}.{field}"), message)
        };
        let service = self.services.get(&name).ok_or_else(|| {
            unresolved(
                "name",
                format!(
                    "names Service {shown}, which does not exist; create it or correct the name"
                ),
            )
        })?;
        let port = service_port(service, port)
            .map_err(|problem| unresolved("port", format!("is {port}, {problem}")))?;
        let slices = self.slices.get(&name).ok_or_else(|| {
            unresolved(
                "name",
                format!(
                    "names Service {shown}, which has no EndpointSlice; add one that carries the \
                     label {SERVICE_LABEL}: {} in namespace {}",
                    name.1, name.0
                ),
            )
        })?;
        Ok(slices::find(slices, path, port, self.virtual_addresses))
    }
}

pub(crate) fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or("default")
}

/// The name of the Service's port, by which the slices know it; empty where it has none. The error
/// is what is wrong with the port.
fn service_port<'a>(service: &'a Service, port: &ServicePort) -> Result<&'a str, String> {
    let ports = || {
        let spec = service.spec.iter();
        spec.flat_map(|spec| spec.ports.iter().flatten())
    };
    let matches = |candidate: &&SpecPort| match port {
        ServicePort::Number(number) => candidate.port == i32::from(*number),
        ServicePort::Name(name) => candidate.name.as_deref() == Some(name),
    };
    // One number may have a UDP port too, for HTTP/3.
    if let Some(found) = ports().filter(matches).find(|port| is_tcp(port)) {
        return Ok(found.name.as_deref().unwrap_or_default());
    }
    let known: Vec<_> = ports().map(describe).collect();
    let known = if known.is_empty() {
        "none".to_owned()
    } else {
        known.join(", ")
    };
    let shown = format!(
        "Service {}/{}",
        namespace(&service.metadata),
        service.metadata.name.as_deref().unwrap_or_default()
    );
    let quotes = match port {
        ServicePort::Name(name) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
            "; for a number write it without quotes"
        }
        _ => "",
    };
    Err(format!(
        "which is no TCP port of {shown}; it has {known}{quotes}"
    ))
}

fn is_tcp(port: &SpecPort) -> bool {
    port.protocol.as_deref().is_none_or(|it| it == "TCP")
}

fn describe(port: &SpecPort) -> String {
    let protocol = match &port.protocol {
        Some(protocol) if protocol != "TCP" => format!("/{protocol}"),
        _ => String::new(),
    };
    match &port.name {
        Some(name) => format!("{}{protocol} ({name})", port.port),
        None => format!("{}{protocol}", port.port),
    }
}
