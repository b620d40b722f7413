//! A virtual router shared with other implementations: each must understand the other, in both roles.

mod frr;
mod group;
mod keepalived;
mod multicast;
mod peer;
mod roles;
mod unicast;
mod vmac;
