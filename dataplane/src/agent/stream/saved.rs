//! The state on disk: a node that starts while no controller answers serves as before.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use node_api::{
    Endpoint, Pool, Protocol, Secret, TicketKeys,
    stream::{ResourceName, Revision},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    assemble::State,
    content::{self, Content, Held, Resources},
};
use crate::{
    agent::state_dir::{self, SaveError, StateDir},
    ipc::HOLDER_SOCKET,
    sys::clock,
};

/// Form of the saved file: that of what a controller tells. A release reads its own and the one
/// before, and what a later one wrote that says so.
const FORMAT: u32 = Protocol::NEWEST.number();
/// The oldest form whose releases can start from what this one writes, and the oldest that this one
/// reads.
const OLDEST: u32 = Protocol::OLDEST.number();
/// In the state directory.
const STATE: &str = "state.json";
/// Key material.
pub(super) const SECRETS: &str = "secrets.json";

/// Where a node keeps its state.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The node.
    pub(super) node_name: String,
    /// Survives a reboot.
    pub(super) state_dir: StateDir,
    /// For key material: in memory, unless the disk was asked for.
    pub(super) keys_dir: PathBuf,
}

/// Why the saved state cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// Nothing was ever saved.
    #[error("{path} does not exist: no controller has told this node anything before")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is there and cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path} is damaged; the controller's state will replace it")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where it is damaged.
        #[source]
        source: serde_json::Error,
    },
    /// A release wrote it that is too far away.
    #[error(
        "{path} has form {found}, for releases that know form {oldest} or a later one, and this release \
         reads {OLDEST} to {FORMAT}; the controller's state will replace it"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: u32,
        /// The oldest form that a reader must know.
        oldest: u32,
    },
    /// It is another node's.
    #[error("{path} is that of node {found}; give each node a state directory of its own")]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// That node.
        found: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Format {
    format: u32,
    oldest_reader: u32,
}

impl Format {
    fn is_known(&self, newest: u32, oldest: u32) -> bool {
        self.format >= oldest && self.oldest_reader <= newest
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Loaded {
    version: String,
    node_name: String,
    sequence: i64,
    #[serde(default)]
    epoch: String,
    resources: Vec<LoadedResource>,
}

#[derive(Deserialize)]
struct LoadedResource {
    name: ResourceName,
    revision: Revision,
    body: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Saved<'a> {
    format: u32,
    oldest_reader: u32,
    version: &'a str,
    node_name: &'a str,
    sequence: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    epoch: &'a str,
    resources: Vec<SavedResource<'a>>,
}

#[derive(Serialize)]
struct SavedResource<'a> {
    name: &'a ResourceName,
    revision: &'a Revision,
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Pool(&'a Pool),
    Endpoints(&'a [Endpoint]),
    Secret(&'a Secret),
    TicketKeys(&'a TicketKeys),
}

impl Place {
    /// Keeps the state; after a crash at any moment either this one or the one before is found.
    pub(super) fn save(&self, state: &State) -> Result<(), SaveError> {
        let is_secret = |name: &ResourceName| {
            matches!(name, ResourceName::Secret(_) | ResourceName::TicketKeys(_))
        };
        let public = self.text(state, |name| !is_secret(name));
        self.state_dir.replace(STATE, public)?;
        if state.resources.keys().any(is_secret) || self.keys_dir.join(SECRETS).exists() {
            state_dir::replace(&self.keys_dir, SECRETS, self.text(state, is_secret))?;
        }
        Ok(())
    }

    fn text(&self, state: &State, wanted: impl Fn(&ResourceName) -> bool) -> io::Result<Vec<u8>> {
        let resources = state.resources.iter().filter(|(name, _)| wanted(name));
        let resources = resources.map(|(name, held)| SavedResource {
            name,
            revision: &held.revision,
            body: match &held.content {
                Content::Pool(pool) => Body::Pool(pool),
                Content::Endpoints(endpoints) => Body::Endpoints(endpoints),
                Content::Secret(secret) => Body::Secret(secret),
                Content::TicketKeys(keys) => Body::TicketKeys(keys),
            },
        });
        let text = serde_json::to_vec(&Saved {
            format: FORMAT,
            oldest_reader: OLDEST,
            version: env!("CARGO_PKG_VERSION"),
            node_name: &self.node_name,
            sequence: state.sequence,
            epoch: &state.epoch,
            resources: resources.collect(),
        });
        text.map_err(io::Error::from)
    }

    /// When the state was saved last, milliseconds since the Unix epoch.
    pub(super) fn saved_at_unix_ms(&self) -> io::Result<u64> {
        let file = fs::metadata(self.state_dir.path().join(STATE))?;
        file.modified().map(clock::unix_ms)
    }

    /// The state that was saved last, with the key material that is still there.
    pub(super) fn load(&self) -> Result<State, LoadError> {
        let mut state = self.read(&self.state_dir.path().join(STATE))?;
        match self.read(&self.keys_dir.join(SECRETS)) {
            Ok(secrets) => state.resources.extend(secrets.resources),
            Err(LoadError::Missing { .. }) => {}
            // The controller tells it again.
            Err(error) => tracing::warn!("{}", crate::agent::chain(&error)),
        }
        Ok(state)
    }

    fn read(&self, path: &Path) -> Result<State, LoadError> {
        let path = || path.to_owned();
        let text = match fs::read(path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LoadError::Missing { path: path() });
            }
            Err(source) => {
                let path = path();
                return Err(LoadError::Read { path, source });
            }
        };
        let corrupt = |source| LoadError::Corrupt {
            path: path(),
            source,
        };
        let form: Format = serde_json::from_slice(&text).map_err(corrupt)?;
        if !form.is_known(FORMAT, OLDEST) {
            return Err(LoadError::Format {
                path: path(),
                found: form.format,
                oldest: form.oldest_reader,
            });
        }
        let loaded: Loaded = serde_json::from_slice(&text).map_err(corrupt)?;
        if loaded.node_name != self.node_name {
            return Err(LoadError::OtherNode {
                path: path(),
                found: loaded.node_name,
            });
        }
        // Another release may have left out what it did not know: this one is told everything again.
        let is_ours = loaded.version == env!("CARGO_PKG_VERSION");
        let mut resources = Resources::new();
        for LoadedResource {
            name,
            revision,
            body,
        } in loaded.resources
        {
            match content::decode(&name, body) {
                Some(Ok(content)) => {
                    let revision = if is_ours {
                        revision
                    } else {
                        Revision(String::new())
                    };
                    resources.insert(name, Held { revision, content });
                }
                Some(Err(reason)) => tracing::error!("cannot go on with saved {name}: {reason}"),
                None => {}
            }
        }
        Ok(State {
            sequence: loaded.sequence,
            epoch: loaded.epoch,
            resources,
        })
    }

    /// Removes everything but the lock and its socket, which are this process's for as long as it runs.
    pub(super) fn erase(&self) -> io::Result<()> {
        match fs::remove_file(self.keys_dir.join(SECRETS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let entries = match fs::read_dir(self.state_dir.path()) {
            // Somebody removed all of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // Both say who holds the directory, and go with the process.
            if [state_dir::LOCK, HOLDER_SOCKET]
                .map(OsStr::new)
                .contains(&&*entry.file_name())
            {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::{
        agent::stream::samples::{NODE, pool, pool_name, resources},
        sys::temporary::Directory,
    };

    fn place(directory: &Directory) -> Place {
        let [state_dir, keys_dir] = ["state", "run"].map(|name| directory.path().join(name));
        fs::create_dir(&keys_dir).unwrap();
        Place {
            node_name: NODE.to_owned(),
            state_dir: StateDir::open(&state_dir).unwrap(),
            keys_dir,
        }
    }

    /// 32 bytes in base64.
    const HIDDEN: &str = "aGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVuaGlkZGVuaGk=";

    fn state() -> State {
        State {
            sequence: 7,
            epoch: "e1".to_owned(),
            resources: resources(&[("a", pool(7, &["10.0.0.1"]), &[1, 2])]),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_newest_save_is_loaded() {
        let directory = Directory::new();
        let place = place(&directory);
        assert!(matches!(place.load(), Err(LoadError::Missing { .. })));
        place.save(&State::default()).unwrap();
        place.save(&state()).unwrap();
        fs::write(place.state_dir.path().join("state.json.new"), "{\"for").unwrap();
        assert_eq!(place.load().unwrap(), state());
        assert_eq!(mode(&place.state_dir.path().join(STATE)), 0o600);
        assert!(!place.keys_dir.join(SECRETS).exists());
    }

    #[test]
    fn secrets_are_in_the_run_directory_only() {
        let directory = Directory::new();
        let place = place(&directory);
        let mut state = state();
        let name = ResourceName::from("ticketKeys/default/chat");
        let content = content::decode(&name, json!([HIDDEN])).unwrap().unwrap();
        let revision = Revision("s1".to_owned());
        state
            .resources
            .insert(name.clone(), Held { revision, content });
        place.save(&state).unwrap();
        assert_eq!(place.load().unwrap(), state);
        let text = fs::read_to_string(place.state_dir.path().join(STATE)).unwrap();
        assert!(!text.contains(HIDDEN) && !text.contains("ticketKeys"));
        assert_eq!(mode(&place.keys_dir.join(SECRETS)), 0o600);
        // After a reboot.
        fs::remove_file(place.keys_dir.join(SECRETS)).unwrap();
        assert!(!place.load().unwrap().resources.contains_key(&name));
    }

    #[test]
    fn a_secret_that_is_gone_is_gone_from_the_file() {
        let directory = Directory::new();
        let place = place(&directory);
        let name = ResourceName::from("ticketKeys/default/chat");
        let content = content::decode(&name, json!([HIDDEN])).unwrap().unwrap();
        let revision = Revision("s1".to_owned());
        let with = State {
            resources: [(name, Held { revision, content })].into(),
            ..State::default()
        };
        place.save(&with).unwrap();
        place.save(&State::default()).unwrap();
        let text = fs::read_to_string(place.keys_dir.join(SECRETS)).unwrap();
        assert!(!text.contains(HIDDEN));
    }

    #[test]
    fn another_release_is_told_everything_again() {
        let directory = Directory::new();
        let place = place(&directory);
        place.save(&state()).unwrap();
        let path = place.state_dir.path().join(STATE);
        let mut saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        saved["version"] = json!("0.0.9");
        saved["later"] = json!(1);
        fs::write(&path, saved.to_string()).unwrap();
        let loaded = place.load().unwrap();
        assert_eq!(loaded.config(NODE), state().config(NODE));
        let held = &loaded.resources[&pool_name("a")];
        assert_eq!(held.revision.0, "");
    }

    #[test]
    fn a_release_reads_its_own_form_the_one_before_and_what_is_written_for_it() {
        let reads = |newest: u32, format, oldest_reader| {
            let form = Format {
                format,
                oldest_reader,
            };
            form.is_known(newest, newest - 1)
        };
        assert!(reads(5, 5, 4) && reads(5, 4, 3));
        // Written by the release after, which wrote it so that it can be undone.
        assert!(reads(5, 6, 5));
        assert!(!reads(5, 7, 6) && !reads(5, 3, 2));
    }

    #[test]
    fn a_state_of_the_next_release_is_started_from() {
        let directory = Directory::new();
        let place = place(&directory);
        place.save(&state()).unwrap();
        let path = place.state_dir.path().join(STATE);
        let mut saved: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        saved["format"] = json!(FORMAT + 1);
        saved["oldestReader"] = json!(FORMAT);
        fs::write(&path, saved.to_string()).unwrap();
        assert_eq!(place.load().unwrap().config(NODE), state().config(NODE));
    }

    #[test]
    fn what_cannot_be_used_is_told_apart() {
        let directory = Directory::new();
        let place = place(&directory);
        let path = place.state_dir.path().join(STATE);
        for damaged in ["", "{", "{\"format\":1}", "\u{0}\u{0}"] {
            fs::write(&path, damaged).unwrap();
            assert!(
                matches!(place.load(), Err(LoadError::Corrupt { .. })),
                "{damaged}"
            );
        }
        fs::write(&path, "{\"format\":7,\"oldestReader\":6,\"what\":[]}").unwrap();
        let error = place.load().unwrap_err();
        assert!(matches!(error, LoadError::Format { found: 7, .. }));
        let said = error.to_string();
        assert!(said.contains("form 7") && said.contains("form 6"), "{said}");
        let other = Place {
            node_name: "server2".to_owned(),
            ..place.clone()
        };
        other.save(&state()).unwrap();
        let error = place.load().unwrap_err();
        assert!(matches!(error, LoadError::OtherNode { found, .. } if found == "server2"));
    }

    #[test]
    fn nothing_is_left_but_the_lock() {
        let directory = Directory::new();
        let place = place(&directory);
        place.save(&state()).unwrap();
        fs::write(place.state_dir.path().join(state_dir::LOCK), "").unwrap();
        fs::write(place.state_dir.path().join("accepted.json"), "").unwrap();
        fs::write(place.state_dir.path().join(HOLDER_SOCKET), "").unwrap();
        fs::create_dir_all(place.state_dir.path().join("deep/er")).unwrap();
        place.erase().unwrap();
        let mut left: Vec<_> = fs::read_dir(place.state_dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, [HOLDER_SOCKET, state_dir::LOCK]);
    }
}
