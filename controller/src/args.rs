//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Plans WebSocketHAPools and pushes them to the gateway nodes of a cluster.
#[derive(Debug, Parser)]
#[command(name = "wsha-controller", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller, with the kubeconfig of the environment or as a pod
    Run(Box<RunArgs>),
    /// Print what would be done for files, without a cluster
    Plan(PlanArgs),
    /// Say whether controller, gateways and pools are at work
    Check(CheckArgs),
    /// Have every gateway give up its addresses and empty its state directory, before wsha is removed
    Retire(RetireArgs),
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Namespace of the controller and of the data-plane pods
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this replica, unique among the replicas
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub replica: String,
    /// Where gateway nodes connect
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:8443")]
    pub listen: SocketAddr,
    /// Names and addresses that gateway nodes use for this controller; the certificate carries them
    #[arg(long, value_name = "NAME", required = true)]
    pub server_name: Vec<String>,
    /// Where /metrics, /healthz and /readyz are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:8080")]
    pub admin: SocketAddr,
    /// Secret of a certificate that somebody else issues and renews, such as cert-manager: with tls.crt,
    /// tls.key and ca.crt; the controller's own authority is not used then
    #[arg(long, value_name = "NAME")]
    pub tls_secret: Option<String>,
    /// Namespaces whose Secrets may be read for TLS of pools there; none: no pool has TLS
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub tls_namespaces: Vec<String>,
    /// Life of the controller's own authority; the next one is made when two thirds are over
    #[arg(long, value_name = "TIME", default_value = "87600h", value_parser = duration)]
    pub authority_life: Duration,
    /// Life of the certificates that it issues; renewed when half of it is over
    #[arg(long, value_name = "TIME", default_value = "720h", value_parser = duration)]
    pub certificate_life: Duration,
    /// ServiceAccount of the data-plane pods
    #[arg(long, value_name = "NAME", default_value = "wsha-dataplane")]
    pub data_plane_account: String,
    /// Labels of the data-plane pods
    #[arg(
        long,
        value_name = "LABELS",
        default_value = "app.kubernetes.io/name=wsha,app.kubernetes.io/component=dataplane"
    )]
    pub data_plane_labels: String,
    /// VRIDs to choose from where no user names one and the last byte of the address is taken
    #[arg(long, value_name = "FIRST-LAST", default_value = "1-255", value_parser = vrids)]
    pub virtual_router_ids: (u8, u8),
    /// What pools may claim, a YAML file that is read again when it changes: virtualIPRanges,
    /// portRanges, both also for each of namespaces; serviceCIDRs, nodePortRange
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// Arguments of `plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// YAML file, or directory of `*.yaml` and `*.yml`
    #[arg(short, long, value_name = "FILE_OR_DIR")]
    pub filename: PathBuf,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Namespace of the controller and of the data-plane pods
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pub namespace: String,
    /// How long it may take until all is well
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
}

/// Arguments of `retire`.
#[derive(Args, Debug)]
pub struct RetireArgs {
    /// Namespace of the controller
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE")]
    pub namespace: String,
    /// How long the gateways may take; those that have not answered then are named
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// Fail if a gateway is left; otherwise that is a warning, since it would keep wsha from being
    /// removed for as long as a node is down
    #[arg(long)]
    pub strict: bool,
    /// Withdraw the request instead: gateways take their addresses again
    #[arg(long, conflicts_with = "strict")]
    pub cancel: bool,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: Result<crds::Duration, _> = text.parse();
    duration
        .map(crds::Duration::get)
        .map_err(|_| "write a time such as 60s or 1m30s".to_owned())
}

fn vrids(text: &str) -> Result<(u8, u8), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if 1 <= first && first <= last => Ok((first, last)),
        _ => Err("write two numbers from 1 to 255, such as 1-255".to_owned()),
    }
}
