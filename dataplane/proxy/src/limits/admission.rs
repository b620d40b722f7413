//! Who may begin a session, and when.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{Limit, Limits, Rate, Ticket, Turns};

/// What is known of a pool's sessions as a whole, over all workers and successive configurations.
///
/// Sessions are counted whether they are limited or not, so that a limit which is set later counts
/// those that are there.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    counts: Mutex<Counts>,
    turns: Arc<Turns>,
    hits: [AtomicU64; Limit::ALL.len()],
    hash: RandomState,
}

#[derive(Debug, Default)]
struct Counts {
    sessions: u32,
    /// Connections that have yet to say what they ask for, where that costs much.
    arriving: u32,
    /// Both, by a hash, with a key of our own, of what they have in common.
    alike: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
}

impl Counts {
    fn of(&self, key: u64) -> u32 {
        self.alike.get(&key).copied().unwrap_or(0)
    }

    fn add(&mut self, keys: impl IntoIterator<Item = u64>) {
        for key in keys {
            *self.alike.entry(key).or_default() += 1;
        }
    }

    fn remove(&mut self, keys: impl IntoIterator<Item = u64>) {
        for key in keys {
            if let Some(count) = self.alike.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.alike.remove(&key);
                }
            }
        }
        // After a storm the table would stay as large as it was at its height.
        if self.alike.capacity() > 4 * self.alike.len() + 64 {
            self.alike.shrink_to_fit();
        }
    }
}

/// What is hashed already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A connection on its way to its request, among those that are counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Arriving {
    admission: Arc<Admission>,
    source: Option<u64>,
}

/// One session among those that are counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    source: u64,
    origin: Option<u64>,
}

impl Admission {
    /// Whether there would be a place for a client if it asked for one now, those on their way counted.
    /// No place is taken, since who comes so far has not even asked. Its address is given where it is
    /// known before it asks. A limit that is hit is not counted as such.
    pub(crate) fn arrive(
        self: &Arc<Self>,
        limits: &Limits,
        client: Option<IpAddr>,
    ) -> Result<Arriving, Limit> {
        let source = client.map(|client| self.hash.hash_one(source(client)));
        let mut counts = self.counts();
        if source.is_some_and(|key| is_full(limits.sessions_per_source, counts.of(key))) {
            return Err(Limit::SessionsPerSource);
        }
        if is_full(limits.sessions, counts.sessions + counts.arriving) {
            return Err(Limit::Sessions);
        }
        counts.arriving += 1;
        counts.add(source);
        Ok(Arriving {
            admission: Arc::clone(self),
            source,
        })
    }

    /// A place for a client, if there is one.
    pub(crate) fn enter(
        self: &Arc<Self>,
        limits: &Limits,
        client: IpAddr,
        origin: Option<&[u8]>,
    ) -> Result<Place, Limit> {
        let source = self.hash.hash_one(source(client));
        let origin = origin.map(|origin| self.hash.hash_one(origin.to_ascii_lowercase()));
        let mut counts = self.counts();
        // A source's own limit first: it is told what it can change.
        let hit = if is_full(limits.sessions_per_source, counts.of(source)) {
            Some(Limit::SessionsPerSource)
        } else if origin.is_some_and(|key| is_full(limits.sessions_per_origin, counts.of(key))) {
            Some(Limit::SessionsPerOrigin)
        } else if is_full(limits.sessions, counts.sessions) {
            Some(Limit::Sessions)
        } else {
            None
        };
        if let Some(limit) = hit {
            self.hit(limit);
            return Err(limit);
        }
        counts.sessions += 1;
        counts.add(std::iter::once(source).chain(origin));
        Ok(Place {
            admission: Arc::clone(self),
            source,
            origin,
        })
    }

    /// A place in the queue of handshakes, where there is one, for one that waits for `patience` at most.
    /// A limit that is hit is not counted as such.
    pub(crate) fn queue(
        &self,
        limits: &Limits,
        patience: Duration,
    ) -> Result<Option<Ticket>, Limit> {
        let Some(per_second) = limits.handshakes_per_second else {
            return Ok(None);
        };
        let rate = Rate::of_handshakes(per_second);
        let ticket = self.turns.enter(rate, patience, Instant::now());
        ticket.map(Some).ok_or(Limit::HandshakesPerSecond)
    }

    /// Somebody ran into a limit.
    pub(crate) fn hit(&self, limit: Limit) {
        self.hits[limit as usize].fetch_add(1, Relaxed);
    }

    /// How often that was.
    pub(crate) fn hits(&self, limit: Limit) -> u64 {
        self.hits[limit as usize].load(Relaxed)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.sessions -= 1;
        counts.remove(std::iter::once(self.source).chain(self.origin));
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let mut counts = self.admission.counts();
        counts.arriving -= 1;
        counts.remove(self.source);
    }
}

fn is_full(most: Option<u32>, count: u32) -> bool {
    most.is_some_and(|most| count >= most)
}

/// By what clients count as one: a host has all addresses of its /64 (RFC 4291 section 2.5.4, RFC
/// 7421), and may use each of them.
fn source(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(address) => address.to_bits().into(),
        // No prefix in use is that small, so the families do not meet: RFC 4291 section 2.4.
        IpAddr::V6(address) => u64::try_from(address.to_bits() >> 64).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_is_an_address_or_the_first_half_of_one() {
        let admission = Arc::new(Admission::default());
        let limits = Limits {
            sessions_per_source: Some(1),
            ..Limits::default()
        };
        let mut places = Vec::new();
        let mut enter = |client| {
            let place = admission.enter(&limits, ip(client), None);
            place.map(|place| places.push(place)).err()
        };
        for (client, is_new) in [
            ("192.0.2.1", true),
            ("192.0.2.2", true),
            ("::ffff:192.0.2.1", false),
            ("2001:db8::1", true),
            ("2001:db8::ffff:0:0:1", false),
            ("2001:db8:0:1::1", true),
        ] {
            let hit = (!is_new).then_some(Limit::SessionsPerSource);
            assert_eq!(enter(client), hit, "{client}");
        }
        places.clear();
        assert!(admission.counts().alike.is_empty());
        assert_eq!(admission.counts().sessions, 0);
        assert_eq!(admission.hits(Limit::SessionsPerSource), 2);
    }

    #[test]
    fn a_limit_counts_those_that_came_before_it_was_set() {
        let admission = Arc::new(Admission::default());
        let enter = |limits: &Limits, client, origin: Option<&str>| {
            admission.enter(limits, ip(client), origin.map(str::as_bytes))
        };
        let page = "https://chat.example.com";
        let first = enter(&Limits::default(), "192.0.2.1", Some(page)).unwrap();
        let limits = Limits {
            sessions: Some(3),
            sessions_per_source: Some(2),
            sessions_per_origin: Some(1),
            ..Limits::default()
        };
        let hit = enter(&limits, "192.0.2.2", Some("HTTPS://chat.example.com"));
        assert_eq!(hit.err(), Some(Limit::SessionsPerOrigin));
        let second = enter(&limits, "192.0.2.1", None).unwrap();
        let hit = enter(&limits, "192.0.2.1", None);
        assert_eq!(hit.err(), Some(Limit::SessionsPerSource));
        let third = enter(&limits, "192.0.2.2", Some("https://other.example")).unwrap();
        assert_eq!(
            enter(&limits, "192.0.2.3", None).err(),
            Some(Limit::Sessions)
        );
        drop((first, second));
        enter(&limits, "192.0.2.1", Some(page)).unwrap();
        drop(third);
    }

    #[test]
    fn who_is_on_the_way_counts_for_those_behind_and_not_for_those_that_ask() {
        let admission = Arc::new(Admission::default());
        let limits = Limits {
            sessions: Some(2),
            sessions_per_source: Some(1),
            ..Limits::default()
        };
        let arrive = |client| admission.arrive(&limits, client);
        let first = arrive(Some(ip("192.0.2.1"))).unwrap();
        let hit = arrive(Some(ip("192.0.2.1"))).err();
        assert_eq!(hit, Some(Limit::SessionsPerSource));
        let unknown = arrive(None).unwrap();
        assert_eq!(arrive(Some(ip("192.0.2.2"))).err(), Some(Limit::Sessions));
        // Two that ask, though two others dawdle.
        let enter = |client| admission.enter(&limits, ip(client), None);
        let places = [enter("192.0.2.3").unwrap(), enter("192.0.2.4").unwrap()];
        drop((first, unknown));
        assert_eq!(arrive(None).err(), Some(Limit::Sessions));
        drop(places);
        let counts = admission.counts();
        assert!(counts.alike.is_empty() && counts.arriving == 0 && counts.sessions == 0);
    }
}
