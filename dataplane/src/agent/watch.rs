//! Notices that the files may have changed.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsString,
    io,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};

use crate::{
    agent::files,
    sys::inotify::{Change, Inotify, Watch, What},
};

/// Editors and configuration tools make several changes at once.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Some file systems tell nothing, and some changes are out of sight.
pub(super) const LOOK_ANYWAY: Duration = Duration::from_secs(10);
/// Symbolic links followed before we give up, as many as the kernel follows.
const MOST_LINKS: usize = 40;

/// Watches a file or directory, and every symbolic link on the way to it.
#[derive(Debug)]
pub(super) struct Watcher {
    source: PathBuf,
    queue: Inotify,
    watched: HashMap<Watch, Names>,
    /// Being written, and not closed so far.
    open: BTreeSet<(Watch, OsString)>,
}

/// How much is known of the files when they may have changed.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Sight {
    /// Time passed, or something happened that may be the first step of several: what is read now
    /// may be half of what is to come.
    Unsure,
    /// A writer is done.
    Complete,
    /// Somebody says so.
    Asked,
}

/// Entries of a directory that matter.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Names {
    All,
    These(BTreeSet<OsString>),
}

impl Watcher {
    /// Starts to watch; changes from now on are noticed.
    pub(super) fn open(source: &Path) -> io::Result<Self> {
        let mut watcher = Self {
            source: std::path::absolute(source)?,
            queue: Inotify::open()?,
            watched: HashMap::new(),
            open: BTreeSet::new(),
        };
        watcher.watch();
        Ok(watcher)
    }

    /// Waits until something may have changed: when changes have ceased for 20 ms, or after `most`.
    pub(super) async fn changed(&mut self, most: Duration) -> io::Result<Sight> {
        let latest = Instant::now() + most;
        let mut seen = loop {
            match timeout_at(latest, self.relevant()).await {
                Ok(Ok(Some(sight))) => break sight,
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => break Sight::Unsure,
            }
        };
        // A bound on the wait for quiet: a file that is written without end must not blind us.
        let latest = Instant::now() + DEBOUNCE * 10;
        loop {
            let quiet = (Instant::now() + DEBOUNCE).min(latest);
            match timeout_at(quiet, self.relevant()).await {
                Ok(Ok(sight)) => seen = seen.max(sight.unwrap_or(seen)),
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => break,
            }
        }
        // What is to be watched may have changed along with it.
        self.watch();
        Ok(seen)
    }

    /// Files that are being written: names, in order.
    pub(super) fn being_written(&self) -> Vec<String> {
        let names = self.open.iter();
        names
            .map(|(_, name)| name.to_string_lossy().into_owned())
            .collect()
    }

    /// Waits for the next changes; gives what they tell, if one of them matters.
    async fn relevant(&mut self) -> io::Result<Option<Sight>> {
        let changes = self.queue.next().await?;
        let told = changes.into_iter().filter_map(|change| self.note(change));
        Ok(told.max())
    }

    fn note(&mut self, change: Change) -> Option<Sight> {
        let (watch, name, what) = match change {
            Change::Overflow => {
                // That a file was closed may be among what was lost.
                self.open.clear();
                return Some(Sight::Unsure);
            }
            Change::Gone(watch) => {
                self.open.retain(|(of, _)| *of != watch);
                return self.watched.contains_key(&watch).then_some(Sight::Unsure);
            }
            Change::Entry(watch, name, what) => (watch, name, what),
        };
        let is_manifest = match self.watched.get(&watch)? {
            Names::All => files::is_manifest(Path::new(&name)),
            Names::These(names) if names.contains(&name) => true,
            Names::These(_) => return None,
        };
        let sight = match what {
            What::Writing if is_manifest => {
                self.open.insert((watch, name));
                return None;
            }
            What::Writing => return None,
            What::Complete => Sight::Complete,
            // It may be about to be written again: some editors remove a file first.
            What::Gone | What::Touched => Sight::Unsure,
        };
        if what != What::Touched {
            self.open.remove(&(watch, name));
        }
        Some(sight)
    }

    fn watch(&mut self) {
        self.watched.clear();
        for (directory, name) in places(&self.source) {
            // A directory that is not there yet is found by the look every 10 s.
            let Ok(watch) = self.queue.watch(&directory) else {
                continue;
            };
            let names = self
                .watched
                .entry(watch)
                .or_insert_with(|| Names::These(BTreeSet::new()));
            match (names, name) {
                (Names::These(names), Some(name)) => {
                    names.insert(name);
                }
                (names, None) => *names = Names::All,
                (Names::All, Some(_)) => {}
            }
        }
        let watched = &self.watched;
        self.open.retain(|(watch, _)| watched.contains_key(watch));
    }
}

/// Directories whose entries decide what is read from `source`; without a name: all entries.
fn places(source: &Path) -> Vec<(PathBuf, Option<OsString>)> {
    let mut places = Vec::new();
    let end = walk(source, &mut places);
    if end.is_dir() {
        for manifest in files::manifests_in(&end).unwrap_or_default() {
            if manifest.is_symlink() {
                walk(&manifest, &mut places);
            }
        }
        places.push((end, None));
    }
    places
}

/// Follows `path`, noting where each symbolic link lies and where its end does.
fn walk(path: &Path, places: &mut Vec<(PathBuf, Option<OsString>)>) -> PathBuf {
    let mut path = path.to_owned();
    'restart: for _ in 0..MOST_LINKS {
        let mut done = PathBuf::new();
        let mut rest = path.components();
        while let Some(component) = rest.next() {
            let Component::Normal(name) = component else {
                done.push(component);
                continue;
            };
            if let Ok(target) = done.join(name).read_link() {
                places.push((done.clone(), Some(name.to_owned())));
                // An absolute target replaces `done`.
                path = done.join(target).join(rest.as_path());
                continue 'restart;
            }
            done.push(name);
        }
        break;
    }
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        places.push((parent.to_owned(), Some(name.to_owned())));
    }
    path
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::unix::fs::symlink};

    use super::*;
    use crate::sys::temporary::Directory;

    fn on_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test);
    }

    /// Faster than the look every 10 s, so that only a change can have been the cause.
    async fn noticed(watcher: &mut Watcher) -> bool {
        let changed = watcher.changed(LOOK_ANYWAY);
        let sight = tokio::time::timeout(LOOK_ANYWAY / 2, changed).await;
        sight.is_ok_and(|sight| sight.is_ok_and(|sight| sight == Sight::Complete))
    }

    #[test]
    fn a_file_replaced_by_rename_is_noticed_again_and_again() {
        on_runtime(async {
            let directory = Directory::new();
            let file = directory.path().join("pool.yaml");
            fs::write(&file, "1").unwrap();
            let mut watcher = Watcher::open(&file).unwrap();
            for text in ["2", "3"] {
                let new = directory.path().join(".pool.yaml.swp");
                fs::write(&new, text).unwrap();
                fs::rename(&new, &file).unwrap();
                assert!(noticed(&mut watcher).await);
            }
            fs::write(&file, "in place").unwrap();
            assert!(noticed(&mut watcher).await);
        });
    }

    #[test]
    fn a_file_that_is_being_written_is_told_apart() {
        on_runtime(async {
            let directory = Directory::new();
            let path = directory.path().join("pool.yaml");
            let mut watcher = Watcher::open(directory.path()).unwrap();
            let mut file = fs::File::create(&path).unwrap();
            file.write_all(b"half").unwrap();
            let sight = watcher.changed(LOOK_ANYWAY).await.unwrap();
            assert_eq!(sight, Sight::Unsure, "it was made");
            assert_eq!(watcher.being_written(), ["pool.yaml"]);
            // Time alone tells nothing.
            let sight = watcher.changed(Duration::ZERO).await.unwrap();
            assert_eq!(sight, Sight::Unsure);
            assert_eq!(watcher.being_written(), ["pool.yaml"]);
            drop(file);
            assert!(noticed(&mut watcher).await);
            assert!(watcher.being_written().is_empty());
            fs::remove_file(&path).unwrap();
            let sight = watcher.changed(LOOK_ANYWAY).await.unwrap();
            assert_eq!(sight, Sight::Unsure, "another may follow");
        });
    }

    #[test]
    fn other_files_beside_it_are_not_looked_at() {
        on_runtime(async {
            let directory = Directory::new();
            let file = directory.path().join("pool.yaml");
            fs::write(&file, "1").unwrap();
            let mut watcher = Watcher::open(&file).unwrap();
            fs::write(directory.path().join("other"), "1").unwrap();
            let some_time = tokio::time::timeout(DEBOUNCE * 5, watcher.changed(LOOK_ANYWAY));
            assert!(some_time.await.is_err());
            fs::write(&file, "2").unwrap();
            assert!(noticed(&mut watcher).await);
        });
    }

    /// As Kubernetes mounts a `ConfigMap`: `pool.yaml -> ..data/pool.yaml`, `..data -> ..1`.
    #[test]
    fn a_swapped_link_on_the_way_is_noticed() {
        on_runtime(async {
            let directory = Directory::new();
            let at = |name: &str| directory.path().join(name);
            for (number, text) in [("..1", "1"), ("..2", "2"), ("..3", "3")] {
                fs::create_dir(at(number)).unwrap();
                fs::write(at(number).join("pool.yaml"), text).unwrap();
            }
            symlink("..1", at("..data")).unwrap();
            symlink("..data/pool.yaml", at("pool.yaml")).unwrap();
            let mut as_file = Watcher::open(&at("pool.yaml")).unwrap();
            let mut as_directory = Watcher::open(directory.path()).unwrap();
            for next in ["..2", "..3"] {
                symlink(next, at("..new")).unwrap();
                fs::rename(at("..new"), at("..data")).unwrap();
                assert!(noticed(&mut as_file).await);
                assert!(noticed(&mut as_directory).await);
            }
            fs::write(at("..3").join("pool.yaml"), "4").unwrap();
            assert!(noticed(&mut as_file).await);
            assert!(noticed(&mut as_directory).await);
        });
    }

    #[test]
    fn a_loop_of_links_ends() {
        let directory = Directory::new();
        symlink("b", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        assert!(!places(&directory.path().join("a")).is_empty());
    }
}
