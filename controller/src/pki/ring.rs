//! Which authority is in force, and which one follows: pure, but for the making of keys.
//!
//! ```text
//! current --2/3 of its life are over--> current, next --every node trusts next--> current (was next), former
//!                                                     --or its life ends-------->        |
//! current <------------------------------ every replica serves by it ------------------- +
//! ```
//! The bundle that nodes trust carries all of them. A node that cannot say what it trusts is waited for
//! until the current authority's life ends.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use super::authority::{Authority, seconds};

/// How long things are good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lives {
    /// An authority.
    pub authority: Duration,
    /// A serving certificate.
    pub certificate: Duration,
}

impl Lives {
    /// How often it is looked whether anything is due.
    pub fn look(self) -> Duration {
        let shorter = self.authority.min(self.certificate);
        (shorter / 30).clamp(Duration::from_secs(1), Duration::from_secs(30))
    }

    /// How long every replica may take to serve by a new authority, and a bundle to come to a node.
    fn spread(self) -> Duration {
        (self.authority / 60)
            .min(Duration::from_mins(5))
            .max(self.look() * 2)
    }

    /// When the next one is made, and when it is used whoever trusts it.
    fn next_is_due(self) -> Duration {
        self.authority * 2 / 3
    }

    fn last_moment(self) -> Duration {
        self.authority * 11 / 12
    }
}

/// The authorities of an installation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ring {
    /// Signs serving certificates.
    pub current: Authority,
    /// Will.
    pub next: Option<Authority>,
    /// Did, until the current one took its place: certificate, and when that was.
    pub former: Option<(String, u64)>,
}

impl Ring {
    /// The first one.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn new(now: SystemTime, lives: Lives) -> Result<Self, Box<dyn Error + Send + Sync>> {
        Ok(Self {
            current: Authority::generate(now, lives.authority)?,
            next: None,
            former: None,
        })
    }

    /// What nodes trust.
    pub fn bundle(&self) -> String {
        let mut bundle = self.current.certificate().to_owned();
        for certificate in self.next.iter().map(Authority::certificate) {
            bundle.push_str(certificate);
        }
        if let Some((certificate, _)) = &self.former {
            bundle.push_str(certificate);
        }
        bundle
    }

    /// What it is to be now; `None`: as it is. `trusts` says whether every node trusts the authority of a
    /// fingerprint.
    ///
    /// # Errors
    /// If there is no randomness.
    pub fn turn(
        &self,
        now: SystemTime,
        lives: Lives,
        trusts: impl Fn(&str) -> bool,
    ) -> Result<Option<Self>, Box<dyn Error + Send + Sync>> {
        let age = self.current.age(now);
        if let Some(next) = &self.next {
            let is_spread = next.age(now) >= lives.spread();
            let is_trusted = next.fingerprint().is_some_and(|it| trusts(&it));
            if (is_spread && is_trusted) || age >= lives.last_moment() {
                let former = self.current.certificate().to_owned();
                return Ok(Some(Self {
                    current: next.clone(),
                    next: None,
                    former: Some((former, seconds(now))),
                }));
            }
        } else if age >= lives.next_is_due() {
            return Ok(Some(Self {
                next: Some(Authority::generate(now, lives.authority)?),
                ..self.clone()
            }));
        }
        if let Some((_, since)) = &self.former {
            let over = seconds(now).saturating_sub(*since);
            if Duration::from_secs(over) >= lives.spread() {
                return Ok(Some(Self {
                    former: None,
                    ..self.clone()
                }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVES: Lives = Lives {
        authority: Duration::from_hours(1200),
        certificate: Duration::from_hours(24),
    };

    fn turn(ring: &Ring, now: SystemTime, trusted: Option<&Authority>) -> Option<Ring> {
        let trusted = trusted.and_then(Authority::fingerprint);
        ring.turn(now, LIVES, |it| trusted.as_deref() == Some(it))
            .unwrap()
    }

    #[test]
    fn the_next_one_serves_once_every_node_trusts_it() {
        let begun = SystemTime::now();
        let at = |hours| begun + Duration::from_hours(hours);
        let first = Ring::new(begun, LIVES).unwrap();
        assert_eq!(turn(&first, at(799), None), None);
        let staged = turn(&first, at(800), None).unwrap();
        assert_eq!(staged.current, first.current);
        let next = staged.next.clone().unwrap();
        assert!(staged.bundle().contains(next.certificate()));
        assert!(staged.bundle().contains(first.current.certificate()));

        assert_eq!(
            turn(&staged, at(810), None),
            None,
            "a node does not trust it"
        );
        assert_eq!(turn(&staged, at(810), Some(&first.current)), None);
        assert_eq!(
            turn(&staged, at(800), Some(&next)),
            None,
            "not all may have been asked"
        );
        let changed = turn(&staged, at(810), Some(&next)).unwrap();
        assert_eq!(changed.current, next);
        assert!(
            changed.bundle().contains(first.current.certificate()),
            "replicas follow"
        );
        let done = turn(&changed, at(811), None).unwrap();
        assert_eq!(done.bundle(), next.certificate());
        assert_eq!(turn(&done, at(1599), None), None);
        assert!(turn(&done, at(1601), None).unwrap().next.is_some());
    }

    #[test]
    fn no_node_keeps_an_authority_beyond_its_life() {
        let begun = SystemTime::now();
        let at = |hours| begun + Duration::from_hours(hours);
        let first = Ring::new(begun, LIVES).unwrap();
        let staged = turn(&first, at(800), None).unwrap();
        assert_eq!(turn(&staged, at(1099), None), None);
        let changed = turn(&staged, at(1100), None).unwrap();
        assert_eq!(Some(changed.current), staged.next);
    }
}
