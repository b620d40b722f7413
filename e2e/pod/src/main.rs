//! What pods of the local cluster run: without arguments the process that holds a pod's namespaces, with
//! `echo PORT` the article's WebSocket server.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tungstenite::Message;

/// How often a server that is to end looks whether its sessions have.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        [] => pause(),
        ["echo", port] => echo(port),
        _ => Err(anyhow::anyhow!("usage: e2e-pod [echo PORT]")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With standard error closed nobody is left to tell.
            drop(writeln!(std::io::stderr(), "e2e-pod: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Waits to be told to end. Nothing is reaped: no pod here shares its process namespace.
fn pause() -> Result<()> {
    Signals::new([SIGTERM, SIGINT])?.forever().next();
    Ok(())
}

/// Serves until it is told to end, and then until its sessions have ended, as a server in order does.
fn echo(port: &str) -> Result<()> {
    let port: u16 = port.parse().context("PORT is a number up to 65535")?;
    let listener = TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("port {port}"))?;
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let sessions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sessions);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counted = Arc::clone(&counted);
            thread::spawn(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                // That a client went away is no news.
                drop(serve(stream));
                counted.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    signals.forever().next();
    while sessions.load(Ordering::SeqCst) > 0 {
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Text is answered as the article's server does, with its own address; all else comes back as it is.
fn serve(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let own = stream.local_addr()?.ip();
    let Ok(mut session) = tungstenite::accept(stream) else {
        bail!("no handshake");
    };
    loop {
        match session.read()? {
            Message::Text(text) => {
                let answer = format!("Server {own}  received from client: {text}");
                session.send(Message::text(answer))?;
            }
            bytes @ Message::Binary(_) => session.send(bytes)?,
            // Pings and Close are answered by the library.
            _ => {}
        }
    }
}
