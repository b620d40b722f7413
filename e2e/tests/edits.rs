//! Edits of the manifest under live sessions, and what a host does with files and arguments that it cannot use.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::lab::{PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{
    Cluster, Endpoint, Event, Gateway, Manifest, Part, Pool, SETTLE, Session, Watch, in_cluster,
    in_lab,
};
use e2e::wait;
use node_api::RouterState;

/// Live sessions with the backend that each talks to.
struct Live(Vec<(Session, Ipv4Addr)>);

impl Live {
    fn open(cluster: &Cluster, address: Ipv4Addr, port: u16, count: usize) -> Result<Self> {
        let sessions = Session::open_many(cluster.lab.client(), address, port, count)?;
        let greeted = sessions.into_iter().map(|mut session| {
            let server = session.say("hello")?;
            Ok((session, server))
        });
        Ok(Self(greeted.collect::<Result<_>>()?))
    }

    /// Fails unless each session still talks to its backend and got nothing else.
    fn undisturbed(&mut self) -> Result<()> {
        for (session, server) in &mut self.0 {
            let answered = session.say("still here?")?;
            ensure!(
                answered == *server,
                "a session moved from {server} to {answered}"
            );
            session.undisturbed()?;
        }
        Ok(())
    }

    /// Takes out those of one backend.
    fn split(&mut self, server: Ipv4Addr) -> Self {
        Self(self.0.extract_if(.., |(_, of)| *of == server).collect())
    }

    /// Fails unless each session ends by a Close with this code.
    fn end_with(&mut self, code: u16) -> Result<()> {
        for (number, (session, _)) in self.0.iter_mut().enumerate() {
            let event = session.next_event()?;
            ensure!(
                matches!(event, Event::Close(Some(told), _) if told == code),
                "session {number} got {event:?}, not Close {code}"
            );
        }
        Ok(())
    }
}

/// What is edited, and how.
type Edit = (&'static str, fn(&mut Vec<Pool>));

/// One after another, each on top of those before.
const EDITS: [Edit; 15] = [
    ("an endpoint added", |pools| {
        pools[0].endpoints.push(Endpoint::backend(19));
    }),
    ("an endpoint removed that nobody uses", |pools| {
        pools[0].endpoints.truncate(3);
    }),
    ("another weight", |pools| pools[0].endpoints[0].weight = 5),
    ("other time-outs", |pools| {
        pools[0].upstream = vec!["connectTimeout: 1s".into(), "handshakeTimeout: 3s".into()];
    }),
    ("another way to choose", |pools| {
        pools[0]
            .upstream
            .push("loadBalancing: { type: LeastConnections }".into());
    }),
    ("other heartbeats", |pools| {
        pools[0]
            .spec
            .push("heartbeat: { interval: 15s, timeout: 5s }".into());
    }),
    ("another drain", |pools| {
        pools[0]
            .spec
            .push("drain: { timeout: 1s, closeCode: 1012 }".into());
    }),
    ("fixed priorities", |pools| fix_priorities(pools, 180, 190)),
    ("other priorities", |pools| fix_priorities(pools, 120, 130)),
    ("preferred nodes again", |pools| {
        pools[0].virtual_ips = Manifest::article().pools.remove(0).virtual_ips;
    }),
    ("a longer interval", |pools| {
        pools[0]
            .spec
            .push("vrrp: { advertisementInterval: 300ms }".into());
    }),
    ("the default interval", |pools| pools[0].spec.truncate(2)),
    ("a second pool", |pools| {
        let entry = format!("address: {SECOND}, preferredNodeName: server1");
        let listeners = vec![("other", 8021)];
        pools.push(Pool {
            listeners,
            ..Pool::new("second", vec![entry])
        });
    }),
    ("another listener", |pools| {
        pools[0].listeners.push(("more", 8022));
    }),
    ("that listener removed", |pools| {
        pools[0].listeners.truncate(1);
    }),
];

/// Address of the second pool.
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 111);

/// The article's priorities, written out: the address of each server goes to it.
fn fix_priorities(pools: &mut [Pool], one: u8, two: u8) {
    let entry = |address, one, two| {
        format!(
            "address: {address}, nodePriorities: [{{ nodeName: server1, priority: {one} }}, \
             {{ nodeName: server2, priority: {two} }}]"
        )
    };
    pools[0].virtual_ips = vec![entry(VIP_SERVER2, 90, two), entry(VIP_SERVER1, one, 80)];
}

#[test]
fn edits_close_no_session() -> Result<()> {
    let mut manifest = Manifest::article();
    in_cluster("edits_close_no_session", &manifest.clone(), |cluster| {
        let mut live = Live::open(cluster, VIP_SERVER1, PORT, 9)?;
        live.0.extend(Live::open(cluster, VIP_SERVER2, PORT, 9)?.0);
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        let since = Instant::now();
        for (what, edit) in EDITS {
            edit(&mut manifest.pools);
            cluster.edit(&manifest).context(what)?;
            live.undisturbed().context(what)?;
        }
        cluster.wait_home()?;
        let mut of_second = Live::open(cluster, SECOND, 8021, 3)?;
        manifest.pools.pop();
        cluster.edit_in_place(&manifest)?;
        of_second
            .end_with(1001)
            .context("the second pool removed")?;
        cluster.wait_holders(SECOND, &[])?;
        live.undisturbed()?;
        for (gateway, address) in [(Gateway::One, VIP_SERVER1), (Gateway::Two, VIP_SERVER2)] {
            watch.undisturbed(address, since)?;
            ensure!(
                cluster.entered(gateway, address, RouterState::Active)? == 1,
                "an edit moved {address}"
            );
        }
        watch.never_split()
    })
}

#[test]
fn removals_end_their_own_sessions_with_a_close() -> Result<()> {
    let mut manifest = Manifest::article();
    manifest.pool().listeners.push(("more", 8022));
    manifest
        .pool()
        .spec
        .push("drain: { timeout: 1s, closeCode: 1012 }".into());
    in_cluster(
        "removals_end_their_own_sessions_with_a_close",
        &manifest.clone(),
        |cluster| {
            let mut live = Live::open(cluster, VIP_SERVER1, PORT, 9)?;
            let mut of_address = Live::open(cluster, VIP_SERVER2, PORT, 9)?;

            let mut of_listener = Live::open(cluster, VIP_SERVER1, 8022, 4)?;
            manifest.pool().listeners.pop();
            cluster.edit(&manifest)?;
            of_listener.end_with(1012).context("a listener removed")?;
            ensure!(
                Session::open_at(cluster.lab.client(), VIP_SERVER1, 8022).is_err(),
                "the removed listener accepts"
            );
            live.undisturbed()?;
            of_address.undisturbed()?;

            let gone = Ipv4Addr::new(192, 168, 1, 16);
            manifest
                .pool()
                .endpoints
                .retain(|endpoint| endpoint.address != gone);
            let (mut first, mut second) = (live.split(gone), of_address.split(gone));
            ensure!(
                !first.0.is_empty() && !second.0.is_empty(),
                "{gone} served nobody"
            );
            cluster.edit(&manifest)?;
            first.end_with(1012).context("an endpoint removed")?;
            second.end_with(1012).context("an endpoint removed")?;
            live.undisturbed()?;
            of_address.undisturbed()?;
            for (_, server) in Live::open(cluster, VIP_SERVER1, PORT, 4)?.0 {
                ensure!(server != gone, "a new session went to the removed endpoint");
            }

            manifest.pool().virtual_ips.remove(0);
            cluster.edit(&manifest)?;
            of_address
                .end_with(1012)
                .context("a virtual address removed")?;
            cluster.wait_holders(VIP_SERVER2, &[])?;
            live.undisturbed()
        },
    )
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
            let cases: [(&str, String, &[&str]); 8] = [
                ("no YAML", good.replace("spec:", "spec: ["), &["YAML"]),
                ("cut in half", good[..good.len() / 3].to_owned(), &[]),
                ("empty", String::new(), &["Node"]),
                (
                    "a misspelt field",
                    good.replace("listeners:", "listenrs:"),
                    &["WebSocketHAPool default/chat", "spec.listenrs", "listeners"],
                ),
                (
                    "a port beyond 65535",
                    good.replace("port: 8020", "port: 80200"),
                    &["WebSocketHAPool default/chat", "spec.listeners[0].port"],
                ),
                (
                    "an endpoint on loopback",
                    good.replace("192.168.1.16", "127.0.0.1"),
                    &[
                        "WebSocketHAPool default/chat",
                        "spec.upstreams[0].endpoints[0].address",
                    ],
                ),
                (
                    "an address twice",
                    good.replace("192.168.1.110", "192.168.1.112"),
                    &["WebSocketHAPool default/chat", "spec.virtualIPs[1]"],
                ),
                (
                    "another kind",
                    good.replace("kind: Node", "kind: Nod"),
                    &["kind", "Node"],
                ),
            ];
            for (what, text, words) in &cases {
                cluster.overwrite(Gateway::One, text)?;
                let reason = cluster
                    .wait_status(Gateway::One, "a refusal", |report| {
                        // The reason of the case before may still stand.
                        report
                            .stale_reason
                            .clone()
                            .filter(|reason| words.iter().all(|word| reason.contains(word)))
                    })
                    .with_context(|| (*what).to_owned())?;
                ensure!(
                    reason.contains(&file),
                    "{what}: the file is not named: {reason}"
                );
                ensure!(
                    cluster.http(Gateway::One, "/readyz")?.0 == 503,
                    "{what}: /readyz hides it"
                );
                live.undisturbed().with_context(|| (*what).to_owned())?;
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

/// Runs the gateway's agent to its end, which must be a failure; what it said.
fn refused(cluster: &Cluster, gateway: Gateway, node_name: &str) -> Result<String> {
    let agent = cluster
        .host(gateway)
        .spawn("refused", cluster.run_command_as(gateway, node_name))?;
    let status = agent.wait(Duration::from_secs(20))?;
    ensure!(!status.success(), "it ended with {status}");
    Ok(fs::read_to_string(agent.log())?)
}

#[test]
fn an_unknown_node_name_lists_those_present() -> Result<()> {
    in_lab("an_unknown_node_name_lists_those_present", |cluster| {
        cluster.apply(&Manifest::article())?;
        let said = refused(cluster, Gateway::One, "server9")?;
        ensure!(
            ["server9", "server1", "server2"]
                .iter()
                .all(|name| said.contains(name)),
            "it said {said}"
        );
        ensure!(
            cluster.lab.server1().addresses()?.len() == 1,
            "it took an address"
        );
        Ok(())
    })
}

#[test]
fn a_second_run_names_the_holder_and_a_take_over_follows_it() -> Result<()> {
    in_cluster(
        "a_second_run_names_the_holder_and_a_take_over_follows_it",
        &Manifest::article(),
        |cluster| {
            let mut live = Live::open(cluster, VIP_SERVER1, PORT, 6)?;
            let holder = cluster.pid(Gateway::One, Part::Agent)?;
            let said = refused(cluster, Gateway::One, "server1")?;
            ensure!(
                said.contains(&holder.to_string()),
                "pid {holder} holds the lock; it said {said}"
            );
            live.undisturbed()?;

            // An upgrade: the one that runs stops in order, the new one follows.
            let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
            let since = Instant::now();
            let mut command = cluster.run_command(Gateway::One);
            command.arg("--take-over");
            cluster.start_with(Gateway::One, command)?;
            live.end_with(1001)?;
            let successor = cluster.pid(Gateway::One, Part::Agent)?;
            ensure!(successor != holder);
            cluster.wait_home()?;
            watch.settles(cluster, VIP_SERVER1, Gateway::One)?;
            watch.serves(VIP_SERVER1, Instant::now())?;
            Live::open(cluster, VIP_SERVER1, PORT, 3)?;
            watch.undisturbed(VIP_SERVER2, since)?;
            watch.never_split()
        },
    )
}

#[test]
fn two_hosts_under_one_name_are_reported() -> Result<()> {
    in_lab("two_hosts_under_one_name_are_reported", |cluster| {
        cluster.apply(&Manifest::article())?;
        cluster.start(Gateway::One)?;
        let command = cluster.run_command_as(Gateway::Two, "server1");
        cluster.start_with(Gateway::Two, command)?;
        // Whoever became Active hears nothing of the other, so it is for the other to tell.
        let one_of_them = |text: &str| {
            let mut hosts = Gateway::BOTH
                .into_iter()
                .map(|gateway| cluster.host(gateway).address());
            text.contains("--node-name") && hosts.any(|host| text.contains(&host.to_string()))
        };
        wait::until("a warning that names the other host", SETTLE, || {
            let mut reports = Gateway::BOTH
                .into_iter()
                .filter_map(|gateway| cluster.status(gateway).ok());
            let told = reports.any(|report| report.warnings.iter().any(|text| one_of_them(text)));
            Ok(told.then_some(()))
        })?;
        Ok(())
    })
}
