//! `wsha-dataplane`: the one program of a gateway host.

use std::process::ExitCode;

use clap::Parser;
use dataplane::{
    agent,
    cli::{Cli, Command},
    doctor, logging, proxy,
    sys::spawn,
    vrrp,
};

fn main() -> ExitCode {
    // Started through /proc/self/exe, the other processes would be called `exe`.
    spawn::name_process(c"wsha-dataplane");
    let command = Cli::parse().command;
    let log_format = match &command {
        Command::Run(args) => Some(args.log_format),
        Command::Vrrp(args) => Some(args.log_format),
        Command::Proxy(args) => Some(args.log_format),
        Command::Stay(args) => Some(args.log_format),
        Command::Status(_) | Command::Doctor(_) | Command::Probe(_) => None,
    };
    if let Some(format) = log_format {
        logging::start(format);
    }
    let result = match command {
        Command::Run(args) => agent::run(&args),
        Command::Vrrp(args) => vrrp::run(&args),
        Command::Proxy(args) => match proxy::run(&args) {
            Ok(ending) => return ending.into(),
            Err(error) => Err(error),
        },
        Command::Stay(args) => agent::stay::run(&args),
        Command::Status(args) => agent::status::run(&args),
        Command::Probe(args) => agent::probe::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In the form of the log, where there is one; RUST_LOG may have switched it off.
            if log_format.is_some() && tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!("{error:#}");
            } else {
                eprintln!("wsha-dataplane: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
