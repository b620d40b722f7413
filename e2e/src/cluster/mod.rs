//! A real Kubernetes of one pinned release, started and ended with the test.
//!
//! [`tools`] finds its programs or builds them. [`ControlPlane`] runs etcd and the API server on loopback
//! ports of their own, or in a [`Host`](crate::lab::Host) of a lab, where the other hosts reach it.
//! [`local::Local`] is a control plane with nodes: hosts of a lab with containerd, a kubelet and kube-proxy.
//! [`Provider`] chooses it or a cluster that runs elsewhere, as the environment says.

mod controlplane;
mod dns;
mod kubectl;
pub mod local;
mod node;
mod pki;
mod provider;
mod remote;
mod site;
pub mod tools;

pub use self::controlplane::{ControlPlane, Settings};
pub use self::kubectl::{Answer, Console};
pub use self::local::Local;
pub use self::node::Node;
pub use self::pki::{Authority, Purpose, Signed};
pub use self::provider::{Cluster, Provider};
pub use self::remote::Remote;
pub use self::site::Site;
pub use self::tools::{Program, Programs};
