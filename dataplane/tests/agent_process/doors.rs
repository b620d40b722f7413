//! Who may talk to an agent, and what too many who do cannot break.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use dataplane::{
    ipc::{Hello, ToVrrp},
    sys::channel::Channel,
};
use nix::sys::signal::{Signal, kill};

use crate::{
    POOL,
    host::{Host, eventually, manifests},
};

#[test]
fn many_who_ask_at_once_are_all_answered() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    let processes = || ["vrrp", "proxy"].map(|role| agent.process(role));
    let before = processes();
    let mut streams: Vec<_> = (0..300)
        .map(|_| TcpStream::connect("127.0.0.1:9101").unwrap())
        .collect();
    for stream in &mut streams {
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
            .unwrap();
    }
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    host.wait_ready();
    assert_eq!(processes(), before, "{}", agent.log());
}

#[test]
fn each_socket_is_for_one_user() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&["--proxy-user", "4242"]);
    host.wait_ready();
    let said = host.status_of_stranger();
    assert!(
        said.contains("only root") && said.contains("sudo"),
        "{said}"
    );
    for (name, owner) in [("run/agent.sock", 0), ("run/proxy.sock", 4242)] {
        let metadata = fs::metadata(host.at(name)).unwrap();
        let found = (metadata.mode() & 0o777, metadata.uid());
        assert_eq!(found, (0o600, owner), "{name}");
        let connect = format!(
            "socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, pack_sockaddr_un(\"{name}\")) \
             or print(\"$!\\n\"), exit; sysread(S, $_, 1) or print(\"end\\n\");"
        );
        assert_eq!(host.stranger(&connect).said, "Permission denied");
        // And if the mode did not hold.
        let mode = fs::Permissions::from_mode(0o666);
        fs::set_permissions(host.at(name), mode).unwrap();
        let stranger = host.stranger(&connect);
        assert_eq!(stranger.said, "end");
        let pid = format!("pid={}", stranger.pid());
        eventually("a word of it", || {
            let log = agent.log();
            let mut lines = log.lines();
            lines.any(|line| line.contains("connection of a stranger") && line.contains(&pid))
        });
    }
}

#[test]
fn only_the_vrrp_that_it_started_is_served() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    let vrrp = agent.process("vrrp");
    let stream = UnixStream::connect(host.at("run/agent.sock")).unwrap();
    let channel = Channel::new(stream, Duration::from_secs(5)).unwrap();
    channel.send(&Hello::Vrrp, &[]).unwrap();
    assert!(channel.receive::<ToVrrp>().unwrap().is_none());
    agent.wait_log("refused a vrrp process that this agent did not start");
    host.wait_ready();
    assert_eq!(agent.process("vrrp"), vrrp);
}

/// Inodes of the sockets in this network namespace that listen on a port.
fn listening(port: u16) -> Vec<String> {
    let port = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let rows = table.lines().map(|row| row.split_whitespace().collect());
    rows.filter(|row: &Vec<_>| row[1].ends_with(&port) && row[3] == "0A")
        .map(|row| format!("socket:[{}]", row[9]))
        .collect()
}

#[test]
fn clients_of_a_dead_proxy_are_refused() {
    let Some(host) = Host::new() else { return };
    host.write(&manifests(&["server1"], &POOL));
    let agent = host.start(&[]);
    host.wait_ready();
    host.wait_active();
    let sockets = listening(POOL[0]);
    assert_eq!(sockets.len(), 2, "one for each worker");
    let holders = |pid: String| {
        let fds = fs::read_dir(Path::new("/proc").join(pid).join("fd")).unwrap();
        let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        links
            .filter(|link| sockets.iter().any(|one| Path::new(one) == link))
            .count()
    };
    let proxy = agent.process("proxy").unwrap();
    assert_eq!(holders(proxy.to_string()), 2);
    // A copy here would accept for nobody.
    assert_eq!(holders(agent.pid().to_string()), 0);
    let vrrp = agent.process("vrrp").unwrap();
    assert_eq!(holders(vrrp.to_string()), 0);

    let address = format!("192.168.7.110:{}", POOL[0]).parse().unwrap();
    eventually("refused", || {
        match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            Ok(_) => {
                if let Some(proxy) = agent.process("proxy") {
                    kill(proxy, Signal::SIGKILL).unwrap();
                }
                false
            }
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        }
    });
}
