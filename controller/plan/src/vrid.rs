//! VRIDs: unique per segment and family, and stable.
//!
//! In order: the user's; the committed one; the last byte of the address; the next free one of the
//! policy's range. What is taken is taken by whoever committed it first, then by the user's word,
//! then in the order of creation and names; who comes later is refused, or goes on to the next
//! possibility where nobody named the VRID.

use std::{net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;
use node_api::PoolRef;

use crate::{Inputs, Retirement};

/// A network on which VRIDs must differ.
#[derive(Clone, Copy, Debug)]
struct Segment {
    ipv6: bool,
    /// `None`: unknown, then it may be any of its family.
    prefix: Option<IpNet>,
}

impl Segment {
    /// The widest on-link prefix that any node reports for `address`.
    fn of(address: IpAddr, inputs: &Inputs) -> Self {
        let facts = inputs.facts.values().flat_map(|facts| &facts.interfaces);
        let prefixes = facts.flat_map(|interface| &interface.prefixes);
        Self {
            ipv6: address.is_ipv6(),
            prefix: prefixes
                .filter(|prefix| prefix.contains(&address))
                .map(IpNet::trunc)
                .min_by_key(IpNet::prefix_len),
        }
    }

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
    virtual_router_id: u8,
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
    claims: Vec<Claim>,
}

impl<'a> Claims<'a> {
    /// What is committed, and what is not yet given up.
    pub(crate) fn new(inputs: &'a Inputs, retirements: &[Retirement]) -> Self {
        let committed = inputs.committed.routers.iter().map(|(key, router)| Claim {
            segment: Segment::of(key.1, inputs),
            virtual_router_id: router.virtual_router_id,
            key: key.clone(),
            leaving: false,
        });
        let leaving = retirements.iter().map(|retirement| Claim {
            segment: Segment::of(retirement.address, inputs),
            virtual_router_id: retirement.virtual_router_id,
            key: (retirement.pool.clone(), retirement.address),
            leaving: true,
        });
        Self {
            inputs,
            claims: committed.chain(leaving).collect(),
        }
    }

    /// Claims a VRID that somebody named.
    pub(crate) fn claim(&mut self, key: &Key, virtual_router_id: u8) -> Result<(), Taken> {
        if let Some(taken) = self.taken(key, virtual_router_id) {
            return Err(taken);
        }
        self.insert(key, virtual_router_id);
        Ok(())
    }

    /// Takes the last byte of the address, where nobody named a VRID. The error tells who has it;
    /// `None`: it is 0 or heard.
    pub(crate) fn last_byte(&mut self, key: &Key) -> Result<u8, Option<Taken>> {
        let last = match key.1 {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(v6) => v6.octets()[15],
        };
        let chosen = self.choose(key, last..=last);
        chosen.ok_or_else(|| self.taken(key, last))
    }

    /// Takes the next free VRID of the policy's range.
    pub(crate) fn next_free(&mut self, key: &Key) -> Option<u8> {
        self.choose(key, self.inputs.policy.virtual_router_ids.clone()?)
    }

    fn choose(&mut self, key: &Key, mut range: RangeInclusive<u8>) -> Option<u8> {
        let free = range.find(|&candidate| {
            candidate != 0 && self.taken(key, candidate).is_none() && !self.heard(key.1, candidate)
        })?;
        self.insert(key, free);
        Some(free)
    }

    /// Who else has the VRID on the segment of `key`. A router that is leaving may return to its
    /// own pool and address at once.
    fn taken(&self, key: &Key, virtual_router_id: u8) -> Option<Taken> {
        let segment = Segment::of(key.1, self.inputs);
        let mut others = self.claims.iter().filter(|claim| {
            claim.virtual_router_id == virtual_router_id
                && claim.key != *key
                && claim.segment.overlaps(segment)
        });
        others.next().map(|claim| Taken {
            by: claim.key.clone(),
            leaving: claim.leaving,
        })
    }

    /// Whether a router that is none of ours was heard with the VRID where the address lies. A
    /// user may name such a VRID, to share a group with keepalived; the planner never does.
    fn heard(&self, address: IpAddr, virtual_router_id: u8) -> bool {
        let facts = self
            .inputs
            .facts
            .values()
            .flat_map(|facts| &facts.interfaces);
        facts.into_iter().any(|interface| {
            interface
                .foreign_virtual_router_ids
                .contains(&virtual_router_id)
                && interface
                    .prefixes
                    .iter()
                    .any(|prefix| prefix.contains(&address))
        })
    }

    fn insert(&mut self, key: &Key, virtual_router_id: u8) {
        // What was committed for the router before counts on: nodes may still have it.
        self.claims.push(Claim {
            segment: Segment::of(key.1, self.inputs),
            virtual_router_id,
            key: key.clone(),
            leaving: false,
        });
    }
}
