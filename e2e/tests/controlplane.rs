//! The control plane itself: it comes, goes, comes back, and leaves nothing behind.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{ControlPlane, Programs, Settings, Site, tools};
use e2e::lab::{Lab, Room};
use e2e::testing::skipped;
use e2e::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const BOUND: Duration = Duration::from_mins(1);

/// A control plane, or none where its programs cannot be had.
fn start(
    test: &str,
    site: impl FnOnce() -> Result<Site>,
    settings: Settings,
) -> Result<Option<ControlPlane>> {
    let programs = settings.programs();
    if let Some(why) = tools::cannot_get(&programs) {
        skipped(test, &why);
        return Ok(None);
    }
    ControlPlane::start(site()?, Programs::get(&programs)?, settings).map(Some)
}

/// How many processes have their working directory below `dir`.
fn at_work(dir: &str) -> Result<usize> {
    let all = std::fs::read_dir("/proc")?.flatten();
    let here = all.filter(|entry| {
        std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    });
    Ok(here.count())
}

#[test]
fn an_api_server_comes_back_with_what_it_knew() -> Result<()> {
    let user = ("reader".to_owned(), vec!["readers".to_owned()]);
    let settings = Settings {
        users: vec![user],
        ..Settings::default()
    };
    let test = "an_api_server_comes_back_with_what_it_knew";
    let Some(control_plane) = start(test, Site::loopback, settings)? else {
        return Ok(());
    };
    let version = control_plane.kubectl(&["version"])?.success()?;
    ensure!(version.contains("Server Version: v1."), "{version}");
    let create = ["create", "configmap", "kept", "--from-literal=key=value"];
    control_plane.kubectl(&create)?.success()?;

    // Another user is known and may do nothing.
    let reader = control_plane.kubeconfig_of("reader");
    let reader = format!("--kubeconfig={}", reader.display());
    let told = control_plane
        .kubectl(&[&reader, "get", "configmap", "kept"])?
        .refusal()?;
    ensure!(
        told.contains(r#"User "reader" cannot get resource "configmaps""#),
        "{told}"
    );

    let url = control_plane.url();
    control_plane.stop_api_server()?;
    let told = control_plane
        .kubectl(&["get", "configmap", "kept"])?
        .refusal()?;
    ensure!(told.contains("refused"), "{told}");
    control_plane.start_api_server()?;
    ensure!(control_plane.url() == url);
    control_plane
        .kubectl(&["get", "configmap", "kept"])?
        .success()?;

    let dir = control_plane.site().dir().to_string_lossy().into_owned();
    ensure!(
        at_work(&dir)? == 2,
        "etcd and the API server are not all that runs"
    );
    drop(control_plane);
    ensure!(at_work(&dir)? == 0, "something goes on");
    ensure!(!std::path::Path::new(&dir).exists(), "{dir} is still there");
    Ok(())
}

#[test]
fn other_hosts_of_a_lab_reach_a_control_plane_with_its_controllers() -> Result<()> {
    let test = "other_hosts_of_a_lab_reach_a_control_plane_with_its_controllers";
    if !nix::unistd::geteuid().is_root() {
        skipped(test, "needs root, for network namespaces");
        return Ok(());
    }
    let settings = Settings {
        controllers: true,
        ..Settings::default()
    };
    let lab = Lab::new()?;
    let site = || lab.add_host("control", 30).map(Site::Host);
    let Some(control_plane) = start(test, site, settings)? else {
        return Ok(());
    };
    ensure!(
        control_plane.url() == "https://192.168.1.30:6443",
        "{}",
        control_plane.url()
    );
    let create = ["create", "deployment", "echo", "--image=localhost/echo:1"];
    control_plane.kubectl(&create)?.success()?;
    wait::until("a pod of the Deployment that has no node", BOUND, || {
        let pods = [
            "get",
            "pods",
            "--selector=app=echo",
            "--output=jsonpath={..reason}",
        ];
        Ok((control_plane.kubectl(&pods)?.success()? == "Unschedulable").then_some(()))
    })?;
    let mut elsewhere = control_plane.kubectl_command()?;
    elsewhere.args(["get", "--raw", "/readyz"]);
    let answer = lab.client().output(elsewhere)?;
    ensure!(
        answer.stdout == b"ok",
        "{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    control_plane.alive()
}

/// Set for the process that owns a room and is ended by a signal.
const OWNER: &str = "WSHA_TEST_ROOM_OWNER";

/// Not a test of its own: [`a_room_ends_with_its_owner`] runs it as a process that it can end.
#[test]
fn owner() -> Result<()> {
    if std::env::var_os(OWNER).is_none() {
        return Ok(());
    }
    let room = Room::new()?;
    let mut sleeper = Command::new("setsid");
    sleeper.args(["--fork", "sleep", "1000"]);
    room.spawn("sleeper", sleeper)?.wait(BOUND)?;
    println!("\nroom {}", room.dir().display());
    std::io::stdout().flush()?;
    std::thread::park();
    Ok(())
}

#[test]
fn a_room_ends_with_its_owner() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let mut owner = Command::new(std::env::current_exe()?)
            .args(["--exact", "owner", "--nocapture"])
            .env(OWNER, "1")
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(owner.stdout.take().context("no output")?).lines();
        let mut lines = lines.map_while(Result::ok);
        let dir = lines.find_map(|line| line.strip_prefix("room ").map(str::to_owned));
        let dir = dir.context("the owner did not tell its room")?;
        ensure!(at_work(&dir)? > 0);
        kill(Pid::from_raw(owner.id().try_into()?), signal)?;
        owner.wait()?;
        if signal == Signal::SIGKILL {
            // Nobody was left to clean up: the next one does.
            drop(Room::new()?);
        }
        ensure!(at_work(&dir)? == 0, "after {signal} something goes on");
        ensure!(
            !std::path::Path::new(&dir).exists(),
            "{dir} outlived {signal}"
        );
    }
    Ok(())
}
