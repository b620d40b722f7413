//! The pages that the processes share: plain atomics, written by one side, read by the others.

use std::{
    io,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use crate::sys::{
    clock,
    life::LifeMutex,
    memory::{Shareable, Shared},
};

/// Workers whose beats the page has room for. Those of further workers are not looked at.
pub const MOST_WORKERS: usize = 64;

/// One pairing of a vrrp with a proxy process. The agent makes a new page whenever either was
/// started anew, since a robust mutex serves one owner only.
#[repr(C)]
#[derive(Debug)]
pub struct PairPage {
    /// Held by the main thread of vrrp.
    pub vrrp_life: LifeMutex,
    /// Held by the main thread of the proxy.
    pub proxy_life: LifeMutex,
    /// The proxy's loops, begun before it says that it holds its mutex.
    pub beats: WorkerBeats,
}

// SAFETY: `repr(C)`, atomics and process-shared mutexes only, zero is valid.
unsafe impl Shareable for PairPage {}

impl PairPage {
    /// A new page, mutexes ready.
    pub fn create() -> io::Result<Shared<Self>> {
        let page = Shared::<Self>::create(c"wsha-pair")?;
        page.vrrp_life.init()?;
        page.proxy_life.init()?;
        Ok(page)
    }

    /// The oldest beat among the workers, nanoseconds of `CLOCK_MONOTONIC`; zero: none has begun.
    pub fn oldest_beat(&self) -> u64 {
        self.beats.oldest().unwrap_or(0)
    }
}

/// Signs of life of a proxy's workers. A page of its own where somebody else than the agent started it.
#[repr(C)]
#[derive(Debug)]
pub struct WorkerBeats {
    /// Number of workers; zero: none has begun.
    workers: AtomicU32,
    /// When each worker's loop last turned.
    beats: [Beat; MOST_WORKERS],
}

// SAFETY: `repr(C)`, atomics only, zero is valid.
unsafe impl Shareable for WorkerBeats {}

impl WorkerBeats {
    /// A new page, of nobody yet.
    pub fn create() -> io::Result<Shared<Self>> {
        Shared::create(c"wsha-beats")
    }

    /// Begins with so many workers. Each loop turned before it was started, or before this page came, or
    /// will be found hanging in time.
    pub fn begin(&self, workers: usize) {
        for worker in 0..workers {
            self.beat(worker);
        }
        let workers = u32::try_from(workers).unwrap_or(u32::MAX);
        self.workers.store(workers, Ordering::Release);
    }

    /// Of nobody again.
    pub fn end(&self) {
        self.workers.store(0, Ordering::Release);
    }

    /// Records that the loop of `worker` turned.
    pub fn beat(&self, worker: usize) {
        if let Some(beat) = self.beats.get(worker) {
            beat.beat();
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.load(Ordering::Acquire) as usize
    }

    /// The oldest beat, nanoseconds of `CLOCK_MONOTONIC`; `None`: nobody has begun.
    pub fn oldest(&self) -> Option<u64> {
        let beats = self.beats.iter().take(self.workers());
        beats.map(Beat::last).min()
    }
}

/// A sign that a loop turns.
#[repr(C)]
#[derive(Debug)]
pub struct Beat(AtomicU64);

impl Beat {
    /// Says: turned now.
    pub fn beat(&self) {
        self.0.store(clock::monotonic_ns(), Ordering::Release);
    }

    /// When it last turned, nanoseconds of `CLOCK_MONOTONIC`; zero: never.
    pub fn last(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Virtual routers that the table has room for: every VRID of one segment and family.
pub const MOST_ROUTERS: usize = 256;

/// What outlives a vrrp process: made by the agent, written by vrrp, read by the vrrp that follows.
#[repr(C)]
#[derive(Debug)]
pub struct RouterTable {
    /// When the state machines' thread last turned: the agent's sign that vrrp hangs.
    pub machine_beat: Beat,
    /// When the netlink thread last turned.
    pub netlink_beat: Beat,
    /// What is known of the proxy's deaths.
    pub deaths: DeathRecord,
    /// One row per virtual router, in no order.
    pub rows: [RouterRow; MOST_ROUTERS],
}

// SAFETY: `repr(C)`, atomics only, zero is valid.
unsafe impl Shareable for RouterTable {}

impl RouterTable {
    /// A new, empty table.
    pub fn create() -> io::Result<Shared<Self>> {
        Shared::create(c"wsha-routers")
    }

    /// The row of `key`, taken from the free ones if it has none yet; `None`: the table is full.
    pub fn row(&self, key: RouterKey) -> Option<&RouterRow> {
        let wanted = key.0;
        self.rows
            .iter()
            .find(|row| row.key.load(Ordering::Acquire) == wanted)
            .or_else(|| {
                self.rows.iter().find(|row| {
                    row.key
                        .compare_exchange(0, wanted, Ordering::AcqRel, Ordering::Acquire)
                        .is_ok()
                })
            })
    }
}

/// Deaths of the proxy, so that a vrrp that died along with it does not forget them.
#[repr(C)]
#[derive(Debug)]
pub struct DeathRecord {
    proxy: AtomicU64,
    count: AtomicU32,
    last: AtomicU64,
}

impl DeathRecord {
    /// Takes note of the proxy that vrrp is paired with, by [`LifeMutex::holder`]; returns the one
    /// before.
    pub fn paired(&self, proxy: u64) -> Option<u64> {
        Some(self.proxy.swap(proxy, Ordering::AcqRel)).filter(|before| *before != 0)
    }

    /// Records that there were `count` deaths in a row, the last one at `last` (nanoseconds,
    /// `CLOCK_MONOTONIC`).
    pub fn set(&self, count: u32, last: u64) {
        self.last.store(last, Ordering::Release);
        self.count.store(count, Ordering::Release);
    }

    /// What was recorded; `None`: no death.
    pub fn get(&self) -> Option<(u32, u64)> {
        let count = self.count.load(Ordering::Acquire);
        (count > 0).then(|| (count, self.last.load(Ordering::Acquire)))
    }
}

/// What names a virtual router on a host: interface index, family, VRID.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RouterKey(u64);

impl RouterKey {
    /// `family` is 4 or 6.
    pub fn new(interface_index: u32, family: u8, virtual_router_id: u8) -> Self {
        Self(
            u64::from(interface_index) << 16
                | u64::from(family) << 8
                | u64::from(virtual_router_id),
        )
    }
}

/// One virtual router's trace.
#[repr(C)]
#[derive(Debug)]
pub struct RouterRow {
    key: AtomicU64,
    last_advertisement: AtomicU64,
}

impl RouterRow {
    /// Records that an advertisement went out as Active at `at` (nanoseconds, `CLOCK_MONOTONIC`).
    pub fn advertised(&self, at: u64) {
        self.last_advertisement.store(at, Ordering::Release);
    }

    /// Records that the router is not Active: whoever follows starts as Backup.
    pub fn not_active(&self) {
        self.last_advertisement.store(0, Ordering::Release);
    }

    /// When it last advertised as Active; `None`: it was not Active.
    pub fn last_advertisement(&self) -> Option<u64> {
        Some(self.last_advertisement.load(Ordering::Acquire)).filter(|at| *at != 0)
    }

    /// Gives the row back.
    pub fn clear(&self) {
        self.not_active();
        self.key.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_found_again_and_its_place_is_given_back() {
        let table = RouterTable::create().unwrap();
        let key = RouterKey::new(2, 4, 51);
        table.row(key).unwrap().advertised(7);
        let again =
            Shared::<RouterTable>::from_fd(table.fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(again.row(key).unwrap().last_advertisement(), Some(7));
        assert_eq!(
            again
                .row(RouterKey::new(2, 6, 51))
                .unwrap()
                .last_advertisement(),
            None
        );
        again.row(key).unwrap().clear();
        assert_eq!(table.row(key).unwrap().last_advertisement(), None);
    }
}
