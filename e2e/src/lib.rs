//! Lab of network namespaces, the article's peers, probe, demo, integration tests and benchmarks.
//!
//! A [`lab::Lab`] is the article's network on one machine. A [`subject::Subject`] is what runs on its two
//! gateways: keepalived and nginx as the article sets them up, the same at their best, or wsha. A
//! [`probe::Probe`] is the client, and [`measure`] turns what it saw into figures. A [`cluster`] is a
//! real Kubernetes, an [`image`] what its nodes run, the [`chart`] how
//! they come to run it, [`control_load`] gateways by the hundred, [`proxy_load`] clients and servers that cost less
//! than the proxy between them, [`soak`] all of it at once for hours. [`testing`] is what the integration
//! tests share.

#![forbid(unsafe_code)]

pub mod arp;
pub mod backend;
pub mod ballast;
pub mod chart;
pub mod cluster;
pub mod control;
pub mod control_load;
pub mod cost;
pub mod fault;
pub mod image;
pub mod keeper;
pub mod lab;
pub mod machine;
pub mod measure;
mod neighbour;
pub mod probe;
pub mod proxy_load;
pub mod soak;
pub mod subject;
pub mod takeover;
pub mod testing;
pub mod tools;
pub mod wait;
pub mod ws;

/// How a program ends: with what failed on standard error, if something did.
pub fn exit(outcome: anyhow::Result<()>) -> std::process::ExitCode {
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
