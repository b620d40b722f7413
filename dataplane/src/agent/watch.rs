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
    sys::inotify::{Change, Inotify, Watch},
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
}

/// Entries of a directory that matter.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Names {
    All,
    These(BTreeSet<OsString>),
}

impl Watcher {
    /// Starts to watch; changes from now on are noticed.
    pub(super) fn new(source: &Path) -> io::Result<Self> {
        let mut watcher = Self {
            source: std::path::absolute(source)?,
            queue: Inotify::new()?,
            watched: HashMap::new(),
        };
        watcher.watch();
        Ok(watcher)
    }

    /// Waits until something may have changed: when changes have ceased for 20 ms, and every 10 s.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        let look_anyway = Instant::now() + LOOK_ANYWAY;
        loop {
            match timeout_at(look_anyway, self.relevant()).await {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => break,
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => break,
            }
        }
        // A bound on the wait for quiet: a file that is written without end must not blind us.
        let latest = Instant::now() + DEBOUNCE * 10;
        loop {
            let quiet = (Instant::now() + DEBOUNCE).min(latest);
            match timeout_at(quiet, self.relevant()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => break,
            }
        }
        // What is to be watched may have changed along with it.
        self.watch();
        Ok(())
    }

    /// Waits for the next changes and says whether one of them matters.
    async fn relevant(&self) -> io::Result<bool> {
        let changes = self.queue.next().await?;
        Ok(changes.iter().any(|change| match change {
            Change::Overflow => true,
            Change::Gone(watch) => self.watched.contains_key(watch),
            Change::Entry(watch, name) => match self.watched.get(watch) {
                None => false,
                Some(Names::All) => true,
                Some(Names::These(names)) => names.contains(name),
            },
        }))
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
    use std::{fs, os::unix::fs::symlink};

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
        tokio::time::timeout(LOOK_ANYWAY / 2, watcher.changed())
            .await
            .is_ok_and(|result| result.is_ok())
    }

    #[test]
    fn a_file_replaced_by_rename_is_noticed_again_and_again() {
        on_runtime(async {
            let directory = Directory::new();
            let file = directory.path().join("pool.yaml");
            fs::write(&file, "1").unwrap();
            let mut watcher = Watcher::new(&file).unwrap();
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
    fn other_files_beside_it_are_not_looked_at() {
        on_runtime(async {
            let directory = Directory::new();
            let file = directory.path().join("pool.yaml");
            fs::write(&file, "1").unwrap();
            let mut watcher = Watcher::new(&file).unwrap();
            fs::write(directory.path().join("other"), "1").unwrap();
            let some_time = tokio::time::timeout(DEBOUNCE * 5, watcher.changed());
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
            let mut as_file = Watcher::new(&at("pool.yaml")).unwrap();
            let mut as_directory = Watcher::new(directory.path()).unwrap();
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
