//! Chromium without a window, and the page that it shows: from loopback, as pages of a site are.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::lab::Host;
use e2e::testing::inside;

use crate::own;

/// Bound against hangs: a browser takes seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// What a page must see of each server.
pub(crate) fn expected(compressed: bool) -> String {
    let extension = if compressed { "permessage-deflate" } else { "" };
    [
        "subprotocol: chat",
        "text: same",
        "empty: same",
        "binary: same",
        "large: same",
        "pinged: pong yours",
        "closing: 4001 clean: true",
        "closed with: 4001 my reason",
        &format!("extensions: {extension}"),
        "compressed: same",
        "closed by: 4002 their reason clean: true",
    ]
    .map(|line| format!("{line}\n"))
    .concat()
}

/// What a page saw of the server with this URL.
pub(crate) fn attempt(host: &Host, chromium: &Path, url: &str) -> Result<String> {
    let page = std::fs::read_to_string(own("page.html"))?;
    let listener = inside(host, || Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?))?;
    let site = listener.local_addr()?;
    let (seen, results) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A browser opens connections that it does not use.
            let (page, seen) = (page.clone(), seen.clone());
            thread::spawn(move || {
                if let Ok(Some(result)) = answer(stream, &page) {
                    drop(seen.send(result));
                }
            });
        }
    });
    let profile = host.dir().join("chromium");
    let mut command = Command::new(chromium);
    command
        .env("HOME", host.dir())
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            // That of a gateway comes from no authority.
            "--ignore-certificate-errors",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://{site}/?{url}"));
    let browser = host.spawn("chromium", command)?;
    let result = results.recv_timeout(PATIENCE);
    result.with_context(|| format!("the page tells nothing: {}", browser.log_tail()))
}

/// Answers one request: the page, or what it found out, which is returned.
fn answer(mut stream: TcpStream, page: &str) -> Result<Option<String>> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, content) = match request.split(' ').collect::<Vec<_>>().as_slice() {
        ["GET", path, ..] if path.starts_with("/?") => ("200 OK", page),
        ["POST", "/done", ..] => ("200 OK", ""),
        _ => ("404 Not Found", ""),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{content}",
        content.len()
    )?;
    let is_result = request.starts_with("POST /done ");
    Ok(is_result.then(|| String::from_utf8_lossy(&body).into_owned()))
}
