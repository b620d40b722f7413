//! What a cluster keeps for itself: addresses of Services, of pods, ports of nodes.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Node, Service};

use crate::{Inputs, Reason, policy::Cluster};

/// What a Service has an address for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Use {
    ClusterIp,
    ExternalIp,
    LoadBalancer,
}

/// What a cluster keeps for itself; nothing on plain hosts.
pub(crate) struct Reserved<'a> {
    cluster: Option<&'a Cluster>,
    services: BTreeMap<IpAddr, (Use, &'a Service)>,
    pod_ranges: Vec<(IpNet, &'a str)>,
}

impl<'a> Reserved<'a> {
    pub(crate) fn new(inputs: &'a Inputs) -> Self {
        let mut reserved = Self {
            cluster: inputs.policy.cluster.as_ref(),
            services: BTreeMap::new(),
            pod_ranges: Vec::new(),
        };
        if reserved.cluster.is_some() {
            for service in &inputs.objects.services {
                reserved.service(service);
            }
            for node in &inputs.objects.nodes {
                reserved.node(node);
            }
        }
        reserved
    }

    fn service(&mut self, service: &'a Service) {
        let mut add = |text: &str, what: Use| {
            // A headless Service says None.
            if let Ok(address) = text.parse::<IpAddr>() {
                self.services
                    .entry(address.to_canonical())
                    .or_insert((what, service));
            }
        };
        if let Some(spec) = &service.spec {
            let own = spec.cluster_ips.iter().flatten();
            own.chain(&spec.cluster_ip)
                .for_each(|it| add(it, Use::ClusterIp));
            let external = spec.external_ips.iter().flatten();
            external.for_each(|it| add(it, Use::ExternalIp));
        }
        let status = service.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
        let ingress = ingress.into_iter().flatten();
        ingress
            .filter_map(|entry| entry.ip.as_deref())
            .for_each(|it| add(it, Use::LoadBalancer));
    }

    fn node(&mut self, node: &'a Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let ranges = node.spec.iter().flat_map(|spec| {
            let several = spec.pod_cidrs.iter().flatten();
            several.chain(&spec.pod_cidr)
        });
        let ranges = ranges.filter_map(|text| text.parse().ok());
        self.pod_ranges.extend(ranges.map(|range| (range, name)));
    }

    /// Why the cluster keeps `address` for itself.
    pub(crate) fn address(&self, address: IpAddr) -> Option<(Reason, String)> {
        let cluster = self.cluster?;
        if let Some((what, service)) = self.services.get(&address) {
            let (reason, what) = match what {
                Use::ClusterIp => (Reason::AddressNotPermitted, "the cluster address"),
                Use::ExternalIp => (Reason::AddressConflict, "an external address"),
                Use::LoadBalancer => (Reason::AddressConflict, "the load-balancer address"),
            };
            let metadata = &service.metadata;
            let namespace = crate::endpoints::namespace(metadata);
            let name = metadata.name.as_deref().unwrap_or_default();
            return Some((
                reason,
                format!(
                    "{address} is {what} of Service {namespace}/{name}, for which kube-proxy answers on \
                     every node; use another, or take it from the Service"
                ),
            ));
        }
        let not_permitted = |message: String| Some((Reason::AddressNotPermitted, message));
        let mut services = cluster.service_ranges.iter();
        if let Some(range) = services.find(|range| range.contains(&address)) {
            return not_permitted(format!(
                "{address} lies in {range}, where addresses of Services are taken from; use a \
                 free address of the gateway nodes' network"
            ));
        }
        let mut pods = self.pod_ranges.iter();
        let (range, node) = pods.find(|(range, _)| range.contains(&address))?;
        not_permitted(format!(
            "{address} lies in {range}, the pod addresses of node {node}; use a free address of \
             the gateway nodes' network"
        ))
    }

    /// Why the cluster keeps `port` for itself.
    pub(crate) fn port(&self, port: u16) -> Option<String> {
        let range = &self.cluster?.node_ports;
        range.contains(&port).then(|| {
            format!(
                "{port} lies in {}-{}, where node ports of Services are taken from, for which \
                 kube-proxy answers on every address of a node; choose another",
                range.start(),
                range.end()
            )
        })
    }
}
