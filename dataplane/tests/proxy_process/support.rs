//! The program under test, an echo backend, and WebSocket clients.

use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message},
};

/// Bound for everything that should take milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Threads of each proxy.
pub(crate) const WORKERS: usize = 2;

pub(crate) type Ws = WebSocketStream<TcpStream>;

/// `wsha-dataplane proxy`; killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: Receiver<Value>,
    records: Receiver<Value>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Usually it has ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Process {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_wsha-dataplane"));
        Self::spawn(program, arguments)
    }

    /// One that may have so many descriptors, and no more by any right.
    pub(crate) fn with_descriptors(most: u32, arguments: &[&str]) -> Self {
        let mut program = Command::new("setpriv");
        program
            .args(["--bounding-set", "-sys_resource", "prlimit"])
            .arg(format!("--nofile={most}:{most}"))
            .arg(env!("CARGO_BIN_EXE_wsha-dataplane"));
        Self::spawn(program, arguments)
    }

    /// One in the control group with this directory.
    pub(crate) fn in_group(group: &Path, arguments: &[&str]) -> Self {
        let mut program = Command::new("sh");
        program
            .args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec "$@""#])
            .arg(group)
            .arg(env!("CARGO_BIN_EXE_wsha-dataplane"));
        Self::spawn(program, arguments)
    }

    fn spawn(mut program: Command, arguments: &[&str]) -> Self {
        let mut child = program
            .args(["proxy", "--log-format", "json", "--workers"])
            .arg(WORKERS.to_string())
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = objects(child.stderr.take().unwrap());
        let records = objects(child.stdout.take().unwrap());
        Self {
            child,
            log,
            records,
        }
    }

    /// The next access record.
    pub(crate) fn record(&self) -> Value {
        self.records.recv_timeout(SOON).expect("no access record")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the log event with this message.
    pub(crate) fn logged(&self, message: &str) -> Value {
        let until = Instant::now() + SOON;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let event = self.log.recv_timeout(left);
            let event = event.unwrap_or_else(|error| panic!("`{message}` not logged: {error}"));
            if event["message"] == message {
                return event;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for the end of the process.
    pub(crate) fn ended(mut self) -> ExitStatus {
        // The end of the log is the end of the process: it holds the only other end of the pipe.
        let until = Instant::now() + SOON;
        while let Ok(_) | Err(mpsc::RecvTimeoutError::Timeout) = self
            .log
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            assert!(Instant::now() < until, "the process does not end");
        }
        self.child.wait().unwrap()
    }
}

/// What is written there, a line for each.
fn objects(from: impl Read + Send + 'static) -> Receiver<Value> {
    let (sender, objects) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            eprintln!("{line}");
            if let Ok(object) = serde_json::from_str(&line) {
                drop(sender.send(object));
            }
        }
    });
    objects
}

/// A backend that sends back what it gets, on a thread of its own.
pub(crate) fn echo() -> SocketAddr {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    address
}

async fn serve(stream: TcpStream) {
    // The proxy's check of a new endpoint connects and says nothing.
    let Ok(mut ws) = tokio_tungstenite::accept_async(stream).await else {
        return;
    };
    while let Some(Ok(message)) = ws.next().await {
        if (message.is_text() || message.is_binary()) && ws.send(message).await.is_err() {
            return;
        }
    }
}

pub(crate) async fn connect(address: SocketAddr) -> Ws {
    try_connect(address).await.unwrap()
}

pub(crate) async fn try_connect(address: SocketAddr) -> Result<Ws, Error> {
    let url = format!("ws://{address}/");
    let connecting = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let connected = tokio_tungstenite::client_async(url, stream).await;
        connected.map(|(ws, _)| ws)
    };
    tokio::time::timeout(SOON, connecting).await.unwrap()
}

/// Sends `text` and expects it back.
pub(crate) async fn round_trip(ws: &mut Ws, text: &str) {
    ws.send(Message::text(text)).await.unwrap();
    let next = tokio::time::timeout(SOON, ws.next()).await.unwrap();
    assert_eq!(next.unwrap().unwrap(), Message::text(text));
}

/// The code of the Close frame that comes next.
pub(crate) async fn close_code(ws: &mut Ws) -> u16 {
    match tokio::time::timeout(SOON, ws.next()).await.unwrap() {
        Some(Ok(Message::Close(Some(frame)))) => frame.code.into(),
        other => panic!("Close with a code expected, not {other:?}"),
    }
}
