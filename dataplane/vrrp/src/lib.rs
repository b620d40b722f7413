//! VRRP versions 2 (RFC 3768) and 3 (RFC 9568): formats and state machine, without I/O, without a
//! clock and without an allocation per packet.
//!
//! * [`wire`] turns bytes into values and back. Whatever arrives, nothing panics; what is dropped is
//!   dropped for a named reason, [`Discard`].
//! * [`machine`] holds one [`VirtualRouter`] per VRID: inputs and the time go in, [`Effect`]s come
//!   out, in the order in which they must be carried out.
//! * [`lease`] tells when the host may hold the addresses.
//! * [`types`] and [`time`] hold the units that both share.
//!
//! Words are those of RFC 9568: the router that holds the addresses is *Active* (older texts:
//! master), the others are *Backup*.
#![forbid(unsafe_code)]

pub mod authentication;
pub mod discard;
pub mod lease;
pub mod machine;
pub mod time;
pub mod types;
pub mod wire;

pub use authentication::{Authentication, Password};
pub use discard::Discard;
pub use machine::{
    Cause, Config, ConfigError, Effect, Group, Input, Peer, Peering, Preemption, Settings, State,
    Transition, VirtualRouter,
};
pub use time::Instant;
pub use types::{Centiseconds, Family, Priority, Version, Vrid, active_down_interval, skew_time};
pub use wire::Advertisement;
