//! Asks the endpoints of upstreams that want it, each in a task of its own beside the sessions.
//!
//! One worker does it for all. Gateways that learn of an endpoint together do not ask it together: each
//! begins after a time of its own, and no two rounds take the same.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{HealthCheck, checked, condition, probe};
use crate::{
    balance::{SharedState, locked},
    endpoint::Endpoint,
    live::{Shared, State},
    proxy_protocol,
    tls::ClientTls,
};

/// Questions under way at once; further ones wait.
const AT_ONCE: usize = 64;

/// The latest that an endpoint is asked for the first time, counted from when it is listed.
const FIRST: Duration = Duration::from_secs(1);

/// All that are asked.
#[derive(Debug)]
pub(crate) struct Watches {
    running: BTreeMap<(String, String, SocketAddr), Running>,
    under_way: Rc<Semaphore>,
    random: RandomState,
}

impl Default for Watches {
    fn default() -> Self {
        Self {
            running: BTreeMap::new(),
            under_way: Rc::new(Semaphore::new(AT_ONCE)),
            random: RandomState::new(),
        }
    }
}

/// One that is asked.
#[derive(Debug)]
struct Running {
    endpoint: Arc<Endpoint>,
    wanted: Wanted,
    task: AbortHandle,
}

#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    check: HealthCheck,
    header: Option<proxy_protocol::Version>,
    tls: Option<ClientTls>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watches {
    /// Asks what `state` wants asked, and nothing else.
    pub(crate) fn follow(&mut self, state: &State, shared: &Arc<Shared>) {
        let mut former = std::mem::take(&mut self.running);
        let pools = state.pools.iter();
        let upstreams =
            pools.flat_map(|(name, pool)| pool.upstreams.iter().map(move |it| (name, it)));
        for (pool, upstream) in upstreams {
            let Some(check) = &upstream.health.check else {
                continue;
            };
            for endpoint in &upstream.endpoints {
                let wanted = Wanted {
                    check: check.clone(),
                    header: upstream.proxy_protocol,
                    tls: endpoint.tls(),
                };
                let key = (pool.clone(), upstream.name.clone(), endpoint.address);
                let running = former.remove(&key);
                let same =
                    running.filter(|it| it.wanted == wanted && Arc::ptr_eq(&it.endpoint, endpoint));
                let running = same.unwrap_or_else(|| {
                    // Until the new question is answered the old answer stands.
                    endpoint.condition.doubt();
                    Running {
                        endpoint: Arc::clone(endpoint),
                        wanted: wanted.clone(),
                        task: self.start(endpoint, &wanted, &upstream.turn, shared),
                    }
                });
                self.running.insert(key, running);
            }
        }
        if former.is_empty() {
            return;
        }
        // One that an upstream of another name has now is still asked.
        let asked = self.running.values().map(|it| Arc::as_ptr(&it.endpoint));
        let asked: HashSet<_> = asked.collect();
        for Running { endpoint, .. } in former.values() {
            if !asked.contains(&Arc::as_ptr(endpoint)) {
                condition::unchecked(endpoint, shared);
            }
        }
    }

    fn start(
        &self,
        endpoint: &Arc<Endpoint>,
        wanted: &Wanted,
        turn: &Arc<Mutex<SharedState>>,
        shared: &Arc<Shared>,
    ) -> AbortHandle {
        let asked = Asked {
            endpoint: Arc::clone(endpoint),
            wanted: wanted.clone(),
            turn: Arc::clone(turn),
            shared: Arc::clone(shared),
            under_way: Rc::clone(&self.under_way),
            random: self.random.clone(),
        };
        tokio::task::spawn_local(asked.run()).abort_handle()
    }
}

/// An endpoint as its task knows it.
struct Asked {
    endpoint: Arc<Endpoint>,
    wanted: Wanted,
    turn: Arc<Mutex<SharedState>>,
    shared: Arc<Shared>,
    under_way: Rc<Semaphore>,
    random: RandomState,
}

impl Asked {
    /// Asks until it is aborted.
    async fn run(self) {
        let Wanted { check, header, tls } = &self.wanted;
        let mut next = Instant::now() + self.part(check.interval.min(FIRST), 0);
        for round in 1_u64.. {
            sleep_until(next).await;
            let begun = Instant::now();
            let Ok(permit) = self.under_way.acquire().await else {
                return; // nobody closes it
            };
            let answer = probe::ask(self.endpoint.address, check, *header, tls.clone()).await;
            drop(permit);
            if let Some(answer) = answer {
                self.count(answer.is_ok());
                checked(&self.endpoint, answer, check, &self.shared);
            }
            // Between nine and eleven tenths.
            next = begun + check.interval * 9 / 10 + self.part(check.interval / 5, round);
        }
    }

    fn count(&self, has_passed: bool) {
        let counts = &mut locked(&self.turn).counts;
        if has_passed {
            counts.checks_passed += 1;
        } else {
            counts.checks_failed += 1;
        }
    }

    /// A part of `whole` by chance.
    fn part(&self, whole: Duration, round: u64) -> Duration {
        let chance = self.random.hash_one((self.endpoint.address, round)) & 0xffff;
        whole * u32::try_from(chance).unwrap_or(0) / 0x1_0000
    }
}
