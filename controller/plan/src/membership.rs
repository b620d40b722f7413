//! Which nodes may hold which address.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
};

use k8s_openapi::api::core::v1::Node;

use crate::{
    Inputs,
    model::VirtualIpIntent,
    network::{Links, Network, own_addresses},
};

/// The administrator's word that a node takes no traffic from outside of the cluster.
pub(crate) const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The nodes, as indices into their sorted names.
pub(crate) struct Nodes<'a> {
    names: Vec<&'a str>,
    objects: Vec<&'a Node>,
    owners: BTreeMap<IpAddr, usize>,
    /// Each node's network, if anything is known of it.
    links: Vec<Option<&'a Links<'a>>>,
    /// Most pools choose the same nodes.
    members: RefCell<BTreeMap<BTreeMap<String, String>, Rc<Members>>>,
}

/// Whether `node` has all these labels.
pub(crate) fn is_chosen(node: &Node, match_labels: &BTreeMap<String, String>) -> bool {
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key));
    let mut wanted = match_labels.iter();
    wanted.all(|(key, value)| label(key) == Some(value))
}

/// The nodes that a pool chooses.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// Those that take part.
    pub(crate) nodes: BTreeSet<usize>,
    /// Those that would but for the administrator's word.
    pub(crate) excluded: BTreeSet<usize>,
}

impl<'a> Nodes<'a> {
    pub(crate) fn new(inputs: &'a Inputs, network: &'a Network<'a>) -> Self {
        let nodes = inputs.objects.nodes.iter();
        let by_name: BTreeMap<&str, &Node> = nodes
            .filter_map(|node| Some((node.metadata.name.as_deref()?, &**node)))
            .collect();
        let (names, objects): (Vec<_>, Vec<_>) = by_name.into_iter().unzip();
        let mut owners = BTreeMap::new();
        for (index, node) in objects.iter().enumerate() {
            for address in own_addresses(node) {
                owners.entry(address).or_insert(index);
            }
        }
        Self {
            links: names.iter().map(|name| network.links(name)).collect(),
            names,
            objects,
            owners,
            members: RefCell::default(),
        }
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// The node of that name.
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.names.binary_search(&name).ok()
    }

    /// The node that has `address` for itself.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&'a str> {
        let owner = self.owners.get(&address.to_canonical())?;
        self.names.get(*owner).copied()
    }

    /// The nodes with all these labels.
    pub(crate) fn members(&self, match_labels: &BTreeMap<String, String>) -> Rc<Members> {
        let mut known = self.members.borrow_mut();
        if let Some(members) = known.get(match_labels) {
            return Rc::clone(members);
        }
        let members = Rc::new(self.chosen(match_labels));
        known.insert(match_labels.clone(), Rc::clone(&members));
        members
    }

    fn chosen(&self, match_labels: &BTreeMap<String, String>) -> Members {
        let mut members = Members::default();
        for (index, node) in self.objects.iter().enumerate() {
            if !is_chosen(node, match_labels) {
                continue;
            }
            let labels = node.metadata.labels.as_ref();
            if labels.is_some_and(|labels| labels.contains_key(EXCLUDE_LABEL)) {
                members.excluded.insert(index);
            } else {
                members.nodes.insert(index);
            }
        }
        members
    }

    /// Whether the node's network has a place for the address; `None` where nothing is known of it.
    pub(crate) fn reaches(&self, node: usize, virtual_ip: &VirtualIpIntent) -> Option<bool> {
        let interface = virtual_ip.interface.as_deref();
        let links = self.links(node)?;
        Some(links.reach(virtual_ip.address, interface))
    }

    /// The node's network, if anything is known of it.
    pub(crate) fn links(&self, node: usize) -> Option<&'a Links<'a>> {
        self.links[node]
    }

    /// The object of the node.
    pub(crate) fn object(&self, node: usize) -> &'a Node {
        self.objects[node]
    }

    /// Whether the node is to be emptied.
    pub(crate) fn cordoned(&self, node: usize) -> bool {
        let spec = self.objects[node].spec.as_ref();
        spec.is_some_and(|spec| spec.unschedulable == Some(true))
    }
}
