//! The controller: plans all `WebSocketHAPool` objects of a cluster and pushes to each gateway node
//! what it is to do.
//!
//! ```text
//! watch --Snapshot--> desired --what is committed, for each node--> publish --> stream
//!                        |
//!                        +--> plan() --> commit (lease holder: writes status) --> watch reads it back
//! reports, acks ----------------------> status (lease holder)
//! Secrets --tls::Keyring--> desired
//! ```
//!
//! [`snapshot`], [`desired`], [`commit`] and [`status`] are pure: values in, values out, no clock.
#![forbid(unsafe_code)]

pub mod admin;
pub mod app;
pub mod args;
pub mod check;
pub mod commit;
pub mod desired;
pub mod failure;
pub mod lead;
pub mod leader;
mod peers;
pub mod pki;
pub mod plan_command;
pub mod policy;
pub mod publish;
pub mod recompute;
pub mod registry;
pub mod retire;
pub mod retire_command;
pub mod snapshot;
pub mod status;
pub mod tls;
mod wait;
pub mod watch;
pub mod write;

/// Lease of the replica that writes.
pub const LEASE: &str = "wsha-controller";

/// ConfigMap of the [`snapshot::Ledger`].
pub const LEDGER: &str = "wsha-ledger";

/// A client of the API server that the environment names.
///
/// # Errors
/// If it names none.
pub async fn client() -> Result<kube::Client, failure::Failure> {
    let client = kube::Client::try_default().await;
    client.map_err(|error| {
        failure::Failure::new(
            "no way to an API server: give KUBECONFIG, or run as a pod",
            error,
        )
    })
}
