//! What one process holds at a time: a file, in which it says who it is, and a network namespace.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::OpenOptionsExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

/// A held lock (`flock`); given back when dropped, or by the kernel when the process ends.
#[derive(Debug)]
pub struct Lock(File);

/// What an attempt gave.
#[derive(Debug)]
pub enum Attempt<H> {
    /// The lock is held now.
    Held(Lock),
    /// Another process has it; what it wrote, if that can be read.
    Taken(Option<H>),
}

impl Lock {
    /// Tries to take the lock file at `path`, made if absent, without waiting.
    pub fn try_take<H: DeserializeOwned>(path: &Path) -> io::Result<Attempt<H>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Attempt::Held(Self(file))),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                Ok(Attempt::Taken(serde_json::from_str(&text).ok()))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Says who holds it.
    pub fn write(&mut self, holder: &impl Serialize) -> io::Result<()> {
        let text = serde_json::to_vec(holder)?;
        self.0.rewind()?;
        self.0.set_len(0)?;
        self.0.write_all(&text)
    }

    /// What the holder wrote, whether it lives or not.
    ///
    /// # Errors
    /// `NotFound` if no process ever took the lock.
    pub fn read<H: DeserializeOwned>(path: &Path) -> io::Result<H> {
        Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
    }
}

/// The one place in this network namespace; given back when dropped, or by the kernel when the
/// process ends.
#[derive(Debug)]
pub struct NetworkLock(#[expect(dead_code, reason = "held, not used")] UnixDatagram);

impl NetworkLock {
    /// Tries to take the place, without waiting; `None`: another process has it.
    pub fn try_take() -> io::Result<Option<Self>> {
        // An abstract name belongs to the network namespace, as the addresses do (unix(7)).
        let name = SocketAddr::from_abstract_name("wsha-dataplane")?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => Ok(Some(Self(socket))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::temporary::Directory;

    #[test]
    fn the_second_is_told_who_has_it_and_gets_it_afterwards() {
        let directory = Directory::new();
        let path = directory.path().join("lock");
        let Attempt::Held(mut first) = Lock::try_take::<String>(&path).unwrap() else {
            panic!("the first gets it");
        };
        first.write(&"a much longer name").unwrap();
        first.write(&"first").unwrap();
        match Lock::try_take::<String>(&path).unwrap() {
            Attempt::Taken(holder) => assert_eq!(holder.as_deref(), Some("first")),
            Attempt::Held(_) => panic!("two hold it"),
        }
        assert_eq!(Lock::read::<String>(&path).unwrap(), "first");
        drop(first);
        assert!(matches!(
            Lock::try_take::<String>(&path).unwrap(),
            Attempt::Held(_)
        ));
    }
}
