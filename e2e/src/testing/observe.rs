//! What the gateways say of themselves: `status`, and the admin port.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use node_api::{NodeReport, RouterReport, RouterState};

use super::cluster::PATIENCE;
use super::{Cluster, Gateway, inside};
use crate::wait;

const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9101);

impl Cluster {
    /// The gateway's state, as its agent reports it.
    pub fn status(&self, gateway: Gateway) -> Result<NodeReport> {
        let state = self.state_dir(gateway);
        let output = self.output(
            gateway,
            &["status", "--output", "json", "--state-dir", path(&state)?],
        )?;
        ensure!(
            output.status.success(),
            "status on {}: {}",
            gateway.name(),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("status on {} is not a report", gateway.name()))
    }

    /// Waits until the gateway's state gives a value.
    pub fn wait_status<T>(
        &self,
        gateway: Gateway,
        what: &str,
        mut wanted: impl FnMut(&NodeReport) -> Option<T>,
    ) -> Result<T> {
        let mut last = String::new();
        let found = wait::until(&format!("{what} on {}", gateway.name()), PATIENCE, || {
            // An agent that is only just starting cannot be asked yet.
            let report = match self.status(gateway) {
                Ok(report) => report,
                Err(error) => {
                    last = format!("{error:#}");
                    return Ok(None);
                }
            };
            let found = wanted(&report);
            last = format!("{report:#?}");
            Ok(found)
        });
        found.with_context(|| format!("the last state was {last}"))
    }

    /// The gateway's virtual router for an address.
    pub fn router(&self, gateway: Gateway, address: impl Into<IpAddr>) -> Result<RouterReport> {
        let address = address.into();
        let report = self.status(gateway)?;
        let router = router_of(&report, address).cloned();
        router.with_context(|| format!("{} has no virtual router for {address}", gateway.name()))
    }

    /// Waits until the gateway is in a state for an address, and says so.
    pub fn wait_state(
        &self,
        gateway: Gateway,
        address: impl Into<IpAddr>,
        state: RouterState,
    ) -> Result<()> {
        let address = address.into();
        self.wait_status(gateway, &format!("{state:?} for {address}"), |report| {
            let found = router_of(report, address)?;
            (found.state == state).then_some(())
        })
    }

    /// Waits until the gateway has entered a state for an address more than `times` times, see [`Self::entered`].
    pub fn wait_entered_again(
        &self,
        gateway: Gateway,
        address: impl Into<IpAddr>,
        state: RouterState,
        times: usize,
    ) -> Result<()> {
        let address = address.into();
        let what = format!("{state:?} for {address} once more than {times} times");
        self.wait_status(gateway, &what, |report| {
            let found = router_of(report, address)?;
            (entries(found, state) > times).then_some(())
        })
    }

    /// How often the gateway entered a state for an address, as far as its report goes back.
    pub fn entered(
        &self,
        gateway: Gateway,
        address: impl Into<IpAddr>,
        state: RouterState,
    ) -> Result<usize> {
        Ok(entries(&self.router(gateway, address)?, state))
    }

    /// Waits until the gateway counts so many live sessions, over all listeners.
    pub fn wait_sessions(&self, gateway: Gateway, wanted: u64) -> Result<()> {
        self.wait_status(gateway, &format!("{wanted} live sessions"), |report| {
            (sessions(report) == wanted).then_some(())
        })
    }

    /// Live sessions of the gateway, over all listeners.
    pub fn sessions(&self, gateway: Gateway) -> Result<u64> {
        Ok(sessions(&self.status(gateway)?))
    }

    /// Answer of the gateway's admin port: the status code and the body.
    pub fn http(&self, gateway: Gateway, path: &str) -> Result<(u16, String)> {
        inside(self.host(gateway), || {
            let mut stream = TcpStream::connect_timeout(&ADMIN, PATIENCE)
                .context("cannot connect to the admin port")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .with_context(|| format!("no answer to {path}"))?;
            let (head, body) = answer
                .split_once("\r\n\r\n")
                .context("an answer without end of header")?;
            let code = head
                .split_whitespace()
                .nth(1)
                .and_then(|code| code.parse().ok());
            Ok((
                code.with_context(|| format!("no status line: {head}"))?,
                body.to_owned(),
            ))
        })
    }

    /// Sum of the gateway's samples of a counter that carry all of `labels`; zero where there is none.
    pub fn count(&self, gateway: Gateway, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        let (code, text) = self.http(gateway, "/metrics")?;
        ensure!(code == 200, "/metrics answers {code}");
        sum(&text, name, labels)
    }
}

fn router_of(report: &NodeReport, address: IpAddr) -> Option<&RouterReport> {
    let mut routers = report.virtual_routers.iter();
    routers.find(|router| router.addresses.contains(&address))
}

/// How often it entered a state, as far as its report goes back.
fn entries(router: &RouterReport, state: RouterState) -> usize {
    let transitions = router.transitions.iter();
    transitions
        .filter(|transition| transition.to == state)
        .count()
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Sum over the samples of `name`, with or without the suffix of counters, that carry all of `labels`.
fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
    let carried = |(label, value): &(&str, &str)| format!("{label}=\"{value}\"");
    let wanted: Vec<String> = labels.iter().map(carried).collect();
    let mut sum = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        let named = found == name || found.strip_suffix("_total") == Some(name);
        if named && wanted.iter().all(|label| labels.contains(label.as_str())) {
            // Some writers give whole numbers a fraction.
            let whole = value.strip_suffix(".0").unwrap_or(value);
            sum += whole
                .parse::<u64>()
                .with_context(|| format!("not a count: {line}"))?;
        }
    }
    Ok(sum)
}

fn sessions(report: &NodeReport) -> u64 {
    let listeners = report.pools.iter().flat_map(|pool| &pool.listeners);
    listeners.map(|listener| listener.sessions).sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn sums_the_samples_that_carry_all_labels() {
        let text = "# HELP a b\na_total{reason=\"ttl\",vrid=\"1\"} 2\n\
                    a_total{reason=\"ttl\",vrid=\"2\"} 3\nb 7.0\nab_total 9\n";
        assert_eq!(sum(text, "a", &[("reason", "ttl")]).unwrap(), 5);
        assert_eq!(
            sum(text, "a", &[("reason", "ttl"), ("vrid", "2")]).unwrap(),
            3
        );
        assert_eq!(sum(text, "b", &[]).unwrap(), 7);
        assert_eq!(sum(text, "c", &[]).unwrap(), 0);
    }
}
