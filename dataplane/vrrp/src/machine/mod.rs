//! The state machine of one virtual router (RFC 9568 section 6; RFC 3768 section 6).
//!
//! A [`VirtualRouter`] is driven like this, and nothing else touches it:
//!
//! 1. Wait for a packet, an event of the host, or [`VirtualRouter::poll_timeout`].
//! 2. Read the clock, **then** call [`VirtualRouter::handle`]. Hand in every packet that is already
//!    waiting before [`Input::Timer`]: a packet that was there all the time is not silence.
//! 3. Carry out [`VirtualRouter::poll_effect`] until it is empty, in order: the order is protocol.
//!
//! A takeover is: advertise, so that the old holder lets go; add the addresses; and, once the host
//! confirms with [`Input::AddressesAdded`], announce them. A release is: advertise priority 0, then
//! remove. See [`VirtualRouter`] for the rules that go beyond the standards.

mod announcements;
mod cause;
mod config;
mod effect;
mod election;
mod hearing;
mod holding;
mod input;
mod joining;
mod peering;
mod phase;
mod queue;
mod router;
mod timing;

pub use cause::Cause;
pub use config::{Config, ConfigError, Preemption, Settings, default_linger};
pub use effect::{Effect, Peer, State, Transition};
pub use input::Input;
pub use peering::{Group, MOST_MEMBERS, Peering};
pub use router::VirtualRouter;
