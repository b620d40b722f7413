//! What goes through: many sessions and large messages byte for byte, what nobody should send, and how clients are
//! told of an end.

mod endings;
mod malformed;
mod payloads;
