//! Users, and what this process may do.

use std::io;

use nix::unistd::{Gid, Uid, User};

/// A user and its group, by number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// The user called `name`, with its own group. `None`: there is none.
pub fn by_name(name: &str) -> io::Result<Option<Identity>> {
    let found = entry(User::from_name(name))?;
    Ok(found.map(|user| Identity {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    }))
}

/// An image of one program has no file of users: then nobody has an entry.
fn entry(found: nix::Result<Option<User>>) -> io::Result<Option<User>> {
    match found {
        Err(nix::Error::ENOENT) => Ok(None),
        found => Ok(found?),
    }
}

/// The user numbered `uid`, with its own group; one without an entry gets the group of the same
/// number.
pub fn by_uid(uid: u32) -> io::Result<Identity> {
    let found = entry(User::from_uid(Uid::from_raw(uid)))?;
    let gid = found.map_or(uid, |user| user.gid.as_raw());
    Ok(Identity { uid, gid })
}

/// The effective user of this process.
pub fn effective_uid() -> u32 {
    Uid::effective().as_raw()
}

/// Gives a path to a user and its group.
pub fn give(path: &std::path::Path, to: Identity) -> io::Result<()> {
    nix::unistd::chown(
        path,
        Some(Uid::from_raw(to.uid)),
        Some(Gid::from_raw(to.gid)),
    )?;
    Ok(())
}

/// Gives a path of one's own to a group that one is in, which takes no right.
pub fn give_to_group(path: &std::path::Path, gid: u32) -> io::Result<()> {
    nix::unistd::chown(path, None, Some(Gid::from_raw(gid)))?;
    Ok(())
}

/// Whether this process is a member of the group.
pub fn is_of_group(gid: u32) -> io::Result<bool> {
    let gid = Gid::from_raw(gid);
    Ok(Gid::effective() == gid || nix::unistd::getgroups()?.contains(&gid))
}

/// What this process makes is its user's alone from now on, until a mode is set.
pub fn keep_files_private() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Where the kernel tells of the calling thread.
pub const STATUS: &str = "/proc/thread-self/status";

/// Right to change addresses (capabilities(7)).
pub const NET_ADMIN: Capability = Capability(12, "CAP_NET_ADMIN");
/// Right to open raw and packet sockets.
pub const NET_RAW: Capability = Capability(13, "CAP_NET_RAW");
/// Right to lock memory.
pub const IPC_LOCK: Capability = Capability(14, "CAP_IPC_LOCK");
/// Right to real-time priority.
pub const SYS_NICE: Capability = Capability(23, "CAP_SYS_NICE");
/// Right to give files to another user.
pub const CHOWN: Capability = Capability(0, "CAP_CHOWN");
/// Right to end processes of another user.
pub const KILL: Capability = Capability(5, "CAP_KILL");
/// Right to become another user.
pub const SETUID: Capability = Capability(7, "CAP_SETUID");
/// Right to become another group.
pub const SETGID: Capability = Capability(6, "CAP_SETGID");

/// One of the rights that root is made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Capability(u8, &'static str);

impl Capability {
    pub(super) const fn bit(self) -> u64 {
        1 << self.0
    }

    /// As capabilities(7) calls it.
    pub const fn name(self) -> &'static str {
        self.1
    }
}

/// Those of `wanted` that the calling thread does not have.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn missing(wanted: &[Capability]) -> io::Result<Vec<Capability>> {
    let status = std::fs::read_to_string(STATUS)?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("it has no line CapEff"))?;
    let missing = |capability: &&Capability| effective & capability.bit() == 0;
    Ok(wanted.iter().filter(missing).copied().collect())
}
