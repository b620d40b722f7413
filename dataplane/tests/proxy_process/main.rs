//! The proxy process as its users see it: the real program, alone and with an agent.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

mod agent;
mod group;
mod memory;
mod rings;
mod served;
mod standalone;
mod support;
