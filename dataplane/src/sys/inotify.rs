//! Changes of directory entries, as the kernel tells them.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify as Queue, WatchDescriptor},
};
use tokio::io::unix::AsyncFd;

/// A queue of changes.
#[derive(Debug)]
pub struct Inotify(AsyncFd<Descriptor>);

#[derive(Debug)]
struct Descriptor(Queue);

/// A watched directory; the same directory always has the same watch.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Watch(WatchDescriptor);

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// An entry of a directory was made, written and closed, renamed or removed.
    Entry(Watch, OsString),
    /// The directory itself was moved or removed.
    Gone(Watch),
    /// Changes were lost: look at everything.
    Overflow,
}

impl Inotify {
    /// An empty queue. Call it on a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let queue = Queue::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: the queue owns its descriptor, which stays open, and the same, for its life.
        Ok(Self(unsafe { AsyncFd::register(Descriptor(queue)) }?))
    }

    /// Watches the entries of a directory; twice is the same as once.
    pub fn watch(&self, directory: &Path) -> io::Result<Watch> {
        // Not `IN_MODIFY`: a file that is still being written is looked at when it is closed.
        let flags = AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        Ok(Watch(self.0.get_ref().0.add_watch(directory, flags)?))
    }

    /// Waits for changes. Loses none when it is given up in the middle.
    pub async fn next(&self) -> io::Result<Vec<Change>> {
        loop {
            let mut ready = self.0.readable().await?;
            let changes = self.changes()?;
            if !changes.is_empty() {
                return Ok(changes);
            }
            ready.clear_ready();
        }
    }

    /// What is in the queue now; empty when nothing is.
    fn changes(&self) -> io::Result<Vec<Change>> {
        let events = match self.0.get_ref().0.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let changes = events.into_iter().map(|event| {
            let watch = Watch(event.wd);
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                return Change::Overflow;
            }
            match event.name {
                Some(name) => Change::Entry(watch, name),
                None => Change::Gone(watch),
            }
        });
        Ok(changes.collect())
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sys::temporary::Directory;

    fn names(changes: &[Change]) -> Vec<&str> {
        fn name(change: &Change) -> Option<&str> {
            match change {
                Change::Entry(_, name) => name.to_str(),
                Change::Gone(_) | Change::Overflow => None,
            }
        }
        changes.iter().filter_map(name).collect()
    }

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_io().build().unwrap()
    }

    #[test]
    fn writes_renames_and_symlink_swaps_are_seen() {
        let runtime = runtime();
        let _entered = runtime.enter();
        let directory = Directory::new();
        let queue = Inotify::new().unwrap();
        queue.watch(directory.path()).unwrap();
        assert_eq!(queue.changes().unwrap(), []);

        fs::write(directory.path().join("a.yaml"), "1").unwrap();
        assert!(names(&queue.changes().unwrap()).contains(&"a.yaml"));

        fs::write(directory.path().join("b.tmp"), "2").unwrap();
        queue.changes().unwrap();
        fs::rename(
            directory.path().join("b.tmp"),
            directory.path().join("a.yaml"),
        )
        .unwrap();
        assert_eq!(names(&queue.changes().unwrap()), ["b.tmp", "a.yaml"]);

        std::os::unix::fs::symlink("one", directory.path().join("..tmp")).unwrap();
        queue.changes().unwrap();
        fs::rename(
            directory.path().join("..tmp"),
            directory.path().join("..data"),
        )
        .unwrap();
        assert_eq!(names(&queue.changes().unwrap()), ["..tmp", "..data"]);
    }

    #[test]
    fn the_end_of_a_directory_is_seen() {
        let runtime = runtime();
        let _entered = runtime.enter();
        let directory = Directory::new();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let queue = Inotify::new().unwrap();
        let watch = queue.watch(&inner).unwrap();
        assert_eq!(queue.watch(&inner).unwrap(), watch, "the same directory");
        fs::remove_dir(&inner).unwrap();
        assert!(queue.changes().unwrap().contains(&Change::Gone(watch)));
    }
}
