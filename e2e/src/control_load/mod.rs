//! Load for the control plane: gateways that speak the control stream and nothing else, on a real API server.
//!
//! [`api`] is a small client of the API server, [`objects`] what is put there, [`fleet`] the gateways, which
//! are all tasks of one process, so that one clock tells when each has what. [`stage`] starts everything,
//! [`trial`] measures.

pub mod api;
pub mod fleet;
pub mod gateway;
pub mod objects;
pub mod stage;
pub mod trial;
