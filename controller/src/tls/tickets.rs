//! Keys that session tickets are sealed with (RFC 5077 section 4), the same for all gateways of a pool, so
//! that a client whose address has moved resumes its TLS session.
//!
//! Three at a time: the previous, the current and the next one. Every gateway opens with all of them and
//! seals with the current one. A key is told a whole life before it seals, and a whole life after: gateways
//! that are one change apart open each other's tickets, and no gateway sees one sealed by a key that it was
//! not told.
//!
//! What is kept are not the keys of pools but what these are derived from (HKDF, RFC 5869): it does not grow
//! with the pools, and one that was just made has its keys at once.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    error::Unspecified,
    hkdf::{HKDF_SHA256, Prk},
    rand,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use node_api::{PoolRef, TicketKeys};

/// How long a key seals. Tickets are good for that long at least, and for twice that at most.
const LIFE: Duration = Duration::from_hours(12);

/// Tells what is derived here from all else that may ever be.
const PURPOSE: &[u8] = b"wsha session ticket key 1\0";

const LENGTH: usize = 32;
const PREVIOUS: &str = "previous";
const CURRENT: &str = "current";
const NEXT: &str = "next";
const SINCE: &str = "since";

type Key = [u8; LENGTH];

/// What the keys of all pools are derived from.
#[derive(Clone, Eq, PartialEq)]
pub struct Ring {
    previous: Option<Key>,
    current: Key,
    next: Key,
    /// Since when the current one seals, seconds since the Unix epoch.
    since: u64,
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    /// A new one.
    ///
    /// # Errors
    /// If the kernel gives no random numbers.
    pub fn new(now: SystemTime) -> Result<Self, Unspecified> {
        Ok(Self {
            previous: None,
            current: random()?,
            next: random()?,
            since: seconds(now),
        })
    }

    /// The one that follows, if it is time: by one step, however late it is, since nobody was told of more.
    ///
    /// # Errors
    /// If the kernel gives no random numbers.
    pub fn turn(&self, now: SystemTime) -> Result<Option<Self>, Unspecified> {
        // A clock that was far ahead must not stop the keys for as long.
        if seconds(now).abs_diff(self.since) < LIFE.as_secs() {
            return Ok(None);
        }
        Ok(Some(Self {
            previous: Some(self.current),
            current: self.next,
            next: random()?,
            since: seconds(now),
        }))
    }

    /// The keys of a pool, as its nodes are told them: the one that seals first.
    pub fn keys_of(&self, pool: &PoolRef) -> TicketKeys {
        let keys = [
            Some(&self.current),
            Some(&self.next),
            self.previous.as_ref(),
        ];
        let keys = keys.into_iter().flatten();
        // A length that HKDF cannot give is the only error.
        TicketKeys(keys.filter_map(|key| derive(key, pool)).collect())
    }

    /// The ring in a Secret; `None`: there is none, or it is not whole, and another one can be made.
    pub fn read(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let key = |name: &str| -> Option<Key> {
            let ByteString(bytes) = data.get(name)?;
            Key::try_from(&**bytes).ok()
        };
        let ByteString(since) = data.get(SINCE)?;
        Some(Self {
            previous: key(PREVIOUS),
            current: key(CURRENT)?,
            next: key(NEXT)?,
            since: std::str::from_utf8(since).ok()?.parse().ok()?,
        })
    }

    /// `data` of the Secret. Each key is there, so that none is left of what it had before.
    pub(super) fn data(&self) -> BTreeMap<String, ByteString> {
        let previous = self.previous.map_or_else(Vec::new, |key| key.to_vec());
        let data = [
            (PREVIOUS, previous),
            (CURRENT, self.current.to_vec()),
            (NEXT, self.next.to_vec()),
            (SINCE, self.since.to_string().into_bytes()),
        ];
        let data = data.into_iter();
        data.map(|(key, bytes)| (key.to_owned(), ByteString(bytes)))
            .collect()
    }
}

fn derive(from: &Key, pool: &PoolRef) -> Option<String> {
    let prk = Prk::new_less_safe(HKDF_SHA256, from);
    let name = pool.to_string();
    let info = [PURPOSE, name.as_bytes()];
    let mut key = Key::default();
    prk.expand(&info, HKDF_SHA256).ok()?.fill(&mut key).ok()?;
    Some(STANDARD.encode(key))
}

fn random() -> Result<Key, Unspecified> {
    let mut key = Key::default();
    rand::fill(&mut key)?;
    Ok(key)
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> PoolRef {
        PoolRef {
            namespace: "default".to_owned(),
            name: name.to_owned(),
        }
    }

    fn secret(ring: &Ring) -> Secret {
        Secret {
            data: Some(ring.data()),
            ..Secret::default()
        }
    }

    #[test]
    fn gateways_one_change_apart_open_each_other_s_tickets() {
        let mut now = SystemTime::now();
        let mut older = Ring::new(now).unwrap();
        let mut seals = Vec::new();
        for _ in 0..5 {
            assert_eq!(older.turn(now + LIFE / 2).unwrap(), None);
            // Far too late, and one step all the same.
            now += LIFE * 7;
            let newer = older.turn(now).unwrap().unwrap();
            let keys = |ring: &Ring| ring.keys_of(&pool("chat")).0;
            let (before, after) = (keys(&older), keys(&newer));
            assert!(before.contains(&after[0]), "told before it seals");
            assert!(after.contains(&before[0]), "told after it has sealed");
            assert_eq!(after.len(), 3);
            seals.push(after[0].clone());
            older = newer;
        }
        let count = seals.len();
        seals.sort();
        seals.dedup();
        assert_eq!(seals.len(), count, "no key seals twice");
    }

    #[test]
    fn a_clock_that_was_ahead_stops_no_keys() {
        let now = SystemTime::now();
        let ahead = Ring::new(now + LIFE * 100).unwrap();
        assert!(ahead.turn(now).unwrap().is_some());
    }

    #[test]
    fn pools_have_keys_of_their_own_and_the_same_ones_everywhere() {
        let ring = Ring::new(SystemTime::now()).unwrap();
        let read = Ring::read(&secret(&ring)).unwrap();
        assert_eq!(read, ring);
        let keys = ring.keys_of(&pool("chat")).0;
        assert_eq!(read.keys_of(&pool("chat")).0, keys);
        let others = ring.keys_of(&pool("other")).0;
        assert!(others.iter().all(|key| !keys.contains(key)));
        for key in keys.iter().chain(&others) {
            assert_eq!(STANDARD.decode(key).unwrap().len(), LENGTH);
        }
        let turned = ring.turn(SystemTime::now() + LIFE).unwrap().unwrap();
        assert_eq!(Ring::read(&secret(&turned)), Some(turned));
    }

    /// Or tickets would end with an update. The key is HMAC-SHA-256 of the information and 1 (RFC 5869
    /// section 2.3), as computed by Python's `hmac`.
    #[test]
    fn derived_keys_are_the_same_in_every_release() {
        let key = derive(&[1; LENGTH], &pool("chat")).unwrap();
        assert_eq!(key, "MTVgLkMsnnYqVk7BnMM3XYBGIzumVvhEjfw6aDmFfNA=");
    }

    #[test]
    fn half_a_ring_is_none() {
        let whole = secret(&Ring::new(SystemTime::now()).unwrap());
        for key in [CURRENT, NEXT, SINCE] {
            let mut secret = whole.clone();
            secret.data.as_mut().unwrap().remove(key);
            assert_eq!(Ring::read(&secret), None, "{key}");
        }
        assert_eq!(Ring::read(&Secret::default()), None);
    }

    #[test]
    fn keys_do_not_show() {
        let ring = Ring::new(SystemTime::now()).unwrap();
        assert_eq!(format!("{ring:?}"), "Ring { .. }");
    }
}
