//! The controllers' certificates: renewed, and their authority followed by another, under living streams.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use e2e::testing::{Gateway, Session};

use crate::serving;
use crate::stage::{AsWhom, VIP1, on_stage_with};

/// Certificates in a bundle.
fn count(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

/// As the kubelet brings a ConfigMap to a node: the file is there or as before, never half.
fn bring(bundle: &str, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    fs::write(&new, bundle)?;
    fs::rename(new, to)?;
    Ok(())
}

/// The part of a bundle that is not in another one.
fn only_in(bundle: &str, other: &str) -> String {
    let end = "-----END CERTIFICATE-----";
    let parts = bundle.split_inclusive(end).map(str::trim);
    let parts = parts.filter(|part| !part.is_empty() && !other.contains(part));
    parts.collect::<Vec<_>>().join("\n")
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

#[test]
fn an_authority_is_followed_by_another_once_every_gateway_trusts_it() -> Result<()> {
    let name = "an_authority_is_followed_by_another_once_every_gateway_trusts_it";
    // So short that the next one is due within the test, and so long that no end forces it.
    let words = ["--authority-life=5m", "--certificate-life=1m"];
    on_stage_with(name, 2, &words, AsWhom::Administrator, |stage| {
        serving(stage)?;
        let mut session = Session::open(stage.cluster.lab.client(), VIP1)?;
        let first = stage.bundle()?;
        ensure!(count(&first) == 1, "{first}");
        // As if two thirds of its life were over, and little more.
        stage.set_secret("tls.made", &(now()? - 205).to_string())?;
        let both = stage.wait("the next authority in the bundle", |stage| {
            let bundle = stage.bundle()?;
            Ok((count(&bundle) == 2).then_some(bundle))
        })?;
        let next = only_in(&both, &first);
        ensure!(count(&next) == 1, "{both}");

        // One gateway has the new bundle, the other does not: the next one is not served, though it could be
        // for seconds.
        bring(&both, &stage.authority_file(Gateway::One))?;
        let made: u64 = stage.secret("next.made")?.parse()?;
        stage.wait("the next authority to be old enough", |stage| {
            let first_serves = stage.is_served_by(&first)?;
            ensure!(first_serves, "a gateway does not trust what is served");
            Ok((now()? > made + 15).then_some(()))
        })?;

        bring(&both, &stage.authority_file(Gateway::Two))?;
        stage.wait("certificates of the next authority", |stage| {
            Ok(stage.is_served_by(&next)?.then_some(()))
        })?;
        let last = stage.wait("the former authority to leave the bundle", |stage| {
            let bundle = stage.bundle()?;
            Ok((count(&bundle) == 1).then_some(bundle))
        })?;
        ensure!(only_in(&last, &next).is_empty(), "{last}");
        stage.wait_condition("chat", "Programmed", "True")?;
        session.undisturbed()
    })
}
