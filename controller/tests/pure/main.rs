//! The pure parts: what is committed, what nodes are told, what users see.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod commit;
mod desired;
mod peers;
mod retire;
mod status;
mod tls;
mod world;
