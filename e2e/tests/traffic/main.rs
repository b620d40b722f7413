//! What goes through: where it goes, many sessions and large messages byte for byte, what nobody should send, and how clients are
//! told of an end.

mod choosing;
mod endings;
mod health;
mod malformed;
mod payloads;
mod ports;
