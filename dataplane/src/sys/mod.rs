//! The kernel, behind safe names. The only module that may use `unsafe` and system-call crates.
#![allow(unsafe_code, reason = "system calls; each block says why it is sound")]

pub mod carrier;
pub mod cgroup;
pub mod channel;
pub mod clock;
#[cfg(test)]
pub(crate) mod counting;
pub mod inotify;
pub mod kernel;
pub mod life;
pub mod limits;
pub mod listen;
pub mod lock;
pub mod memory;
pub mod netlink;
pub mod outgoing;
pub mod packet;
pub mod pages;
pub mod privileges;
pub mod raw;
pub mod realtime;
pub mod regular;
pub mod resolution;
pub mod ring;
pub mod seccomp;
pub mod signals;
pub mod spawn;
pub mod tap;
pub mod tcp;
pub mod text;
pub mod users;
pub mod wait;

#[cfg(test)]
pub(crate) mod temporary;
