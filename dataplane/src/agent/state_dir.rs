//! What is kept over restarts: the last accepted text of the files.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{agent::files::FileSet, sys::clock::unix_ms};

/// Form of the saved file; a release reads its own and, once there is one, the form before.
const FORMAT: u32 = 1;
const SAVED: &str = "accepted.json";
/// Says who holds the directory.
pub(super) const LOCK: &str = "lock";

/// The directory given as `--state-dir`.
#[derive(Clone, Debug)]
pub(super) struct StateDir(PathBuf);

/// Why the saved files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// Nothing was ever accepted.
    #[error("{path} does not exist: no files were accepted before")]
    Missing {
        /// The saved file.
        path: PathBuf,
    },
    /// It is there and cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The saved file.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path} is damaged; remove it once the files given as --manifests are in order")]
    Corrupt {
        /// The saved file.
        path: PathBuf,
        /// Where it is damaged.
        #[source]
        source: serde_json::Error,
    },
    /// Another release wrote it.
    #[error(
        "{path} has format {found} and this release reads format {FORMAT} only: put the files given \
         as --manifests in order, or start the release that wrote it"
    )]
    Format {
        /// The saved file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

/// The step of saving that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}")]
pub(super) struct SaveError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Saved {
    format: u32,
    version: String,
    files: Vec<SavedFile>,
}

#[derive(Deserialize, Serialize)]
struct SavedFile {
    name: String,
    text: String,
}

/// What was kept.
#[derive(Debug)]
pub(super) struct Kept {
    /// The files.
    pub(super) files: FileSet,
    /// When they were accepted, milliseconds since the Unix epoch.
    pub(super) at_unix_ms: u64,
}

impl StateDir {
    /// The directory at `path`, made if absent, for its owner only.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        make(path)?;
        path.canonicalize().map(Self)
    }

    /// Makes it again if somebody removed it.
    pub(super) fn make(&self) -> io::Result<()> {
        make(&self.0)
    }

    /// Its canonical path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Where the lock is.
    pub(super) fn lock_path(&self) -> PathBuf {
        self.0.join(LOCK)
    }

    /// Removes the lock's file, after which nothing tells that an agent ever ran.
    pub(super) fn remove_lock(&self) -> io::Result<()> {
        match fs::remove_file(self.lock_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps `files`; after a crash at any moment either these or those before are found.
    pub(super) fn save(&self, files: &FileSet) -> Result<(), SaveError> {
        let saved = Saved {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            files: files
                .iter()
                .map(|(name, text)| SavedFile {
                    name: name.clone(),
                    text: text.clone(),
                })
                .collect(),
        };
        let text = serde_json::to_vec(&saved).map_err(io::Error::from);
        self.replace(SAVED, text)
    }

    /// Replaces a file as a whole; the directory is made again if somebody removed it.
    pub(super) fn replace(&self, name: &str, text: io::Result<Vec<u8>>) -> Result<(), SaveError> {
        self.make().map_err(|source| SaveError {
            action: "make",
            path: self.0.clone(),
            source,
        })?;
        replace(&self.0, name, text)
    }

    /// The files that were accepted last.
    pub(super) fn load(&self) -> Result<Kept, LoadError> {
        let path = self.0.join(SAVED);
        let read = || Ok::<_, io::Error>((fs::read(&path)?, fs::metadata(&path)?.modified()?));
        let (text, saved_at) = match read() {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LoadError::Missing { path });
            }
            Err(source) => return Err(LoadError::Read { path, source }),
        };
        let corrupt = |source| LoadError::Corrupt {
            path: path.clone(),
            source,
        };
        let Format { format } = serde_json::from_slice(&text).map_err(corrupt)?;
        if format != FORMAT {
            return Err(LoadError::Format {
                path,
                found: format,
            });
        }
        let saved: Saved = serde_json::from_slice(&text).map_err(corrupt)?;
        let files = saved.files.into_iter();
        Ok(Kept {
            files: files.map(|file| (file.name, file.text)).collect(),
            at_unix_ms: unix_ms(saved_at),
        })
    }
}

fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Replaces a file of `directory` as a whole, for its owner only; after a crash at any moment either
/// the new or the old text is found.
pub(super) fn replace(
    directory: &Path,
    name: &str,
    text: io::Result<Vec<u8>>,
) -> Result<(), SaveError> {
    let temporary = directory.join(format!("{name}.new"));
    let path = directory.join(name);
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| SaveError {
            action,
            path,
            source,
        }
    };
    let text = text.map_err(failed("encode", &path))?;
    // One that a crash left behind may have another mode, or be a link.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replace", &temporary)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed("create", &temporary))?;
    file.write_all(&text)
        .and_then(|()| file.sync_all())
        .map_err(failed("write", &temporary))?;
    fs::rename(&temporary, &path).map_err(failed("replace", &path))?;
    // The rename itself is on disk only once the directory is.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("sync", directory))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::temporary::Directory;

    fn files(text: &str) -> FileSet {
        vec![("a.yaml".to_owned(), text.to_owned())]
    }

    #[test]
    fn the_newest_save_is_loaded() {
        let directory = Directory::new();
        let state = StateDir::open(&directory.path().join("deep/er")).unwrap();
        assert!(matches!(state.load(), Err(LoadError::Missing { .. })));
        state.save(&files("one")).unwrap();
        state.save(&files("two")).unwrap();
        assert_eq!(state.load().unwrap().files, files("two"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state.path().join(SAVED)), 0o600);
        assert_eq!(mode(state.path()), 0o700);
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_one_before() {
        let directory = Directory::new();
        let state = StateDir::open(directory.path()).unwrap();
        state.save(&files("one")).unwrap();
        let leftover = state.path().join("accepted.json.new");
        fs::write(&leftover, "{\"for").unwrap();
        fs::set_permissions(&leftover, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(state.load().unwrap().files, files("one"));
        state.save(&files("two")).unwrap();
        assert_eq!(state.load().unwrap().files, files("two"));
        let mode = fs::metadata(state.path().join(SAVED))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "not that of the leftover");
    }

    #[test]
    fn a_directory_that_was_removed_is_made_again() {
        let directory = Directory::new();
        let state = StateDir::open(&directory.path().join("state")).unwrap();
        fs::remove_dir_all(state.path()).unwrap();
        state.save(&files("one")).unwrap();
        assert_eq!(state.load().unwrap().files, files("one"));
    }

    #[test]
    fn damage_and_other_formats_are_told_apart() {
        let directory = Directory::new();
        let state = StateDir::open(directory.path()).unwrap();
        let path = state.path().join(SAVED);
        for damaged in ["", "{", "{\"format\":1}", "\u{0}\u{0}"] {
            fs::write(&path, damaged).unwrap();
            assert!(
                matches!(state.load(), Err(LoadError::Corrupt { .. })),
                "{damaged}"
            );
        }
        fs::write(&path, "{\"format\":7,\"what\":[]}").unwrap();
        assert!(matches!(
            state.load(),
            Err(LoadError::Format { found: 7, .. })
        ));
    }
}
