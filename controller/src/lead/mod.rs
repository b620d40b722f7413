//! What the lease holder does about what was computed: commits, status, events, the end.

mod echoes;
mod memory;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crds::{WebSocketHAPool, WebSocketHAPoolStatus};
use futures_util::future::join_all;
use k8s_openapi::jiff::Timestamp;
use node_api::PoolRef;
use tokio::sync::watch;

use self::{echoes::Echoes, memory::Memory};
use crate::{
    commit,
    desired::Desired,
    failure::Failure,
    recompute::{Computed, Published},
    registry::Registry,
    retire,
    snapshot::{Ledger, Snapshot},
    status,
    wait::{at, settled},
    write::Writer,
};

/// What was not possible is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);
/// A pass writes no longer than this; then it looks again.
const PASS: Duration = Duration::from_secs(2);

/// Statuses are written so many at a time: the API server answers one in some ten milliseconds.
const AT_ONCE: usize = 8;
/// After a pass nothing that is merely observed is looked at for so many times as long as the pass took, so
/// that streams and commits come first; but for no longer than [`LONGEST_REST`].
const REST: u32 = 4;
/// The longest that what was observed waits.
const LONGEST_REST: Duration = Duration::from_millis(500);

/// The lease holder's work.
#[derive(Debug)]
pub struct Lead {
    /// What nodes are told.
    pub published: watch::Receiver<Option<Arc<Published>>>,
    /// What was planned.
    pub computed: watch::Receiver<Option<Computed>>,
    /// What nodes say.
    pub registry: Arc<Registry>,
    /// Whether this replica may write.
    pub leads: watch::Receiver<bool>,
    /// Writes.
    pub writer: Writer,
}

/// What a pass works on.
struct Work {
    /// What was read when it was planned, and what nodes say now.
    snapshot: Snapshot,
    /// What was planned, and what nodes are told now.
    desired: Desired,
    /// What was published when it was planned: the networks in it are those that it was planned with.
    planned: Arc<Published>,
    /// What nodes are told now.
    published: Arc<Published>,
}

/// A status to be written.
struct Write<'a> {
    pool: &'a WebSocketHAPool,
    name: PoolRef,
    status: WebSocketHAPoolStatus,
}

impl Lead {
    /// Works for ever.
    pub async fn run(mut self) -> Failure {
        let mut said = self.registry.said();
        let mut memory = Memory::begin(Instant::now());
        loop {
            let leads = *self.leads.borrow_and_update();
            let computed = self.computed.borrow_and_update().clone();
            let again = match computed {
                Some(computed) => self.turn(leads, computed, &mut memory).await,
                None => None,
            };
            tokio::select! {
                () = settled(&mut said) => {}
                changed = self.computed.changed() => if changed.is_err() {
                    return Failure::plain("the computation has ended");
                },
                _ = self.leads.changed() => {}
                () = at(again) => {}
            }
        }
    }

    /// Says when to look again although nothing has changed.
    async fn turn(
        &mut self,
        leads: bool,
        computed: Computed,
        memory: &mut Memory,
    ) -> Option<Instant> {
        let seen = memory
            .seen
            .replace((Arc::clone(&computed.published), leads));
        let before = seen.filter(|(_, led)| *led == leads).map(|(seen, _)| seen);
        let is_rested = Instant::now() >= memory.rested;
        if !leads {
            let is_seen = |before: &Arc<Published>| Arc::ptr_eq(before, &computed.published);
            if !before.as_ref().is_some_and(is_seen) {
                memory.is_recorded = false;
                memory.echoes = Echoes::default();
                memory.learn(&computed.published.snapshot, leads);
            }
            return None;
        }
        // What nodes say calls for no haste, nor do endpoints: they are not committed.
        let outline = &computed.published.told.outline;
        let is_news = !before.is_some_and(|before| before.told.outline.is_settled_as(outline));
        if !is_news && !is_rested {
            return Some(memory.rested);
        }
        // Before what is told: what nodes answer is an answer to what they were told then or earlier.
        let views = self.registry.views();
        let published = self.published.borrow().clone()?;
        let work = Work {
            snapshot: Snapshot {
                views,
                ..(*computed.published.snapshot).clone()
            },
            desired: Desired {
                plan: computed.plan,
                nodes: published.told.nodes.clone(),
                sequence: computed.published.told.sequence,
            },
            planned: computed.published,
            published,
        };
        memory.is_recorded = false;
        let begun = Instant::now();
        let again = self.pass(&work, is_rested, memory).await;
        memory.learn(&work.snapshot, leads);
        if is_rested {
            let took = begun.elapsed();
            memory.rested = Instant::now() + LONGEST_REST.min(took * REST);
        }
        again
    }

    /// Writes what there is to write; what is merely observed only if this `observes`. Says when to look again
    /// although nothing has changed.
    async fn pass(&mut self, work: &Work, observes: bool, memory: &mut Memory) -> Option<Instant> {
        let snapshot = &work.snapshot;
        // What was written and is not read back yet would be written once more, under a new number.
        if memory
            .echoes
            .are_missing(snapshot, &work.published.snapshot)
        {
            return Some(Instant::now() + AGAIN);
        }
        if let Some(request) = &work.published.retire {
            return self.retire(work, request, memory).await;
        }
        if snapshot.ledger.epoch.is_empty() {
            return self
                .name_epoch(snapshot, memory, |ledger| &mut ledger.epoch)
                .await;
        }
        // Each of many nodes that come one by one would move addresses of those before it.
        if !memory.have_met(work) {
            return Some(Instant::now() + AGAIN);
        }
        match self.is_restored(snapshot, memory).await {
            Ok(false) => {}
            Ok(true) => {
                return self
                    .name_epoch(snapshot, memory, |ledger| &mut ledger.next_epoch)
                    .await;
            }
            Err(failure) => {
                failure.warn("cannot see whether nodes know more; it is tried again");
                return Some(Instant::now() + AGAIN);
            }
        }
        let commit = commit::commit(snapshot, &work.desired, &memory.known);
        if let Some(ledger) = &commit.ledger
            && let Some(again) = self.ledger(ledger, memory).await
        {
            return Some(again);
        }
        memory.is_recorded = true;
        let are_back = memory.are_back(work);
        let mut again = (!are_back).then(|| Instant::now() + AGAIN);
        let now = Timestamp::now();
        // What nodes wait for comes first.
        let mut writes = Vec::new();
        for pool in &snapshot.pools {
            let name = plan::model::pool_ref(pool);
            if let Some(committed) = commit.pools.get(&name) {
                let status = status::status(pool, committed, snapshot, &work.desired, now);
                writes.push(Write { pool, name, status });
            }
        }
        if let Some(again) = self.write(&writes, memory).await {
            return Some(again);
        }
        if !observes {
            return Some(again.map_or(memory.rested, |at| at.min(memory.rested)));
        }
        writes.clear();
        for pool in &snapshot.pools {
            let name = plan::model::pool_ref(pool);
            let is_written = commit.pools.contains_key(&name);
            if is_written || (!are_back && pool.status.is_some()) {
                continue;
            }
            let committed = commit::committed_part(pool);
            let status = status::status(pool, &committed, snapshot, &work.desired, now);
            let before = pool.status.as_ref();
            if before == Some(&status) {
                continue;
            }
            if before.is_some_and(|before| !status::differs_beyond_counters(&status, before))
                && let Some(due) = memory.not_before(&name)
            {
                again = Some(again.map_or(due, |at| at.min(due)));
                continue;
            }
            writes.push(Write { pool, name, status });
        }
        self.write(&writes, memory).await.or(again)
    }

    /// Writes statuses, some at a time. Says when to look again, if that was not all.
    async fn write(&self, writes: &[Write<'_>], memory: &mut Memory) -> Option<Instant> {
        let begun = Instant::now();
        for some in writes.chunks(AT_ONCE) {
            if !*self.leads.borrow() || begun.elapsed() >= PASS {
                return Some(Instant::now());
            }
            // Before the calls: whether they were taken may never be known.
            for Write { pool, status, .. } in some {
                let known = commit::known_pool(pool, &status.virtual_ips);
                memory.known.insert(commit::uid(pool), known);
            }
            let mut have_failed = false;
            let done = join_all(some.iter().map(|write| self.write_one(write))).await;
            for (write, done) in some.iter().zip(done) {
                match done {
                    Ok(version) => {
                        memory.counters.insert(write.name.clone(), Instant::now());
                        memory.echoes.pool(write.name.clone(), version);
                    }
                    Err(failure) => {
                        failure.warn("cannot write a status; it is tried again");
                        have_failed = true;
                    }
                }
            }
            if have_failed {
                return Some(Instant::now() + AGAIN);
            }
        }
        None
    }

    async fn write_one(&self, write: &Write<'_>) -> Result<Option<String>, Failure> {
        let Write { pool, status, .. } = write;
        let version = self.writer.status(pool, status).await?;
        let none = WebSocketHAPoolStatus::default();
        let before = pool.status.as_ref().unwrap_or(&none);
        self.writer.tell(pool, before, status).await;
        Ok(version)
    }

    /// Whether somebody has read a higher sequence of this epoch than there is: that is so after an older
    /// state of the API server was restored.
    async fn is_restored(&self, snapshot: &Snapshot, memory: &mut Memory) -> Result<bool, Failure> {
        let read = memory.newest_sequence(snapshot);
        if read <= snapshot.sequence() || !snapshot.ledger.next_epoch.is_empty() {
            return Ok(false);
        }
        // What is watched may be late.
        let newest = self.writer.newest_ledger().await?;
        let is_older = newest.epoch == snapshot.ledger.epoch && newest.sequence < read;
        if is_older {
            tracing::warn!(
                known = read,
                found = newest.sequence,
                "what was committed is older than what nodes were told, as after a backup was restored; \
                 another epoch begins once all that is asked for is committed"
            );
        }
        Ok(is_older)
    }

    /// Gives an epoch of the ledger a name that none had before.
    async fn name_epoch(
        &self,
        snapshot: &Snapshot,
        memory: &mut Memory,
        epoch: impl FnOnce(&mut Ledger) -> &mut String,
    ) -> Option<Instant> {
        let mut bytes = [0; 16];
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        if provider.secure_random.fill(&mut bytes).is_err() {
            tracing::warn!("the kernel gives no random numbers; it is tried again");
            return Some(Instant::now() + AGAIN);
        }
        let mut ledger = snapshot.ledger.clone();
        *epoch(&mut ledger) = format!("{:032x}", u128::from_be_bytes(bytes));
        self.ledger(&ledger, memory).await
    }

    async fn ledger(&self, ledger: &Ledger, memory: &mut Memory) -> Option<Instant> {
        match self.writer.ledger(ledger).await {
            Ok(version) => {
                memory.echoes.ledger(version);
                None
            }
            Err(failure) => {
                failure.warn("cannot commit; it is tried again");
                Some(Instant::now() + AGAIN)
            }
        }
    }

    /// Records who has given up everything.
    async fn retire(&self, work: &Work, request: &str, memory: &mut Memory) -> Option<Instant> {
        let snapshot = &work.snapshot;
        // Where the object is gone, nobody looks any more.
        snapshot.ledger_version.as_ref()?;
        let progress = retire::progress(snapshot, &work.published.pod_nodes, request);
        let ledger = Ledger {
            retire: Some(progress),
            ..snapshot.ledger.clone()
        };
        if ledger == snapshot.ledger {
            return None;
        }
        self.ledger(&ledger, memory).await
    }
}
