//! The planner: objects in, assignments and upstream lists out.
//!
//! [`plan()`] is a pure function of its [`Inputs`]: no I/O, no clock, no randomness, and the order in
//! which objects are given does not matter. The controller and the data plane on plain hosts both
//! call it; neither has rules of its own about who owns an address.
//!
//! ```text
//! files --manifests::parse--> Objects --Inputs::plain_hosts--> Inputs --plan--> Plan --node_config--> NodeConfig
//! ```
//!
//! It has two halves: [`Outliner`] decides what is served, [`Placer`] where. Each keeps what it made, and
//! makes again only what other inputs make otherwise; the result is that of [`plan()`].
#![forbid(unsafe_code)]

mod admission;
mod assign;
mod draft;
mod endpoints;
mod inputs;
pub mod manifests;
mod membership;
pub mod model;
mod network;
mod node;
mod outline;
mod peers;
mod place;
mod planner;
mod policy;
mod priorities;
mod problem;
mod reserved;
mod resolve;
mod shared;
mod vrid;
mod zones;

pub use inputs::{
    Committed, CommittedRouter, Inputs, InterfaceFacts, NodeFacts, Objects, Retirement,
};
pub use manifests::Refusal;
pub use node::{UnknownNode, node_config};
pub use node_api::stream::HeardRouter;
pub use outline::{Outline, Outliner};
pub use place::Placer;
pub use planner::{Plan, plan};
pub use policy::{AddressRange, AddressRangeError, Cluster, Grant, Policy};
pub use priorities::ranked_nodes;
pub use problem::{Problem, Reason};
pub use shared::Shared;
