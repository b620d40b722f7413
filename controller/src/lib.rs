//! The controller: plans all `WebSocketHAPool` objects of a cluster and pushes to each gateway node
//! what it is to do.
//!
//! ```text
//! watch --Snapshot--> desired --plan()--> commit (lease holder: writes status) --> watch reads it back
//!                        |                                                              |
//!                        +-- what is committed, for each node --> publish --> stream <--+
//! reports, acks -------------------------------------------------------> status (lease holder)
//! ```
//!
//! [`snapshot`], [`desired`], [`commit`] and [`status`] are pure: values in, values out, no clock.
#![forbid(unsafe_code)]

pub mod commit;
pub mod desired;
pub mod snapshot;
pub mod status;
