//! Follows the files of `--tls-dir`: the last good content of each Secret that pools refer to.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use node_api::{Keys, NodeConfig, Pool, PoolRef, Secret, TicketKeys};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::files::Directory;
use crate::{
    agent::{chain, event::Event, state_dir},
    tls,
};

/// How often the files are looked at. A change counts once two looks have seen the same: a certificate
/// and its key are two files, and are not replaced at one moment.
const LOOK: Duration = Duration::from_secs(1);
/// Where the last good content is kept.
const SAVED: &str = "keys.json";

/// What a look has found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::agent) struct Found {
    /// The last good content.
    pub(in crate::agent) keys: Keys,
    /// Why the newest content of a Secret is not in use, or why there is none.
    pub(in crate::agent) problems: BTreeMap<String, String>,
    /// What else is wrong, each a sentence.
    pub(in crate::agent) warnings: Vec<String>,
}

/// The files, as the tasks share them that look.
#[derive(Clone, Debug)]
pub(in crate::agent) struct KeyFiles(Arc<Mutex<Files>>);

impl KeyFiles {
    /// Those of `directory`; of a start before, what was kept in `place`.
    pub(in crate::agent) fn open(directory: Option<&Path>, place: PathBuf) -> Self {
        let kept = load(&place);
        Self(Arc::new(Mutex::new(Files {
            directory: directory.map(|path| Directory(path.to_owned())),
            kept: kept.clone(),
            place,
            good: kept.secrets,
            good_tickets: kept.tickets.into_iter().next().map(|(_, keys)| keys),
            ..Files::default()
        })))
    }

    /// Where the file is that this keeps the last good content in.
    pub(in crate::agent) const SAVED: &'static str = SAVED;

    /// Looks for what the pools refer to from now on.
    pub(in crate::agent) fn want(&self, config: &NodeConfig) -> Found {
        self.with(|files| files.want(config))
    }

    /// The same, and tells of it: before whoever else looks.
    pub(in crate::agent) fn tell(&self, config: &NodeConfig, events: &mpsc::Sender<Event>) {
        self.with(|files| {
            let found = files.want(config);
            drop(events.blocking_send(Event::Keys(Box::new(found))));
        });
    }

    fn look(&self, events: &mpsc::Sender<Event>) {
        self.with(|files| {
            if let Some(found) = files.look() {
                drop(events.blocking_send(Event::Keys(Box::new(found))));
            }
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Files) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Looks again and again; ends when the agent does.
pub(in crate::agent) async fn look(files: KeyFiles, events: mpsc::Sender<Event>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let (files, events) = (files.clone(), events.clone());
        if let Err(error) = spawn_blocking(move || files.look(&events)).await {
            tracing::error!(%error, "cannot look at the certificates");
        }
    }
}

/// What is in the files, good or not.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Content {
    secrets: BTreeMap<String, Result<Secret, String>>,
    tickets: Result<Option<TicketKeys>, String>,
}

#[derive(Debug, Default)]
struct Files {
    directory: Option<Directory>,
    /// Where the last good content is kept.
    place: PathBuf,
    kept: Keys,
    /// What pools refer to.
    names: BTreeSet<String>,
    /// Pools whose clients may get tickets.
    pools: Vec<PoolRef>,
    good: BTreeMap<String, Secret>,
    good_tickets: Option<TicketKeys>,
    /// As it was judged last.
    judged: Option<Content>,
    /// As the last look found it, where that was something else.
    candidate: Option<Content>,
}

impl Files {
    fn want(&mut self, config: &NodeConfig) -> Found {
        let pools = config.pools.values();
        self.names = pools.flat_map(Pool::secrets).map(str::to_owned).collect();
        let pools = config.pools.iter().filter(|(_, pool)| pool.has_tickets());
        self.pools = pools.map(|(name, _)| name.clone()).collect();
        let content = self.read();
        self.judge(content)
    }

    fn look(&mut self) -> Option<Found> {
        if self.names.is_empty() {
            return None;
        }
        let content = self.read();
        if self.judged.as_ref() == Some(&content) {
            self.candidate = None;
        } else if self.candidate.as_ref() == Some(&content) {
            return Some(self.judge(content));
        } else {
            self.candidate = Some(content);
        }
        None
    }

    fn read(&self) -> Content {
        let secret = |name: &String| {
            let directory = self.directory.as_ref();
            let directory = directory.ok_or("is needed; start `run` with --tls-dir")?;
            let secret = directory.secret(name).map_err(|error| error.to_string())?;
            if secret == Secret::default() {
                let place = directory.of(name);
                return Err(format!(
                    "is not there; put tls.crt and tls.key, or ca.crt, into {}",
                    place.display()
                ));
            }
            Ok(secret)
        };
        let secrets = self.names.iter();
        let directory = self.directory.as_ref().filter(|_| !self.pools.is_empty());
        let tickets = directory.map_or(Ok(None), Directory::tickets);
        Content {
            secrets: secrets.map(|name| (name.clone(), secret(name))).collect(),
            tickets: tickets.map_err(|error| error.to_string()),
        }
    }

    fn judge(&mut self, content: Content) -> Found {
        self.good.retain(|name, _| self.names.contains(name));
        let mut found = Found::default();
        for (name, secret) in &content.secrets {
            let checked = secret.as_ref().map_err(Clone::clone);
            let checked = checked.and_then(|secret| {
                tls::check(name, secret).map_err(|error| error.to_string())?;
                Ok(secret.clone())
            });
            match checked {
                Ok(secret) => {
                    self.good.insert(name.clone(), secret);
                }
                Err(why) => {
                    found.problems.insert(name.clone(), why);
                }
            }
        }
        let tickets = content.tickets.clone().and_then(|keys| {
            let checked = keys.as_ref().map_or(Ok(()), tls::check_tickets);
            checked.map_err(|error| format!("ticket.keys {error}"))?;
            Ok(keys)
        });
        match tickets {
            Ok(keys) => self.good_tickets = keys,
            Err(why) => found.warnings.push(format!(
                "{why}; meanwhile keys of session tickets are those of before"
            )),
        }
        self.judged = Some(content);
        self.candidate = None;
        let tickets = self.good_tickets.as_ref();
        let of_pool = |pool: &PoolRef| Some((pool.clone(), tickets?.clone()));
        found.keys = Keys {
            secrets: self.good.clone(),
            tickets: self.pools.iter().filter_map(of_pool).collect(),
        };
        found.warnings.extend(self.keep(&found.keys));
        found
    }

    /// Keeps what is good; the sentence tells what is not well with that.
    fn keep(&mut self, keys: &Keys) -> Option<String> {
        if self.kept == *keys {
            return None;
        }
        let text = serde_json::to_vec(keys).map_err(std::io::Error::from);
        match state_dir::replace(&self.place, SAVED, text) {
            Ok(()) => {
                self.kept = keys.clone();
                None
            }
            Err(error) => Some(format!(
                "the keys in use are not kept: {}; a start without the files of --tls-dir would be \
                 without them",
                chain(&error)
            )),
        }
    }
}

fn load(place: &Path) -> Keys {
    let path = place.join(SAVED);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!(%error, "cannot read {}", path.display());
            }
            return Keys::default();
        }
    };
    // The error would quote what it found.
    let mut keys: Keys = serde_json::from_slice(&text).unwrap_or_else(|_| {
        tracing::warn!(
            "{} is damaged; the files of --tls-dir replace it",
            path.display()
        );
        Keys::default()
    });
    keys.secrets
        .retain(|name, secret| tls::check(name, secret).is_ok());
    keys.tickets
        .retain(|(_, tickets)| tls::check_tickets(tickets).is_ok());
    keys
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use node_api::{ListenerTls, TlsVersion};

    use super::*;
    use crate::{
        agent::desired::tests::config, sys::temporary::Directory as Temporary,
        tls::samples::Identity,
    };

    const NAME: &str = "default/chat-tls";

    fn wanted() -> NodeConfig {
        let mut config = config(&["10.0.0.1"], &[443]);
        let pool = config.pools.values_mut().next().unwrap();
        pool.listeners[0].tls = Some(ListenerTls {
            certificates: vec![NAME.to_owned()],
            minimum_version: TlsVersion::V12,
            http2: node_api::Http2::default(),
        });
        config
    }

    fn open(temporary: &Temporary) -> KeyFiles {
        let place = temporary.path().join("run");
        fs::create_dir_all(&place).unwrap();
        KeyFiles::open(Some(&temporary.path().join("tls")), place)
    }

    fn write(temporary: &Temporary, name: &str, text: &str) {
        let path = temporary.path().join("tls").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// What two looks find, of which the first one may have seen half.
    fn look(files: &KeyFiles) -> Found {
        assert_eq!(files.with(Files::look), None);
        files.with(Files::look).unwrap()
    }

    #[test]
    fn the_last_good_content_stays_and_is_kept() {
        let temporary = Temporary::new();
        let files = open(&temporary);
        let found = files.want(&wanted());
        assert!(found.problems[NAME].contains("is not there; put tls.crt"));
        assert!(found.keys.is_empty());
        assert_eq!(files.with(Files::look), None, "nothing has changed");

        let (one, other) = (Identity::new("chat.example"), Identity::new("chat.example"));
        write(&temporary, "default/chat-tls/tls.crt", &one.certificate);
        write(&temporary, "default/chat-tls/tls.key", &one.key);
        let good = look(&files);
        assert!(good.problems.is_empty() && good.warnings.is_empty());
        assert_eq!(good.keys.secrets[NAME].key.as_ref(), Some(&one.key));
        assert_eq!(good.keys.tickets, []);
        assert_eq!(files.with(Files::look), None, "nothing has changed");

        // Half of a change is not judged if the other half comes in time.
        write(&temporary, "default/chat-tls/tls.key", &other.key);
        assert_eq!(files.with(Files::look), None);
        write(&temporary, "default/chat-tls/tls.crt", &other.certificate);
        let good = look(&files);
        assert_eq!(good.keys.secrets[NAME].key.as_ref(), Some(&other.key));

        write(&temporary, "default/chat-tls/tls.key", &one.key);
        write(&temporary, "ticket.keys", "short");
        let bad = look(&files);
        assert!(bad.problems[NAME].contains("does not belong"));
        assert!(bad.warnings[0].contains("ticket.keys"));
        assert_eq!(bad.keys, good.keys);

        let ticket = format!("{}=", "A".repeat(43));
        write(&temporary, "ticket.keys", &ticket);
        let kept = look(&files);
        assert_eq!(kept.keys.tickets[0].1.0, [ticket]);

        fs::remove_dir_all(temporary.path().join("tls")).unwrap();
        let again = open(&temporary).want(&wanted());
        assert_eq!(again.keys, kept.keys);
        assert!(again.problems[NAME].contains("is not there"));

        // What nobody refers to any more is forgotten.
        let none = files.want(&config(&["10.0.0.1"], &[80]));
        assert!(none.keys.is_empty());
        let text = fs::read_to_string(temporary.path().join("run/keys.json")).unwrap();
        assert!(!text.contains("PRIVATE"), "{text}");
    }
}
