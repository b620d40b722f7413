//! OpenSSL as a client: another's word on what a handshake and a ticket are.

use std::{
    fs,
    io::{Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio, id},
    slice::from_ref,
};

use proxy::tls::{MinimumVersion, ServerTls, TicketKeys};
use tokio::task::spawn_blocking;

use super::support::{Authority, HOST};
use crate::support::{REQUEST, Rig, named, soon};

/// Does both handshakes by `openssl s_client` and gives what it says. It ends once `marks` have come.
fn s_client(address: SocketAddr, arguments: &[&str], marks: &[&str]) -> String {
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(["-servername", HOST, "-verify_hostname", HOST])
        .args(["-verify_return_error", "-alpn", "http/1.1"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    input.write_all(REQUEST).unwrap();
    let mut output = client.stdout.take().unwrap();
    let mut said = Vec::new();
    let mut text = String::new();
    while !marks.iter().all(|mark| text.contains(mark)) {
        let mut bytes = [0; 4096];
        match output.read(&mut bytes).unwrap() {
            0 => break,
            n => said.extend_from_slice(&bytes[..n]),
        }
        text = String::from_utf8_lossy(&said).into_owned();
    }
    drop(input);
    client.wait().unwrap();
    text
}

/// Files of a test, gone with it.
struct Files(PathBuf);

impl Files {
    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn is_there(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|path| Path::join(&path, program).exists())
}

#[tokio::test]
async fn openssl_resumes_at_another_gateway() {
    if !is_there("openssl") {
        println!("left out: there is no openssl on this machine");
        return;
    }
    let files = Files(std::env::temp_dir().join(format!("wsha-tls-{}", id())));
    fs::create_dir_all(&files.0).unwrap();
    let authority = Authority::new();
    let identity = authority.identity(&[HOST]);
    let (ca, session) = (files.path("ca.pem"), files.path("session.pem"));
    fs::write(&ca, &authority.pem).unwrap();
    let backend = named("hello from behind").await;
    let gateway = |key| {
        Rig::with(&[backend], |pool| {
            let keys = TicketKeys(vec![[key; 32]]);
            let tls = ServerTls::new(from_ref(&identity), MinimumVersion::Tls12, &keys);
            pool.listeners[0].tls = Some(tls.unwrap());
        })
    };
    let (one, two, stranger) = (gateway(1), gateway(1), gateway(2));
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (rig, file, expected) in [
            (&one, "-sess_out", "New"),
            (&two, "-sess_in", "Reused"),
            (&stranger, "-sess_in", "New"),
        ] {
            let address = rig.address;
            let (ca, session) = (ca.clone(), session.clone());
            let client = spawn_blocking(move || {
                let arguments = [version, "-CAfile", &ca, file, &session];
                s_client(address, &arguments, &["101 Switching", "hello from behind"])
            });
            let said = soon(client).await.unwrap();
            assert!(
                said.contains(&format!("{expected}, {name}, Cipher is")),
                "{said}"
            );
            assert!(said.contains("ALPN protocol: http/1.1"), "{said}");
            assert!(said.contains("hello from behind"), "{said}");
        }
    }
}
