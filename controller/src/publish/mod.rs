//! The control stream's server: a WebSocket over TLS for each gateway node.

mod admit;
mod server;
mod session;
mod stream;

pub use admit::{Admission, Admitted, Refusal, Reviewer, TokenReviews};
pub use server::{Server, serve};
pub use session::Session;
