//! The command line.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, builder::RangedU64ValueParser};

use crate::sys::pages::MOST_WORKERS;

const RUN_HELP: &str = "\
Environment:
  WSHA_NODE_NAME       as --node-name
  WSHA_POD_CREATED_AT  as --pod-created-at
  WSHA_TLS_DIR         as --tls-dir
  RUST_LOG             what is logged: error, warn, info (default), debug or trace

Signals:
  SIGTERM, SIGINT  stop in order: listeners, sessions (Close), priority 0, addresses
  SIGHUP           look at the files now, even at one that a program still has open to write;
                   nothing with --controller";

const PROXY_HELP: &str = "\
Environment:
  RUST_LOG  what is logged: error, warn, info (default), debug or trace

Signals:
  SIGTERM, SIGINT  stop in order: listeners, sessions (Close); with --restart, do not start the
                   proxy again: it stops on the agent's word, or when the agent is gone";

fn workers() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MOST_WORKERS as u64)
}

/// As many as a pool may be limited to.
fn most() -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// Highly available WebSocket entry points: virtual addresses by VRRP, and a proxy behind them.
#[derive(Debug, Parser)]
#[command(name = "wsha-dataplane", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this host's part of the pools: virtual addresses and proxy
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),
    /// Show virtual addresses, states, peers, sessions and endpoints of the running agent
    Status(StatusArgs),
    /// Check this host and its network: rights, real-time priority, filters, who answers for the
    /// addresses; changes nothing
    Doctor(DoctorArgs),
    /// Ask the agent of this run directory whether it lives or is ready, for a kubelet
    Probe(ProbeArgs),
    /// Run the proxy of an agent that was started with `--proxy external`; or alone, without virtual
    /// addresses, for trying and measuring
    #[command(
        after_help = PROXY_HELP,
        override_usage = "wsha-dataplane proxy --run-dir <DIR> --restart [OPTIONS]\n       \
            wsha-dataplane proxy --listen <ADDRESS:PORT> --upstream <ADDRESS:PORT> [OPTIONS]"
    )]
    Proxy(ProxyArgs),
    /// An agent that another one followed, and that waits for SIGTERM; `run --stay` becomes it
    #[command(hide = true)]
    Stay(StayArgs),
    /// The process that holds the virtual addresses; started by `run`
    #[command(hide = true)]
    Vrrp(VrrpArgs),
}

/// Arguments of `run`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("source").required(true).args(["manifests", "controller"])))]
pub struct RunArgs {
    /// YAML file, or directory of `*.yaml` and `*.yml`, with WebSocketHAPool, Node, Service and
    /// EndpointSlice objects; watched, changes take effect at once
    #[arg(long, value_name = "FILE_OR_DIR")]
    pub manifests: Option<PathBuf>,
    /// Follow the controller at this address instead of files: a stream is kept to each address of
    /// the name; may be given several times
    #[arg(long, value_name = "HOST:PORT", requires_all = ["controller_ca", "token_file"])]
    pub controller: Vec<String>,
    /// Certificates of the authorities that the controller's certificate comes from, PEM; read for
    /// each stream
    #[arg(long, value_name = "FILE", requires = "controller")]
    pub controller_ca: Option<PathBuf>,
    /// `ServiceAccount` token that tells the controller which node this is; read for each stream
    #[arg(long, value_name = "FILE", requires = "controller")]
    pub token_file: Option<PathBuf>,
    /// Name of this host among the Node objects
    #[arg(long, value_name = "NAME", env = "WSHA_NODE_NAME")]
    pub node_name: String,
    /// Directory for the last accepted state and the lock of this host's one agent;
    /// made if absent
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// If an agent runs already with this state directory, ask it to stop in order and follow it
    #[arg(long)]
    pub take_over: bool,
    /// Once another agent has taken over, or while one of a newer pod runs, do not end but wait for
    /// SIGTERM, holding nothing: for pods, whose kubelet would start this one again
    #[arg(long, requires_all = ["take_over", "pod_created_at"])]
    pub stay: bool,
    /// Directory that lasts as long as this pod, such as an emptyDir volume that is not in memory:
    /// when an agent first looked there, the pod is taken to have been made; an agent refuses to be
    /// taken over by one of an older pod
    #[arg(long, value_name = "DIR", env = "WSHA_POD_CREATED_AT")]
    pub pod_created_at: Option<PathBuf>,
    /// Who starts the proxy
    #[arg(long, value_enum, value_name = "WHO", default_value_t = ProxyStart::Child)]
    pub proxy: ProxyStart,
    /// Directory for sockets [default: /run/wsha/ and a hash of the state directory's path]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// User of the proxy process [default: wsha-proxy where it exists, else 65534]
    #[arg(long, value_name = "NAME|UID")]
    pub proxy_user: Option<String>,
    /// Worker threads of the proxy, 64 at most [default: one per core]
    #[arg(long, value_name = "N", value_parser = workers())]
    pub workers: Option<usize>,
    /// How the proxy reads from sockets of sessions without TLS [default: epoll]
    #[arg(long, value_enum, value_name = "HOW")]
    pub io: Option<Io>,
    /// What the proxy takes over all pools.
    #[command(flatten)]
    pub gateway: GatewayArgs,
    /// Directory of the programs that checks of the files may run (`command`), as the proxy's user; it
    /// and what is in it must be root's and writable by nobody else
    #[arg(long, value_name = "DIR", conflicts_with = "controller")]
    pub check_dir: Option<PathBuf>,
    /// Directory of certificates and keys, for pools with `tls`: of the Secret that a pool of NAMESPACE
    /// calls NAME the files NAMESPACE/NAME/tls.crt, tls.key and ca.crt; and ticket.keys, the same on all
    /// hosts: keys of session tickets, 32 bytes in base64 a line, the one in use first. Watched; a key
    /// that every user can read is refused
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with = "controller",
        env = "WSHA_TLS_DIR"
    )]
    pub tls_dir: Option<PathBuf>,
    /// Keep private keys in the state directory, not in the run directory, which a reboot empties: a
    /// node then serves listeners with TLS after a reboot without whoever told it the keys
    #[arg(long)]
    pub keys_on_disk: bool,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9101")]
    pub admin: SocketAddr,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// State directory of the agent to ask
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t = OutputFormat::Table)]
    pub output: OutputFormat,
}

/// Arguments of `proxy`.
#[derive(Args, Debug)]
pub struct ProxyArgs {
    /// Where to accept clients; may be given several times
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        required_unless_present_any = ["run_dir", "listen_tls"]
    )]
    pub listen: Vec<SocketAddr>,
    /// Where to accept clients that speak TLS; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["certificate", "key"])]
    pub listen_tls: Vec<SocketAddr>,
    /// Certificate of `--listen-tls` and those between it and its authority, PEM
    #[arg(long, value_name = "FILE", requires = "listen_tls")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "listen_tls")]
    pub key: Option<PathBuf>,
    /// Server to relay to; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "run_dir")]
    pub upstream: Vec<SocketAddr>,
    /// Write a line of JSON to standard output for so many of 100 sessions as they end
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub access_log: Option<u8>,
    /// Worker threads, 64 at most [default: one per core]
    #[arg(long, value_name = "N", value_parser = workers())]
    pub workers: Option<usize>,
    /// How to read from sockets of sessions without TLS; where the kernel or a container's filter of
    /// system calls refuses `io_uring`, it is by epoll, and said so
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Io::Epoll)]
    pub io: Io,
    /// What it takes over all pools.
    #[command(flatten)]
    pub gateway: GatewayArgs,
    /// Serve the agent of this run directory instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["listen", "listen_tls", "upstream", "access_log"])]
    pub run_dir: Option<PathBuf>,
    /// Wait for the agent, start the proxy as a process of its own, and start it again when it ends
    /// or hangs; end when the agent has stopped in order
    #[arg(long, requires = "run_dir")]
    pub restart: bool,
    /// When the agent has stopped in order, do not end but wait for SIGTERM, or for an agent to be
    /// there again
    #[arg(long, requires = "restart")]
    pub stay: bool,
    /// Descriptor of a page to beat on; given by `--restart`
    #[arg(long, hide = true, requires = "run_dir")]
    pub beats: Option<i32>,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What a gateway takes over all its pools, whose own limits hold besides.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct GatewayArgs {
    /// Sessions over all pools, 1000000 at most; more clients are answered 503, with a Retry-After
    /// [default: no limit but that of descriptors and memory]
    #[arg(long, value_name = "N", value_parser = most())]
    pub max_sessions: Option<u32>,
    /// Handshakes that are brought to servers in a second over all pools, 1000000 at most; more
    /// clients wait for their turn, or are answered 503 where that would take too long [default: no
    /// limit]
    #[arg(long, value_name = "N", value_parser = most())]
    pub handshakes_per_second: Option<u32>,
}

impl GatewayArgs {
    /// The same once more, for a process that is started with them.
    pub fn arguments(self) -> Vec<OsString> {
        let given = [
            ("--max-sessions", self.max_sessions),
            ("--handshakes-per-second", self.handshakes_per_second),
        ];
        let given = given.into_iter().filter_map(|(option, most)| {
            let most = most?;
            Some([option.into(), most.to_string().into()])
        });
        given.flatten().collect()
    }

    /// The first of them that was given.
    pub fn given(self) -> Option<&'static str> {
        let sessions = self.max_sessions.map(|_| "--max-sessions");
        sessions.or_else(|| {
            self.handshakes_per_second
                .map(|_| "--handshakes-per-second")
        })
    }
}

impl From<GatewayArgs> for proxy::GatewayLimits {
    fn from(args: GatewayArgs) -> Self {
        Self {
            sessions: args.max_sessions,
            handshakes_per_second: args.handshakes_per_second,
        }
    }
}

/// Arguments of `vrrp`.
#[derive(Args, Debug)]
pub struct VrrpArgs {
    /// Run directory of the agent to serve
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorArgs {
    /// State directory of the running agent, whose addresses and ports are looked at
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
}

/// Arguments of `probe`.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// What is asked; `live` fails only if nothing answers
    #[arg(value_enum)]
    pub what: Probed,
    /// Run directory of the agent to ask
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
}

/// Arguments of `stay`.
#[derive(Args, Debug)]
pub struct StayArgs {
    /// Run directory, where probes are answered
    #[arg(long, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// Why it waits
    #[arg(long, value_name = "SENTENCE")]
    pub why: String,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Arguments of the agent that it was
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Probed {
    /// Whether the agent's loop turns
    Live,
    /// Whether it serves what it should
    Ready,
}

/// Who starts the proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ProxyStart {
    /// The agent
    Child,
    /// Somebody else, as a container of its own: `proxy --run-dir DIR --restart`
    External,
}

/// How sockets of sessions are read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Io {
    /// One call for each that has something
    #[default]
    Epoll,
    /// One call for all of them: less work with many busy sessions, more with few
    #[value(name = "io_uring")]
    IoUring,
}

impl Io {
    /// The option that says so.
    pub fn argument(self) -> OsString {
        let name = match self {
            Self::Epoll => "epoll",
            Self::IoUring => "io_uring",
        };
        format!("--io={name}").into()
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Form of `status`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Table,
    /// One JSON object
    Json,
}

/// What every process of a host is told alike.
pub fn common_arguments(run_dir: &Path, format: LogFormat) -> Vec<OsString> {
    let format = format.to_possible_value();
    let format = format.map_or_else(|| "text".to_owned(), |value| value.get_name().to_owned());
    vec![
        "--run-dir".into(),
        run_dir.into(),
        "--log-format".into(),
        format.into(),
    ]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn workers_are_as_many_as_the_shared_page_has_room_for() {
        let parse = |count: &str| {
            Cli::try_parse_from([
                "wsha-dataplane",
                "run",
                "--manifests",
                "a",
                "--node-name",
                "b",
                "--state-dir",
                "c",
                "--workers",
                count,
            ])
        };
        for count in ["0", "65", "many"] {
            let error = parse(count).unwrap_err().to_string();
            assert!(error.contains("--workers"), "{error}");
        }
        assert!(parse("1").is_ok() && parse("64").is_ok());
        assert_eq!(MOST_WORKERS, 64, "as the help says");
    }

    #[test]
    fn help_says_what_else_is_heard() {
        let mut command = Cli::command();
        let mut help = |name| {
            let command = command.find_subcommand_mut(name).unwrap();
            command.render_long_help().to_string()
        };
        for words in ["RUST_LOG", "SIGHUP", "SIGTERM", "64 at most"] {
            assert!(help("run").contains(words), "{words}");
        }
        let usage = help("proxy");
        assert!(
            usage.contains("proxy --listen <ADDRESS:PORT> --upstream"),
            "{usage}"
        );
    }
    #[test]
    fn what_a_gateway_takes_is_passed_on_as_it_was_given() {
        for given in [
            &["--max-sessions", "5", "--handshakes-per-second", "7"][..],
            &["--handshakes-per-second", "7"],
            &[],
        ] {
            let words = ["wsha-dataplane", "proxy", "--run-dir", "/run"];
            let cli = Cli::try_parse_from([&words, given].concat()).unwrap();
            let Command::Proxy(args) = cli.command else {
                panic!("{cli:?}");
            };
            assert_eq!(args.gateway.arguments(), given);
            let first = given.first().copied();
            assert_eq!(args.gateway.given(), first);
        }
    }
}
