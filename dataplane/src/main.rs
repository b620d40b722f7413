//! `wsha-dataplane`: the one program of a gateway host.

use std::process::ExitCode;

use clap::Parser;
use dataplane::{
    agent,
    cli::{Cli, Command},
    logging, proxy,
    sys::spawn,
    vrrp,
};

fn main() -> ExitCode {
    // Started through /proc/self/exe, the other processes would be called `exe`.
    spawn::name_process(c"wsha-dataplane");
    let result = match Cli::parse().command {
        Command::Run(args) => {
            logging::start(args.log_format);
            agent::run(&args)
        }
        Command::Vrrp(args) => {
            logging::start(args.log_format);
            vrrp::run(&args)
        }
        Command::Proxy(args) => {
            logging::start(args.log_format);
            proxy::run(&args)
        }
        Command::Status(args) => agent::status::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsha-dataplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}
