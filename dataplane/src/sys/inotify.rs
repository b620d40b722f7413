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
    /// Something happened to an entry of a directory.
    Entry(Watch, OsString, What),
    /// The directory itself was moved or removed.
    Gone(Watch),
    /// Changes were lost: look at everything.
    Overflow,
}

/// What happened to an entry of a directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum What {
    /// It is being written, and its writer has not closed it yet.
    Writing,
    /// Its writer closed it, or it was renamed to this name: it is complete.
    Complete,
    /// It was removed, or renamed to another name.
    Gone,
    /// It was made, perhaps to be written next, or its mode was changed.
    Touched,
}

impl Inotify {
    /// Opens an empty queue. Call it on a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let queue = Queue::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: the queue owns its descriptor, which stays open, and the same, for its life.
        Ok(Self(unsafe { AsyncFd::register(Descriptor(queue)) }?))
    }

    /// Watches the entries of a directory; twice is the same as once.
    pub fn watch(&self, directory: &Path) -> io::Result<Watch> {
        let flags = AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_MODIFY
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
                Some(name) => Change::Entry(watch, name, what(event.mask)),
                None => Change::Gone(watch),
            }
        });
        Ok(changes.collect())
    }
}

fn what(mask: AddWatchFlags) -> What {
    let complete = AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO;
    let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
    if mask.intersects(complete) {
        What::Complete
    } else if mask.intersects(gone) {
        What::Gone
    } else if mask.contains(AddWatchFlags::IN_MODIFY) {
        What::Writing
    } else {
        What::Touched
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;
    use crate::sys::temporary::Directory;

    fn names(changes: &[Change]) -> Vec<&str> {
        fn name(change: &Change) -> Option<&str> {
            match change {
                Change::Entry(_, name, _) => name.to_str(),
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
        let queue = Inotify::open().unwrap();
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
    fn a_file_is_complete_when_its_writer_closes_it() {
        let runtime = runtime();
        let _entered = runtime.enter();
        let directory = Directory::new();
        let queue = Inotify::open().unwrap();
        let watch = queue.watch(directory.path()).unwrap();
        let last = |what| {
            let expected = Change::Entry(watch, "a.yaml".into(), what);
            assert_eq!(queue.changes().unwrap().last(), Some(&expected));
        };
        let path = directory.path().join("a.yaml");
        let mut file = fs::File::create(&path).unwrap();
        last(What::Touched);
        file.write_all(b"1").unwrap();
        last(What::Writing);
        drop(file);
        last(What::Complete);
        fs::remove_file(&path).unwrap();
        last(What::Gone);
    }

    #[test]
    fn the_end_of_a_directory_is_seen() {
        let runtime = runtime();
        let _entered = runtime.enter();
        let directory = Directory::new();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let queue = Inotify::open().unwrap();
        let watch = queue.watch(&inner).unwrap();
        assert_eq!(queue.watch(&inner).unwrap(), watch, "the same directory");
        fs::remove_dir(&inner).unwrap();
        assert!(queue.changes().unwrap().contains(&Change::Gone(watch)));
    }
}
