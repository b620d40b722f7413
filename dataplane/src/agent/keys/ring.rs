//! The key material in use, as the agent's loop sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use node_api::{Keys, NodeConfig, Secret};

use super::{
    Found,
    fit::{Fitted, Fitting},
};
use crate::{
    metrics::{Metric, Sample},
    tls,
};

/// A certificate that ends sooner is warned of; those who renew them by themselves do it weeks before.
const SOON: i64 = 7 * DAY;
const DAY: i64 = 24 * 60 * 60;

/// What there is, what is wrong with it, and what is served with it.
#[derive(Debug)]
pub(in crate::agent) struct Keyring {
    /// As it was found last; empty where a controller tells it, with the configuration.
    found: Found,
    /// What to do about a Secret that is not there.
    remedy: &'static str,
    fitting: Fitting,
    closed: BTreeMap<SocketAddr, String>,
    warnings: Vec<String>,
    /// Certificates in use, with what they are read from, and when they end.
    ends: BTreeMap<String, (Secret, Option<i64>)>,
}

impl Keyring {
    /// Of a host that has files.
    pub(in crate::agent) fn of_files(found: Found) -> Self {
        Self::new(
            found,
            "put tls.crt and tls.key of a listener, or ca.crt of an upstream, into its directory in \
             --tls-dir",
        )
    }

    /// Of a node that follows a controller.
    pub(in crate::agent) fn of_controller() -> Self {
        Self::new(
            Found::default(),
            "the controller has not told it to this node; see the pool's conditions",
        )
    }

    fn new(found: Found, remedy: &'static str) -> Self {
        let mut ring = Self {
            found: Found::default(),
            remedy,
            fitting: Fitting::default(),
            closed: BTreeMap::new(),
            warnings: Vec::new(),
            ends: BTreeMap::new(),
        };
        ring.renew(found);
        ring
    }

    /// What was found in the files now.
    pub(in crate::agent) fn renew(&mut self, found: Found) {
        for (name, why) in &found.problems {
            if self.found.problems.get(name) != Some(why) {
                tracing::error!("Secret {name} {why}");
            }
        }
        for warning in &found.warnings {
            if !self.found.warnings.contains(warning) {
                tracing::error!("{warning}");
            }
        }
        self.found = found;
    }

    /// What was found in the files last.
    pub(in crate::agent) fn keys(&self) -> &Keys {
        &self.found.keys
    }

    /// Leaves of `wanted` what can be served with its keys.
    pub(in crate::agent) fn fit(&mut self, wanted: &NodeConfig) -> NodeConfig {
        let (problems, remedy) = (&self.found.problems, self.remedy);
        let Fitted {
            config,
            closed,
            warnings,
        } = self.fitting.fit(wanted, |name| why(problems, remedy, name));
        let known: BTreeSet<_> = self
            .closed
            .values()
            .chain(&self.warnings)
            .cloned()
            .collect();
        for sentence in closed.values().chain(&warnings) {
            if !known.contains(sentence) {
                tracing::error!("{sentence}");
            }
        }
        self.closed = closed;
        self.warnings = warnings;
        self.read_ends(&config.keys);
        config
    }

    fn read_ends(&mut self, keys: &Keys) {
        self.ends.retain(|name, _| keys.secrets.contains_key(name));
        for (name, secret) in &keys.secrets {
            if self.ends.get(name).is_none_or(|(known, _)| known != secret) {
                let known = (secret.clone(), tls::not_after(secret));
                self.ends.insert(name.clone(), known);
            }
        }
    }

    /// Listeners that are not opened for want of a certificate, each with a sentence.
    pub(in crate::agent) fn closed(&self) -> &BTreeMap<SocketAddr, String> {
        &self.closed
    }

    /// What an administrator should look at.
    pub(in crate::agent) fn warnings(&self, now_unix_ms: u64) -> Vec<String> {
        let now = i64::try_from(now_unix_ms / 1000).unwrap_or(i64::MAX);
        let in_use = |name: &String| self.ends.contains_key(name);
        let problems = self.found.problems.iter();
        // Of one that is not in use, those speak that lack it.
        let problems = problems.filter(|(name, _)| in_use(name));
        let problems = problems.map(|(name, why)| {
            format!(
                "the newest content of Secret {name} is not in use, that of before is: it {why}"
            )
        });
        let ends = self.ends.iter().filter_map(|(name, (_, end))| {
            let left = (*end)?.saturating_sub(now);
            ending(name, left)
        });
        problems
            .chain(self.found.warnings.iter().cloned())
            .chain(self.warnings.iter().cloned())
            .chain(ends)
            .collect()
    }

    /// When certificates end.
    pub(in crate::agent) fn samples(&self) -> impl Iterator<Item = Sample> {
        self.ends.iter().filter_map(|(name, (_, end))| {
            let end = u64::try_from((*end)?).unwrap_or_default();
            let labels = [("secret", name.as_str())];
            Some(Sample::new(Metric::CertificateNotAfter, &labels, end))
        })
    }
}

fn why(problems: &BTreeMap<String, String>, remedy: &str, name: &str) -> String {
    match problems.get(name) {
        Some(why) => format!("Secret {name} {why}"),
        None => format!("Secret {name} does not hold what is needed; {remedy}"),
    }
}

/// What to say of a certificate that ends in so many seconds.
fn ending(name: &str, left: i64) -> Option<String> {
    let of = format!("the certificate of Secret {name}");
    match left {
        ..=0 => Some(format!("{of} has ended, and clients refuse it; renew it")),
        1..DAY => Some(format!("{of} ends in less than a day; renew it")),
        DAY..SOON => {
            let days = left / DAY + 1;
            Some(format!("{of} ends in less than {days} days; renew it"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_end_soon_are_told_of() {
        for (left, words) in [
            (-1, Some("has ended")),
            (0, Some("has ended")),
            (1, Some("less than a day")),
            (DAY - 1, Some("less than a day")),
            (DAY, Some("less than 2 days")),
            (SOON - 1, Some("less than 7 days")),
            (SOON, None),
        ] {
            let said = ending("default/chat", left);
            match (words, &said) {
                (Some(words), Some(said)) => assert!(said.contains(words), "{left}: {said}"),
                (None, None) => {}
                _ => panic!("{left}: {said:?}"),
            }
        }
    }
}
