//! Takeovers that nothing was the reason for: counted on the wire, while the machine has all it can do.

mod busy;
mod capture;
mod judge;

pub use self::busy::Busy;
pub use self::capture::Capture;
pub use self::judge::{Judge, Takeover};
