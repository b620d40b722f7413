//! keepalived and nginx: the article's set-up, and the best that keepalived can do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{Router, Settings, Subject};
use crate::lab::{BACKEND_PORT, Host, INTERFACE, Lab, PORT, Process};
use crate::{tools, wait};

/// Priorities of an address's owner and of its heir.
type Priorities = [u8; 2];
const ARTICLE: Priorities = [100, 50];
/// wsha's planner's: near the top the skew is short, and so is the heir's wait.
const BEST: Priorities = [250, 244];

/// Writes the configurations of `host`.
pub(super) fn configure(
    lab: &Lab,
    host: &Host,
    subject: Subject,
    four_backends: bool,
    settings: &Settings,
) -> Result<()> {
    let dir = host.dir();
    let keepalived = match subject {
        Subject::Best => best(host, settings),
        _ => article(host, settings),
    };
    fs::write(dir.join("keepalived.conf"), keepalived)?;
    fs::write(dir.join("nginx.conf"), nginx(lab, host, four_backends))?;
    // The article's `killall -0 nginx`, for hosts that share one table of processes.
    let check = format!(
        "#!/bin/sh\nread -r pid < {}/nginx.pid && kill -0 \"$pid\"\n",
        dir.display()
    );
    let script = dir.join("chk_nginx.sh");
    fs::write(&script, check)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700))?;
    fs::create_dir_all(dir.join("nginx-temp"))?;
    let named = dir.join(nginx_name(host));
    if fs::symlink_metadata(&named).is_err() {
        symlink(tools::need("nginx", "nginx-light")?, &named)?;
    }
    Ok(())
}

/// Name under which nginx runs on `host`: keepalived's process tracking sees names of the whole machine.
fn nginx_name(host: &Host) -> String {
    let lab = host
        .dir()
        .parent()
        .and_then(|dir| dir.file_name())
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let mut parts = lab.split('-');
    let (pid, count) = (
        parts.next().unwrap_or_default(),
        parts.next_back().unwrap_or_default(),
    );
    // The kernel keeps 15 bytes.
    format!(
        "ng{}-{pid}.{count}",
        host.name().trim_start_matches("server")
    )
}

/// Starts what does not run: nginx first, as keepalived looks for it.
pub(super) fn start(host: &Host, running: &mut Vec<Process>, subject: Subject) -> Result<()> {
    let dir = host.dir();
    if !running.iter().any(|process| process.name() == "nginx") {
        let mut nginx = Command::new(dir.join(nginx_name(host)));
        nginx
            .arg("-p")
            .arg(dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("nginx-error.log"));
        running.push(host.spawn("nginx", nginx)?);
    }
    if !running.iter().any(|process| process.name() == "keepalived") {
        let mut keepalived = Command::new(tools::need("keepalived", "keepalived")?);
        keepalived.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        keepalived
            .arg("--use-file")
            .arg(dir.join("keepalived.conf"));
        keepalived
            .arg("--pid")
            .arg(dir.join("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(dir.join("vrrp.pid"));
        // The pid files of one that was killed keep the next from starting when their numbers were taken anew.
        for file in ["keepalived.pid", "vrrp.pid"] {
            drop(fs::remove_file(dir.join(file)));
        }
        running.push(match subject {
            Subject::Best => host.spawn_outside("keepalived", keepalived)?,
            _ => host.spawn("keepalived", keepalived)?,
        });
    }
    Ok(())
}

/// Has nginx read its configuration again; waits for a worker of the new generation.
pub(super) fn reload_nginx(host: &Host) -> Result<()> {
    let workers = || {
        host.processes_where(|line| {
            line.starts_with("nginx: worker process") && !line.contains("shutting down")
        })
    };
    let before = workers();
    let mut reload = Command::new(host.dir().join(nginx_name(host)));
    let dir = host.dir();
    reload
        .arg("-p")
        .arg(dir)
        .arg("-c")
        .arg(dir.join("nginx.conf"))
        .arg("-e")
        .arg(dir.join("nginx-error.log"))
        .args(["-s", "reload"]);
    let output = host.output(reload)?;
    if !output.status.success() {
        bail!(
            "nginx -s reload: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    wait::until("nginx's new workers", Duration::from_secs(10), || {
        Ok(workers()
            .iter()
            .any(|pid| !before.contains(pid))
            .then_some(()))
    })
    .context("reload")
}

/// The article's configuration, its two instances in its order.
fn article(host: &Host, settings: &Settings) -> String {
    let script = host.dir().join("chk_nginx.sh");
    let head = format!(
        "global_defs {{
    router_id {name}
    vrrp_version 2
    script_user root
    enable_script_security
}}
vrrp_script chk_nginx {{
    script \"{script}\"
    interval 2
}}
",
        name = host.name(),
        script = script.display(),
    );
    head + &instances(
        host,
        settings,
        ARTICLE,
        "advert_int 1",
        "track_script {\n        chk_nginx\n    }",
    )
}

/// keepalived at its best: VRRPv3, short interval, high priorities, process events instead of a script, real-time priority.
fn best(host: &Host, settings: &Settings) -> String {
    let head = format!(
        "global_defs {{
    router_id {name}
    vrrp_version 3
{real_time}}}
net_namespace {name}
vrrp_track_process chk_nginx {{
    process {nginx}
    quorum 1
}}
",
        name = host.name(),
        nginx = nginx_name(host),
        real_time = if settings.real_time {
            "    vrrp_rt_priority 50\n    vrrp_rlimit_rttime 1000000\n"
        } else {
            ""
        },
    );
    let interval = format!("advert_int {:.2}", settings.advertisement.as_secs_f64());
    head + &instances(
        host,
        settings,
        BEST,
        &interval,
        "track_process {\n        chk_nginx\n    }",
    )
}

/// The virtual routers, in their order.
fn instances(
    host: &Host,
    settings: &Settings,
    [owner, heir]: Priorities,
    interval: &str,
    track: &str,
) -> String {
    let instance = |(index, router): (usize, &Router)| {
        let (state, priority) = if host.name() == router.owner {
            ("MASTER", owner)
        } else {
            ("BACKUP", heir)
        };
        format!(
            "vrrp_instance VI_{number} {{
    state {state}
    interface {INTERFACE}
    virtual_router_id {vrid}
    priority {priority}
    {interval}
    virtual_ipaddress {{
        {address}
    }}
    {track}
}}
",
            number = index + 1,
            vrid = router.vrid,
            address = router.address,
        )
    };
    settings.routers.iter().enumerate().map(instance).collect()
}

/// The article's nginx, with the paths that a lab needs.
fn nginx(lab: &Lab, host: &Host, four_backends: bool) -> String {
    let backends = lab
        .backends()
        .iter()
        .take(if four_backends { 4 } else { 3 });
    let servers: Vec<String> = backends
        .map(|b| format!("        server {}:{BACKEND_PORT};", b.address()))
        .collect();
    format!(
        "daemon off;
worker_processes 2;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
events {{
    worker_connections 4096;
}}
http {{
    access_log off;
    client_body_temp_path {dir}/nginx-temp/body;
    proxy_temp_path {dir}/nginx-temp/proxy;
    fastcgi_temp_path {dir}/nginx-temp/fastcgi;
    uwsgi_temp_path {dir}/nginx-temp/uwsgi;
    scgi_temp_path {dir}/nginx-temp/scgi;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}
    upstream websocket {{
{servers}
    }}
    server {{
        listen {PORT};
        location / {{
            proxy_pass http://websocket;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
",
        dir = host.dir().display(),
        servers = servers.join("\n"),
    )
}
