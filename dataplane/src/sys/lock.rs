//! What one process holds at a time: a file, in which it says who it is, and a network namespace.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
            net::{SocketAddr, UnixListener},
        },
    },
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::sys::channel::{self, Peer};

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

    /// Whether this is the lock file at `path`, and not one that was removed or replaced.
    pub fn is_at(&self, path: &Path) -> bool {
        let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.0.metadata(), std::fs::metadata(path)) {
            (Ok(ours), Ok(there)) => inode(ours) == inode(there),
            _ => false,
        }
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
pub struct NetworkLock(UnixListener);

/// What an attempt at the network gave.
#[derive(Debug)]
pub enum NetworkAttempt {
    /// The place is held now.
    Held(NetworkLock),
    /// Another process has it; which one, if it listens as ours do.
    Taken(Option<Peer>),
}

impl NetworkLock {
    /// Tries to take the place, without waiting.
    pub fn try_take() -> io::Result<NetworkAttempt> {
        Self::try_take_as("wsha-dataplane")
    }

    fn try_take_as(name: &str) -> io::Result<NetworkAttempt> {
        // An abstract name belongs to the network namespace, as the addresses do (unix(7)). It
        // listens, so that the kernel tells those who connect whose it is.
        let name = SocketAddr::from_abstract_name(name)?;
        match UnixListener::bind_addr(&name) {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                Ok(NetworkAttempt::Held(Self(socket)))
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Ok(NetworkAttempt::Taken(holder(&name)?))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether somebody has the place.
    pub fn is_held() -> io::Result<bool> {
        let name = SocketAddr::from_abstract_name("wsha-dataplane")?;
        match connect(&name)?.1 {
            Ok(()) => Ok(true),
            // Too many have asked, and it does not accept.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets go of those who connected, a few at a time: nothing is said to them.
    pub fn turn_away(&self) {
        for _ in 0..64 {
            if self.0.accept().is_err() {
                return;
            }
        }
    }
}

/// Who listens at `name`; `None` if nobody does, or too many have asked.
fn holder(name: &SocketAddr) -> io::Result<Option<Peer>> {
    let (socket, connected) = connect(name)?;
    if connected.is_err() {
        return Ok(None);
    }
    channel::peer_of(&socket).map(Some)
}

/// A connect that does not wait for a place in the queue of a holder that never accepts.
fn connect(name: &SocketAddr) -> io::Result<(Socket, io::Result<()>)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let name = name.as_abstract_name().unwrap_or_default();
    let name = SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat()))?;
    let connected = socket.connect(&name);
    Ok((socket, connected))
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
    #[test]
    fn whoever_has_the_network_is_named() {
        // Not the name of a real agent, which may run beside the tests.
        let name = format!("wsha-test-{}", std::process::id());
        let take = || NetworkLock::try_take_as(&name).unwrap();
        let NetworkAttempt::Held(first) = take() else {
            panic!("the first gets it");
        };
        let pid = i32::try_from(std::process::id()).unwrap();
        // More than wait in its queue.
        for _ in 0..10 {
            for _ in 0..64 {
                assert!(matches!(take(), NetworkAttempt::Taken(Some(peer)) if peer.pid == pid));
            }
            first.turn_away();
        }
        drop(first);
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let mute = std::os::unix::net::UnixDatagram::bind_addr(&address).unwrap();
        assert!(
            matches!(take(), NetworkAttempt::Held(_)),
            "another kind of socket"
        );
        drop(mute);
        // Bound, and not listening.
        let mute = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        mute.bind(&SockAddr::unix(format!("\0{name}")).unwrap())
            .unwrap();
        assert!(matches!(take(), NetworkAttempt::Taken(None)));
    }
}
