//! Manifests that cannot be used: refused with what is wrong, where, and what to do, while the last good one serves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use e2e::lab::{PORT, VIP_SERVER1};
use e2e::testing::{Gateway, Manifest, in_cluster};

use crate::Live;

/// A manifest that must be refused, and what the sentence must hold: object, field and remedy.
struct Malformed {
    what: &'static str,
    text: String,
    words: &'static [&'static str],
}

const POOL: &str = "WebSocketHAPool default/chat";

/// Variations of a good manifest.
fn malformed(good: &str) -> Vec<Malformed> {
    let case = |what, text, words| Malformed { what, text, words };
    let vrid = |address: &str, vrid: u8| {
        let entry = format!("address: {address}");
        (entry.clone(), format!("{entry}, virtualRouterID: {vrid}"))
    };
    let with = |changes: &[(String, String)]| {
        let change = |text: String, (old, new): &(String, String)| text.replace(old, new);
        changes.iter().fold(good.to_owned(), change)
    };
    vec![
        case(
            "no YAML",
            good.replace("spec:", "spec: ["),
            &["is no valid YAML at line"],
        ),
        case(
            "cut in half",
            good[..good.len() / 3].to_owned(),
            &["is no valid YAML at line"],
        ),
        case(
            "empty",
            String::new(),
            &["holds no object", "delete the file if that is meant"],
        ),
        case(
            "no Node",
            good.split("---\napiVersion: v1\n").take(1).collect(),
            &["no Node", "list each host as an object of kind Node"],
        ),
        case(
            "a misspelt field",
            good.replace("listeners:", "listenrs:"),
            &[POOL, "spec.listenrs", "did you mean listeners?"],
        ),
        case(
            "a port beyond 65535",
            good.replace("port: 8020", "port: 80200"),
            &[
                POOL,
                "spec.listeners[0].port",
                "use a number from 1 to 65535",
            ],
        ),
        case(
            "an endpoint on loopback",
            good.replace("192.168.1.16", "127.0.0.1"),
            &[
                POOL,
                "spec.upstreams[0].endpoints[0].address",
                "use an address under which the server is reached from other hosts",
            ],
        ),
        case(
            "an address twice",
            good.replace("192.168.1.110", "192.168.1.112"),
            &[POOL, "spec.virtualIPs[1]", "remove one of the two"],
        ),
        case(
            "another kind",
            good.replace("kind: Node", "kind: Nod"),
            &["object 2", "kind", "did you mean Node?"],
        ),
        case(
            "a VRID that another address has by itself",
            with(&[vrid("192.168.1.112", 110)]),
            &[
                POOL,
                "spec.virtualIPs[0].virtualRouterID",
                "192.168.1.112",
                "set virtualRouterID to a number from 1 to 255 that no other",
            ],
        ),
        case(
            "a VRID twice",
            with(&[vrid("192.168.1.110", 7), vrid("192.168.1.112", 7)]),
            &[
                POOL,
                "spec.virtualIPs[1].virtualRouterID",
                "192.168.1.110",
                "choose another from 1 to 255",
            ],
        ),
    ]
}

#[test]
fn malformed_manifests_are_refused_and_the_last_good_one_serves() -> Result<()> {
    let manifest = Manifest::article();
    in_cluster(
        "malformed_manifests_are_refused_and_the_last_good_one_serves",
        &manifest,
        |cluster| {
            let mut live = Live::open(cluster, VIP_SERVER1, PORT, 6)?;
            let good = manifest.to_string();
            let file = cluster.manifest_file(Gateway::One);
            let file = file.to_str().context("path")?.to_owned();
            let cases = malformed(&good);
            for Malformed { what, text, words } in &cases {
                cluster.overwrite(Gateway::One, text)?;
                let reason = cluster
                    .wait_status(Gateway::One, "a refusal", |report| {
                        // The reason of the case before may still stand.
                        report
                            .stale_reason
                            .clone()
                            .filter(|reason| words.iter().all(|word| reason.contains(word)))
                    })
                    .with_context(|| *what)?;
                ensure!(
                    reason.contains(&file),
                    "{what}: the file is not named: {reason}"
                );
                ensure!(
                    cluster.http(Gateway::One, "/readyz")?.0 == 503,
                    "{what}: /readyz hides it"
                );
                live.undisturbed().with_context(|| *what)?;
                cluster.overwrite(Gateway::One, &good)?;
                cluster.wait_status(Gateway::One, "the good manifest", |report| {
                    report.stale_reason.is_none().then_some(())
                })?;
            }
            ensure!(cluster.http(Gateway::One, "/readyz")?.0 == 200);

            // The files are gone and the host starts anew: it serves what it accepted last.
            fs::remove_file(cluster.manifest_file(Gateway::One))?;
            cluster.wait_status(Gateway::One, "the missing file", |report| {
                report.stale_reason.clone()
            })?;
            live.undisturbed().context("the file removed")?;
            cluster.stop(Gateway::One)?;
            live.end_with(1001)?;
            cluster.start(Gateway::One)?;
            cluster.wait_home()?;
            Live::open(cluster, VIP_SERVER1, PORT, 3)?;
            let reason = cluster
                .status(Gateway::One)?
                .stale_reason
                .unwrap_or_default();
            ensure!(
                reason.contains(&file),
                "status does not say what is missing: {reason:?}"
            );
            let mode = fs::metadata(cluster.state_dir(Gateway::One).join("accepted.json"))?
                .permissions()
                .mode();
            ensure!(
                mode & 0o777 == 0o600,
                "the accepted state has mode {mode:o}"
            );

            // It is back: nothing to tell any more, and nobody notices.
            let mut live = Live::open(cluster, VIP_SERVER1, PORT, 3)?;
            cluster.replace(Gateway::One, &good)?;
            cluster.wait_status(Gateway::One, "the manifest", |report| {
                report.stale_reason.is_none().then_some(())
            })?;
            live.undisturbed()
        },
    )
}
