//! What an edit does to live sessions, and to those that come meanwhile.
//!
//! In a lab, with the article's servers and each proxy on server1: so wsha runs as it does on hosts, with its agent,
//! and takes the edit from its files.

mod certificates;
mod stage;

use std::fmt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use self::stage::Stage;
use super::peer::Peer;
use crate::cost;
use crate::testing::Session;

/// Bound against hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is edited.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// A fourth server is added.
    Server,
    /// The certificate is replaced by another one of the same authority; sessions are of TLS.
    Certificate,
}

impl Edit {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Server, Self::Certificate];
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "a server is added",
            Self::Certificate => "the certificate is replaced",
        })
    }
}

/// What the edit did.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// Whose.
    pub peer: Peer,
    /// Which.
    pub edit: Edit,
    /// Sessions that were live.
    pub live: usize,
    /// Those that answered afterwards, nothing having come in between.
    pub kept: usize,
    /// Sessions opened from the edit on.
    pub opened: usize,
    /// Attempts that failed.
    pub failed: usize,
    /// From the edit to the end of the first session of the new server, or of the first one from which on all are
    /// shown the new certificate, in milliseconds.
    pub in_use_ms: f64,
    /// Processes that face the clients, before and after.
    pub processes: (usize, usize),
    /// Their memory, in bytes.
    pub memory: (u64, u64),
}

impl Changed {
    /// Whether no client and no other process could notice: all sessions kept, none refused, no process more, and at
    /// most a tenth of memory.
    pub fn is_unnoticed(&self) -> bool {
        self.kept == self.live
            && self.failed == 0
            && self.processes.0 == self.processes.1
            && self.memory.1 * 10 <= self.memory.0 * 11
    }
}

/// Edits the configuration of `peer` while `live` sessions are open, and opens others for `watched` at least from
/// then on. `wsha` is the program of that name.
pub fn measure(
    peer: Peer,
    edit: Edit,
    live: usize,
    watched: Duration,
    wsha: &Path,
) -> Result<Changed> {
    let mut stage = Stage::start(peer, edit, wsha)?;
    let mut sessions = stage.open_many(live)?;
    sessions
        .iter_mut()
        .try_for_each(|session| session.say("before").map(drop))?;
    let before = stage.processes();
    let memory = cost::proportional(&before)?;

    stage.edit()?;
    let edited = Instant::now();
    let (mut opened, mut failed, mut in_use) = (0, 0, None);
    while edited.elapsed() < watched || in_use.is_none() {
        ensure!(
            edited.elapsed() < PATIENCE,
            "{peer}: {edit}, which no new session was told"
        );
        match stage.open().and_then(|session| stage.is_told(session)) {
            Ok(is_told) => {
                opened += 1;
                if is_told {
                    in_use.get_or_insert_with(|| edited.elapsed());
                } else if edit == Edit::Certificate {
                    in_use = None;
                }
            }
            Err(_) => failed += 1,
        }
        // Not so many at once that ports or servers become what is measured.
        thread::sleep(Duration::from_millis(1));
    }
    let answers = |session: &mut Session| {
        session.undisturbed()?;
        session.say("after")
    };
    let kept = sessions
        .iter_mut()
        .filter_map(|session| answers(session).ok())
        .count();
    let after = stage.processes();
    Ok(Changed {
        peer,
        edit,
        live,
        kept,
        opened,
        failed,
        in_use_ms: in_use.unwrap_or_default().as_secs_f64() * 1e3,
        processes: (before.len(), after.len()),
        memory: (memory, cost::proportional(&after)?),
    })
}
