//! A pool on its way from its object to what is planned of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use node_api::PoolRef;

use crate::{
    Inputs, Problem, admission::Admission, membership::Nodes, model::PoolIntent, network::Network,
    vrid::Key,
};

/// What an object makes of itself: an intent, or what is wrong with it.
pub(crate) type Intent = Result<Arc<PoolIntent>, Vec<Problem>>;

/// A pool on its way.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) intent: Arc<PoolIntent>,
    /// By index of the virtual address.
    pub(crate) virtual_router_ids: Vec<Option<u8>>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) unresolved: Vec<Problem>,
}

impl Draft {
    fn new(intent: Arc<PoolIntent>) -> Self {
        Self {
            virtual_router_ids: vec![None; intent.virtual_ips.len()],
            intent,
            problems: Vec::new(),
            unresolved: Vec::new(),
        }
    }

    /// Its virtual routers, in the user's order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        let addresses = self.intent.virtual_ips.iter();
        addresses.map(|virtual_ip| (self.intent.name.clone(), virtual_ip.address))
    }

    /// All its addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let routers = self.intent.virtual_ips.iter();
        routers.flat_map(|virtual_ip| virtual_ip.addresses().map(|(_, address)| address))
    }

    /// Addresses, by index, for which a VRID is to be chosen, in their own order: that of the list
    /// must not matter.
    pub(crate) fn open(&self) -> Vec<(usize, Key)> {
        if !self.problems.is_empty() {
            return Vec::new();
        }
        let keys = self.keys().enumerate();
        let mut open: Vec<_> = keys
            .filter(|(index, _)| self.virtual_router_ids[*index].is_none())
            .collect();
        open.sort_by_key(|(_, key)| key.1);
        open
    }
}

/// All pools, admitted beside each other or not.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    /// Those that stand, in the order in which they were admitted.
    pub(crate) accepted: Vec<Draft>,
    /// Those that do not, and why.
    pub(crate) rejected: BTreeMap<PoolRef, Vec<Problem>>,
    /// Those of all pools that stand.
    pub(crate) virtual_addresses: BTreeSet<IpAddr>,
}

impl Drafts {
    /// Admits pools one after another.
    pub(crate) fn new(inputs: &Inputs, intents: &[(PoolRef, Intent)]) -> Self {
        let network = Network::new(inputs);
        let nodes = Nodes::new(inputs, &network);
        let (mut drafts, mut rejected) = sorted(inputs, intents);
        let mut admission = Admission::new(inputs, &network, &nodes, &drafts);
        for draft in &mut drafts {
            admission.admit(draft);
        }
        admission.choose_virtual_router_ids(&mut drafts);
        let (accepted, refused): (Vec<_>, Vec<_>) =
            (drafts.into_iter()).partition(|draft| draft.problems.is_empty());
        for draft in refused {
            rejected.insert(draft.intent.name.clone(), draft.problems);
        }
        Self {
            virtual_addresses: accepted.iter().flat_map(Draft::addresses).collect(),
            accepted,
            rejected,
        }
    }
}

/// Pools that make sense by themselves, in the order in which they are admitted, and the others.
fn sorted(
    inputs: &Inputs,
    intents: &[(PoolRef, Intent)],
) -> (Vec<Draft>, BTreeMap<PoolRef, Vec<Problem>>) {
    let committed: BTreeSet<&PoolRef> = inputs
        .committed
        .routers
        .keys()
        .map(|(pool, _)| pool)
        .collect();
    let mut malformed = BTreeMap::new();
    let mut drafts = BTreeMap::new();
    for (name, intent) in intents {
        match intent {
            Ok(intent) => {
                let key = (!committed.contains(name), intent.created, name.clone());
                drafts.insert(key, Draft::new(Arc::clone(intent)));
            }
            Err(problems) => {
                malformed.insert(name.clone(), problems.clone());
            }
        }
    }
    (drafts.into_values().collect(), malformed)
}
