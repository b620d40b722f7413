//! Certificates and keys of pools with TLS: where they come from, what can be served with them, and when
//! they end.
//!
//! A controller tells them ([`node_api::Secret`] is a resource); on plain hosts they are files
//! (`--tls-dir`), followed by [`files`]. Either way what is bad is refused where it arrives, and the last
//! good one stays. What is good is kept in the run directory, so that an agent starts without its source.

mod files;
mod fit;
mod follow;
mod ring;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(super) use self::{
    follow::{Found, KeyFiles, look},
    ring::Keyring,
};
use crate::cli::RunArgs;

/// Where key material is kept over restarts: in memory, unless the disk is asked for. Removes `name` from
/// the other place, where an agent with other arguments may have left it.
pub(super) fn place(args: &RunArgs, state_dir: &Path, run_dir: &Path, name: &str) -> PathBuf {
    let (place, other) = if args.keys_on_disk {
        (state_dir, run_dir)
    } else {
        (run_dir, state_dir)
    };
    match fs::remove_file(other.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let other = other.display();
            tracing::error!(%error, "cannot remove {name} from {other}, which may hold private keys");
        }
        _ => {}
    }
    place.to_owned()
}
