//! What the gateways' processes have without sessions: nothing may be left over.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::vitals::{all, name};
use crate::cost;
use crate::testing::Cluster;
use crate::wait;

/// Bound against hangs for the last descriptors to go.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long memory may take to go back: that is done once sessions have been gone for a while.
const GIVES_BACK: Duration = Duration::from_secs(10);

/// What a process may keep beyond what it had: what is made once and used again, and free pieces among others.
const KEPT: u64 = 4 << 20;

/// Of each process, before the first session and after the last.
pub(super) type BeforeAndAfter<T> = BTreeMap<String, [T; 2]>;

/// What each process has.
#[derive(Debug)]
pub(super) struct Resting {
    descriptors: BTreeMap<String, usize>,
    /// Its own, in bytes: pages of code that ran for the first time are no memory of sessions.
    memory: BTreeMap<String, u64>,
}

impl Resting {
    pub(super) fn look(cluster: &Cluster) -> Result<Self> {
        let (mut descriptors, mut memory) = (BTreeMap::new(), BTreeMap::new());
        for (gateway, part) in all() {
            let pid = cluster.pid(gateway, part)?;
            let open = fs::read_dir(format!("/proc/{pid}/fd"));
            let open = open.with_context(|| format!("cannot see the descriptors of {pid}"))?;
            descriptors.insert(name(gateway, part), open.count());
            memory.insert(name(gateway, part), cost::anonymous(&[pid])?);
        }
        Ok(Self {
            descriptors,
            memory,
        })
    }

    /// Waits until no process has more descriptors than it had, or much more memory; what stays the tables show.
    pub(super) fn compare(
        self,
        cluster: &Cluster,
    ) -> Result<(BeforeAndAfter<usize>, BeforeAndAfter<u64>)> {
        let mut now = Self::look(cluster)?;
        let settled = wait::until("descriptors to be closed", PATIENCE, || {
            now = Self::look(cluster)?;
            let mut open = now.descriptors.iter();
            let is_back = open.all(|(process, open)| Some(open) <= self.descriptors.get(process));
            Ok(is_back.then_some(()))
        });
        drop(settled);
        let settled = wait::until("memory to be given back", GIVES_BACK, || {
            now = Self::look(cluster)?;
            let mut memory = now.memory.iter();
            let is_back = memory.all(|(process, bytes)| {
                let before = self.memory.get(process);
                before.is_none_or(|before| *bytes <= before + KEPT)
            });
            Ok(is_back.then_some(()))
        });
        drop(settled);
        Ok((
            both(&self.descriptors, now.descriptors),
            both(&self.memory, now.memory),
        ))
    }
}

fn both<T: Copy + Default>(
    before: &BTreeMap<String, T>,
    after: BTreeMap<String, T>,
) -> BeforeAndAfter<T> {
    let both = after.into_iter().map(|(process, after)| {
        let before = before.get(&process).copied().unwrap_or_default();
        (process, [before, after])
    });
    both.collect()
}
