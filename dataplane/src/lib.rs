//! The data plane of a gateway host: three processes of one program (DESIGN, section 3).
//!
//! * [`agent`] reads the configuration, supervises the other two, answers `status` and metrics.
//! * [`vrrp`] owns the virtual addresses: state machines, kernel leases, announcements.
//! * [`proxy`] faces the clients, without any capability.
//!
//! They meet over [`ipc`] and the pages of [`sys::pages`]; only [`sys`] talks to the kernel by number.

pub mod agent;
pub mod cli;
pub mod doctor;
pub mod ipc;
pub mod logging;
pub mod metrics;
pub mod proxy;
pub mod restart;
pub mod sys;
pub mod tls;
pub mod vrrp;
