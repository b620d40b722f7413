//! Makes the images without docker: archives for `ctr images import`, `docker load` and `kind load`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use e2e::cluster::local;
use e2e::image::{self, Image, Profile};

/// Builds both programs statically and puts each into an image from scratch.
#[derive(Debug, Parser)]
struct Options {
    /// Directory for the archives
    #[arg(long, value_name = "DIR", default_value = "target/images")]
    out: PathBuf,
    /// Tag of the images
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// How the programs are optimised
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Also make the image of the tests' WebSocket server
    #[arg(long)]
    tests: bool,
}

fn main() -> ExitCode {
    e2e::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let ours = Image::ALL.map(|image| (image, image.reference(&options.tag)));
    let tests = options.tests.then(|| (Image::Pod, local::pod_reference()));
    for (image, reference) in ours.into_iter().chain(tests) {
        let program = image::build(image, options.profile, &options.out)?;
        let archive = image.archive(&program, &reference)?;
        let path = options.out.join(format!("{}.tar", image.name()));
        fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}  {reference}", path.display());
    }
    Ok(())
}
