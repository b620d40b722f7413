//! What the slices of one Service hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointPort, EndpointSlice};
use node_api::{Endpoint, EndpointPhase};

use super::Found;
use crate::{
    Problem, Reason, Shared,
    model::{endpoint_address, parse_address, targets},
};

/// Most endpoints of one Service that are refused one by one.
const MOST_REFUSED: usize = 20;

/// The endpoints behind the port of that name. `path` is the field that names the Service.
pub(super) fn find<'a>(
    slices: &[&'a Shared<EndpointSlice>],
    path: &'a str,
    port: &'a str,
    virtual_addresses: &'a BTreeSet<IpAddr>,
) -> Found {
    let mut search = Search {
        path,
        port,
        virtual_addresses,
        phases: BTreeMap::new(),
        zones: BTreeMap::new(),
        targets: BTreeMap::new(),
        problems: BTreeSet::new(),
        refused: BTreeSet::new(),
        other_ports: BTreeSet::new(),
        has_endpoints: false,
        has_port: false,
    };
    for slice in slices {
        search.slice(slice);
    }
    search.finish()
}

struct Search<'a> {
    path: &'a str,
    port: &'a str,
    virtual_addresses: &'a BTreeSet<IpAddr>,
    phases: BTreeMap<(IpAddr, u16), EndpointPhase>,
    zones: BTreeMap<IpAddr, &'a str>,
    /// UIDs of the pods behind addresses.
    targets: BTreeMap<IpAddr, &'a str>,
    problems: BTreeSet<Problem>,
    /// What is to be said of single endpoints.
    refused: BTreeSet<String>,
    /// What slices with endpoints have instead of the port.
    other_ports: BTreeSet<String>,
    has_endpoints: bool,
    has_port: bool,
}

impl<'a> Search<'a> {
    fn slice(&mut self, slice: &'a EndpointSlice) {
        let name = name(slice);
        let is_ipv6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            other => {
                self.has_endpoints = true;
                self.unresolved(format!(
                    "has EndpointSlice {name} of addressType {other}; list addresses in slices of \
                     type IPv4 or IPv6"
                ));
                return;
            }
        };
        if slice.endpoints.is_empty() {
            return; // nor need it have ports
        }
        self.has_endpoints = true;
        let ports = self.ports(slice);
        for endpoint in &slice.endpoints {
            let phase = phase(endpoint);
            for text in &endpoint.addresses {
                match usable(text, is_ipv6, self.virtual_addresses) {
                    Ok(address) => {
                        if let Some(uid) = target(endpoint) {
                            self.targets.insert(address, uid);
                        }
                        if let Some(zone) = endpoint.zone.as_deref().filter(|it| !it.is_empty()) {
                            self.zones.insert(address, zone);
                        }
                        for &port in &ports {
                            let known = self.phases.entry((address, port)).or_insert(phase);
                            // In two slices while it moves from one to the other.
                            if eagerness(phase) > eagerness(*known) {
                                *known = phase;
                            }
                        }
                    }
                    Err(error) => {
                        self.refused.insert(format!(
                            "has an endpoint in EndpointSlice {name} that is refused: {error}"
                        ));
                    }
                }
            }
        }
    }

    /// Numbers of the port in a slice.
    fn ports(&mut self, slice: &EndpointSlice) -> BTreeSet<u16> {
        let name_of = |port: &EndpointPort| port.name.clone().unwrap_or_default();
        let is_tcp = |port: &EndpointPort| port.protocol.as_deref().is_none_or(|it| it == "TCP");
        let mut numbers = BTreeSet::new();
        for port in slice.ports.iter().flatten() {
            if name_of(port) != self.port || !is_tcp(port) {
                self.other_ports.insert(describe(port));
                continue;
            }
            self.has_port = true;
            let number = port.port.map(|number| (number, u16::try_from(number)));
            match number {
                Some((_, Ok(number))) if number > 0 => {
                    numbers.insert(number);
                }
                wrong => {
                    let is = wrong.map_or_else(
                        || "a port that has no number".to_owned(),
                        |(number, _)| format!("port {number}"),
                    );
                    self.unresolved(format!(
                        "has EndpointSlice {} with {is}; write a number from 1 to 65535",
                        name(slice)
                    ));
                }
            }
        }
        numbers
    }

    fn unresolved(&mut self, message: String) {
        self.problems
            .insert(Problem::of(Reason::Unresolved, self.path, message));
    }

    fn finish(mut self) -> Found {
        if !self.has_endpoints {
            self.problems.insert(Problem::of(
                Reason::NoEndpoints,
                self.path,
                "has no endpoint now, so that no session can be opened; start a server or list one \
                 in its EndpointSlice",
            ));
        } else if !self.has_port && self.problems.is_empty() {
            let list = |ports: BTreeSet<String>| ports.into_iter().collect::<Vec<_>>().join(", ");
            let other = list(std::mem::take(&mut self.other_ports));
            self.unresolved(format!(
                "has no EndpointSlice with a TCP port {}; they have {}; name ports there as the \
                 Service does",
                if self.port.is_empty() {
                    "without a name".to_owned()
                } else {
                    format!("named {}", self.port)
                },
                if other.is_empty() { "none" } else { &other }
            ));
        }
        let mut problems: Vec<_> = self.problems.into_iter().collect();
        let more = self.refused.len().saturating_sub(MOST_REFUSED);
        let refused = self.refused.into_iter().take(MOST_REFUSED);
        let more = (more > 0).then(|| format!("has {more} more endpoints that are refused"));
        let refused = refused.chain(more);
        problems.extend(
            refused.map(|message| Problem::of(Reason::EndpointNotPermitted, self.path, message)),
        );
        // One server with an address of either family is one server: IPv4, as the gateways' own
        // addresses are.
        let of_pod = |(address, port): &(IpAddr, u16)| {
            let uid = self.targets.get(address)?;
            Some((*uid, *port))
        };
        // IPv4 is sorted first: none of the other family, nothing to look for.
        let last = self.phases.last_key_value();
        let has_both = last.is_some_and(|((address, _), _)| address.is_ipv6());
        let first = self.phases.keys();
        let first = first.filter(|(address, _)| has_both && address.is_ipv4());
        let first: BTreeSet<_> = first.filter_map(of_pod).collect();
        let second = |at: &(IpAddr, u16)| {
            at.0.is_ipv6() && of_pod(at).is_some_and(|pod| first.contains(&pod))
        };
        let endpoints = self.phases.iter().filter(|(at, _)| !second(at));
        let endpoints = endpoints.map(|(&(address, port), &phase)| Endpoint {
            address,
            port,
            weight: 1,
            phase,
            zone: self.zones.get(&address).map(|&zone| zone.to_owned()),
        });
        Found {
            endpoints: endpoints.collect(),
            problems,
        }
    }
}

fn name(slice: &EndpointSlice) -> String {
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    format!("{}/{name}", super::namespace(&slice.metadata))
}

/// What tells which pod an endpoint is, where it is one.
fn target(endpoint: &SliceEndpoint) -> Option<&str> {
    let uid = endpoint.target_ref.as_ref()?.uid.as_deref()?;
    (!uid.is_empty()).then_some(uid)
}

fn describe(port: &EndpointPort) -> String {
    let name = port.name.as_deref().filter(|name| !name.is_empty());
    let name = name.unwrap_or("one without a name");
    match port.protocol.as_deref() {
        Some(protocol) if protocol != "TCP" => format!("{name} ({protocol})"),
        _ => name.to_owned(),
    }
}

/// Addresses of slices come from programs, which have forms of their own for IPv6.
fn usable(
    text: &str,
    is_ipv6: bool,
    virtual_addresses: &BTreeSet<IpAddr>,
) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(parse_address(text).map_or_else(|error| error.to_string(), |_| String::new()));
    };
    if address.is_ipv6() != is_ipv6 {
        return Err(format!(
            "{address} does not fit the addressType; move it to a slice of type {}",
            if address.is_ipv6() { "IPv6" } else { "IPv4" }
        ));
    }
    let address = address.to_canonical();
    endpoint_address(address).map_err(|error| error.to_string())?;
    match targets(address).find(|target| virtual_addresses.contains(target)) {
        Some(target) if target == address => Err(format!(
            "{address} is a virtual address; use the server's own"
        )),
        Some(target) => Err(format!(
            "{address} stands for {target}, a virtual address; use the server's own"
        )),
        None => Ok(address),
    }
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
