//! A proxy with gigabytes resident is killed: the kernel needs long to tear its memory down, and nobody waits for that.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::arp::ArpWatch;
use e2e::ballast;
use e2e::lab::{PORT, VIP_SERVER1, VIP_SERVER2};
use e2e::testing::{Event, Gateway, Manifest, Part, SETTLE, Session, Watch, in_cluster};
use e2e::wait;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

const HIT: Gateway = Gateway::One;
/// Torn down in hundreds of milliseconds.
const RESIDENT: u64 = 3 << 30;
/// How often the dying process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Whether its files may still be open: the last thread tears the memory down and closes them then, when the first one
/// may be a zombie already.
fn is_dying(pid: Pid) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    threads.into_iter().flatten().flatten().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        state.is_some_and(|state| !state.starts_with('Z'))
    })
}

/// The other host announces the address, and clients are told, while the dead proxy has not even ended.
#[test]
fn a_large_proxy_is_missed_before_it_has_ended() -> Result<()> {
    let test = "a_large_proxy_is_missed_before_it_has_ended";
    in_cluster(test, &Manifest::article(), |cluster| {
        let watch = Watch::start(cluster, &[VIP_SERVER1, VIP_SERVER2])?;
        let arp = ArpWatch::start(&cluster.lab, &[VIP_SERVER1], Duration::from_millis(10))?;
        let proxy = cluster.pid(HIT, Part::Proxy)?;
        ballast::load(&[proxy], RESIDENT)?;
        watch.settles(cluster, VIP_SERVER1, HIT)?;
        // It says nothing more, and so learns of nothing but what it is told.
        let mut quiet = Session::open_many(cluster.lab.client(), VIP_SERVER1, PORT, 1)?;
        let mut quiet = quiet.pop().context("no session")?;
        let reader = thread::spawn(move || (quiet.next_event(), Instant::now()));

        let struck = Instant::now();
        cluster.signal(HIT, Part::Proxy, Signal::SIGKILL)?;
        let dead = loop {
            if !is_dying(proxy) {
                break Instant::now();
            }
            ensure!(struck.elapsed() < SETTLE, "the proxy does not end");
            thread::sleep(LOOK_EVERY);
        };
        let heir = cluster.host(Gateway::Two).mac();
        let announced = wait::until("server2 to announce the address", SETTLE, || {
            let heard = arp.announcements(struck);
            let of_heir =
                |(_, address, mac): &(Instant, _, _)| *address == VIP_SERVER1 && *mac == heir;
            Ok(heard.into_iter().find(of_heir).map(|(at, ..)| at))
        })?;
        let (told, told_at) = reader.join().ok().context("the client's thread panicked")?;
        let [announced, told_after, died] =
            [announced, told_at, dead].map(|at| at.saturating_duration_since(struck));
        println!(
            "announced after {announced:?}, client told after {told_after:?}, ended after {died:?}"
        );
        let told = told?;
        ensure!(
            matches!(told, Event::Reset),
            "the client was not reset: {told:?}"
        );
        ensure!(
            announced < died,
            "announced only {announced:?} after the death; it ended after {died:?}"
        );
        ensure!(
            told_after < died,
            "told only {told_after:?} after the death; it ended after {died:?}"
        );
        watch.undisturbed(VIP_SERVER2, struck)?;
        watch.never_split()
    })
}
