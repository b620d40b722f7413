//! VRIDs: unique per segment and family, and stable.
//!
//! In order: the committed one, which stays; the user's; the last byte of the address; the next free
//! one of the policy's range. What is taken is taken by whoever committed it first, then by the
//! user's word, then in the order of creation and names; who comes later is refused, or goes on to
//! the next possibility where nobody named the VRID.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use ipnet::IpNet;
use node_api::PoolRef;

use crate::{Inputs, Retirement, network::Network};

/// A network on which VRIDs must differ.
#[derive(Clone, Copy, Debug)]
struct Segment {
    ipv6: bool,
    /// `None`: unknown, then it may be any of its family.
    prefix: Option<IpNet>,
}

impl Segment {
    fn overlaps(self, other: Self) -> bool {
        self.ipv6 == other.ipv6
            && match (self.prefix, other.prefix) {
                (Some(one), Some(other)) => one.contains(&other) || other.contains(&one),
                _ => true,
            }
    }
}

/// A virtual router: its pool and address.
pub(crate) type Key = (PoolRef, IpAddr);

#[derive(Clone, Debug)]
struct Claim {
    segment: Segment,
    key: Key,
    leaving: bool,
}

/// Who else has the VRID.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Taken {
    pub(crate) by: Key,
    /// Whether it is being given up.
    pub(crate) leaving: bool,
}

/// The VRIDs that are taken.
pub(crate) struct Claims<'a> {
    inputs: &'a Inputs,
    network: &'a Network<'a>,
    by_vrid: BTreeMap<u8, Vec<Claim>>,
    /// Committed routers that were found to be alone, or the older ones of those that clash.
    standing: BTreeSet<Key>,
}

impl<'a> Claims<'a> {
    /// What is committed, and what is not yet given up.
    pub(crate) fn new(
        inputs: &'a Inputs,
        network: &'a Network<'a>,
        retirements: &[Retirement],
    ) -> Self {
        let mut claims = Self {
            inputs,
            network,
            by_vrid: BTreeMap::new(),
            standing: BTreeSet::new(),
        };
        for (key, router) in &inputs.committed.routers {
            claims.insert(key, router.virtual_router_id, false);
        }
        for held in retirements {
            let key = (held.pool.clone(), held.address);
            claims.insert(&key, held.virtual_router_id, true);
        }
        claims
    }

    /// Whether nobody else has a VRID that somebody names. Nothing is claimed yet.
    pub(crate) fn named(&self, key: &Key, virtual_router_id: u8) -> Result<(), Taken> {
        let mut others = self.others(key, virtual_router_id);
        others.next().map_or(Ok(()), |claim| Err(claim.into()))
    }

    /// Lets a committed VRID stand unless one stands already that it cannot stand beside: networks
    /// grow together, and two routers that were apart are on one segment then.
    pub(crate) fn stand(&mut self, key: &Key, virtual_router_id: u8) -> Result<(), Taken> {
        let mut others = self.others(key, virtual_router_id);
        let taken = others.find(|claim| self.standing.contains(&claim.key));
        if let Some(taken) = taken.map(Taken::from) {
            return Err(taken);
        }
        drop(others);
        self.standing.insert(key.clone());
        Ok(())
    }

    /// Claims a VRID.
    pub(crate) fn claim(&mut self, key: &Key, virtual_router_id: u8) {
        self.insert(key, virtual_router_id, false);
    }

    /// Takes a claim back: its pool is not accepted.
    pub(crate) fn release(&mut self, key: &Key, virtual_router_id: u8) {
        if let Some(claims) = self.by_vrid.get_mut(&virtual_router_id) {
            claims.retain(|claim| claim.key != *key || claim.leaving);
        }
    }

    /// Takes the last byte of the address, where nobody named a VRID. The error tells who has it;
    /// `None`: it is 0 or heard.
    pub(crate) fn last_byte(
        &mut self,
        key: &Key,
        interface: Option<&str>,
    ) -> Result<u8, Option<Taken>> {
        let last = match key.1 {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        let chosen = self.choose(key, interface, last..=last);
        chosen.ok_or_else(|| self.named(key, last).err())
    }

    /// Takes the next free VRID of the policy's range.
    pub(crate) fn next_free(&mut self, key: &Key, interface: Option<&str>) -> Option<u8> {
        let range = self.inputs.policy.virtual_router_ids.clone()?;
        self.choose(key, interface, range)
    }

    fn choose(
        &mut self,
        key: &Key,
        interface: Option<&str>,
        mut range: RangeInclusive<u8>,
    ) -> Option<u8> {
        // A user may name a VRID that was heard, to share a group with keepalived; the planner
        // never does.
        let free = range.find(|&candidate| {
            candidate != 0
                && self.named(key, candidate).is_ok()
                && !self.network.heard(key.1, interface, candidate)
        })?;
        self.claim(key, free);
        Some(free)
    }

    /// Who else has the VRID on the segment of `key`. A router that is leaving may return to its
    /// own pool and address at once.
    fn others(&self, key: &Key, virtual_router_id: u8) -> impl Iterator<Item = &Claim> {
        let segment = self.segment(key.1);
        let claims = self.by_vrid.get(&virtual_router_id).into_iter().flatten();
        claims.filter(move |claim| claim.key != *key && claim.segment.overlaps(segment))
    }

    fn segment(&self, address: IpAddr) -> Segment {
        Segment {
            ipv6: address.is_ipv6(),
            prefix: self.network.prefix(address),
        }
    }

    fn insert(&mut self, key: &Key, virtual_router_id: u8, leaving: bool) {
        let claim = Claim {
            segment: self.segment(key.1),
            key: key.clone(),
            leaving,
        };
        self.by_vrid
            .entry(virtual_router_id)
            .or_default()
            .push(claim);
    }
}

impl From<&Claim> for Taken {
    fn from(claim: &Claim) -> Self {
        Self {
            by: claim.key.clone(),
            leaving: claim.leaving,
        }
    }
}
