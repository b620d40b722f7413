//! A real Kubernetes control plane of one pinned release, started and ended with the test.
//!
//! [`tools`] finds its programs or builds them, [`ControlPlane`] runs them: etcd and the API server on
//! loopback ports of their own, or in a [`Host`](crate::lab::Host) of a lab, where the other hosts reach them.

mod controlplane;
mod kubectl;
mod pki;
mod site;
pub mod tools;

pub use self::controlplane::{ControlPlane, Settings};
pub use self::kubectl::Answer;
pub use self::pki::{Authority, Purpose, Signed};
pub use self::site::Site;
pub use self::tools::{Program, Programs};
