//! What the administrator permits, as a file: read at the start, and again whenever it changes.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use plan::{Cluster, Grant, Policy};
use serde::Deserialize;
use tokio::{sync::watch, time::sleep};

use crate::{failure::Failure, wait::put, watch::Changed};

/// Where Kubernetes takes node ports from unless it is told otherwise.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;
/// How often the file is looked at: the kubelet takes a minute to bring a change here.
const LOOK: Duration = Duration::from_secs(5);

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(rename = "virtualIPRanges")]
    virtual_ip_ranges: Option<Vec<String>>,
    port_ranges: Option<Vec<Port>>,
    namespaces: BTreeMap<String, Option<WrittenGrant>>,
    #[serde(rename = "serviceCIDRs")]
    service_cidrs: Option<Vec<String>>,
    node_port_range: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct WrittenGrant {
    #[serde(rename = "virtualIPRanges")]
    virtual_ip_ranges: Option<Vec<String>>,
    port_ranges: Option<Vec<Port>>,
}

/// A range of ports, or one, which YAML makes a number of.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    One(i64),
    Range(String),
}

/// A policy as its file says; `virtual_router_ids` is no part of it.
///
/// # Errors
/// What is wrong in it, with the field and what to write.
pub fn parse(text: &str) -> Result<Policy, String> {
    let written = if text.trim().is_empty() {
        Written::default()
    } else {
        let read: Option<Written> =
            serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        read.unwrap_or_default()
    };
    let mut namespaces = BTreeMap::new();
    for (name, grant) in written.namespaces {
        let grant = grant.unwrap_or_default();
        let path = format!("namespaces.{name}.");
        let grant = self::grant(&path, grant.virtual_ip_ranges, grant.port_ranges)?;
        namespaces.insert(name, grant);
    }
    // A list that is left empty bounds nothing; one of a namespace is meant.
    let grant = grant(
        "",
        written.virtual_ip_ranges.filter(|list| !list.is_empty()),
        written.port_ranges.filter(|list| !list.is_empty()),
    )?;
    let service_ranges = written.service_cidrs.unwrap_or_default().into_iter();
    let service_ranges = service_ranges.enumerate().map(|(index, text)| {
        text.parse::<IpNet>()
            .map(|net| net.trunc())
            .map_err(|_| format!("serviceCIDRs[{index}]: {text:?} is none; write 10.96.0.0/12"))
    });
    let node_ports = match written.node_port_range {
        None => NODE_PORTS,
        Some(text) => ports("nodePortRange", &Port::Range(text))?,
    };
    Ok(Policy {
        virtual_router_ids: None,
        grant,
        namespaces,
        cluster: Some(Cluster {
            service_ranges: service_ranges.collect::<Result<_, _>>()?,
            node_ports,
        }),
    })
}

fn grant(
    path: &str,
    addresses: Option<Vec<String>>,
    port_ranges: Option<Vec<Port>>,
) -> Result<Grant, String> {
    let addresses = addresses.map(|list| {
        let ranges = list.into_iter().enumerate().map(|(index, text)| {
            let range = text.parse();
            range.map_err(|error| format!("{path}virtualIPRanges[{index}]: {error}"))
        });
        ranges.collect::<Result<_, _>>()
    });
    let ports = port_ranges.map(|list| {
        let ranges = list.iter().enumerate();
        let ranges = ranges.map(|(index, it)| ports(&format!("{path}portRanges[{index}]"), it));
        ranges.collect::<Result<_, _>>()
    });
    Ok(Grant {
        virtual_addresses: addresses.transpose()?,
        ports: ports.transpose()?,
    })
}

fn ports(path: &str, written: &Port) -> Result<RangeInclusive<u16>, String> {
    let text = match written {
        Port::One(number) => number.to_string(),
        Port::Range(text) => text.clone(),
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
        (Ok(first), Ok(last)) if 1 <= first && first <= last => Ok(first..=last),
        _ => Err(format!(
            "{path}: {text:?} is no range of ports; write 8000-8999, or one number from 1 to 65535"
        )),
    }
}

/// Reads the file; without one everything is as by default.
///
/// # Errors
/// If it cannot be read, or is not in order.
pub fn read(
    path: Option<&Path>,
    virtual_router_ids: RangeInclusive<u8>,
) -> Result<Policy, Failure> {
    let mut policy = match path {
        Some(path) => read_file(path)?,
        None => parse("").map_err(Failure::plain)?,
    };
    policy.virtual_router_ids = Some(virtual_router_ids);
    Ok(policy)
}

fn read_file(path: &Path) -> Result<Policy, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read --policy {shown}"), error))?;
    parse(&text).map_err(|problem| {
        let problem = io::Error::new(io::ErrorKind::InvalidData, problem);
        Failure::new(format!("--policy {shown} is not in order"), problem)
    })
}

/// Reads the file again whenever it has changed, for ever. One that is not in order changes nothing.
pub async fn follow(
    path: PathBuf,
    virtual_router_ids: RangeInclusive<u8>,
    policy: watch::Sender<Policy>,
    changed: Arc<Changed>,
) {
    let mut problem = None;
    loop {
        sleep(LOOK).await;
        match read(Some(&path), virtual_router_ids.clone()) {
            Ok(read) => {
                problem = None;
                if put(&policy, read) {
                    tracing::info!(file = %path.display(), "the policy has changed");
                    changed.send_replace(());
                }
            }
            Err(failure) => {
                let text = failure.whole();
                if problem.as_ref() != Some(&text) {
                    tracing::error!("the former policy stays in force: {text}");
                    problem = Some(text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_only_node_ports_are_kept() {
        for text in [
            "",
            "# nothing yet\n",
            "virtualIPRanges: []\nportRanges: []\n",
        ] {
            let policy = parse(text).unwrap();
            assert_eq!(policy.grant, Grant::default(), "{text:?}");
            let cluster = policy.cluster.unwrap();
            assert_eq!(cluster.node_ports, 30_000..=32_767);
            assert!(cluster.service_ranges.is_empty());
        }
    }

    #[test]
    fn everything_that_can_be_said() {
        let policy = parse(
            "
virtualIPRanges: [192.0.2.0/24, 192.0.2.10-192.0.2.20]
portRanges: [8000-8999, 443]
namespaces:
  chat: {virtualIPRanges: [192.0.2.7], portRanges: []}
  other:
serviceCIDRs: [10.96.0.0/12]
nodePortRange: 20000-22767
",
        )
        .unwrap();
        assert_eq!(policy.grant.virtual_addresses.map(|it| it.len()), Some(2));
        assert_eq!(policy.grant.ports, Some(vec![8000..=8999, 443..=443]));
        let chat = &policy.namespaces["chat"];
        assert_eq!(chat.virtual_addresses.as_ref().map(Vec::len), Some(1));
        assert_eq!(chat.ports, Some(Vec::new()), "none at all");
        assert_eq!(policy.namespaces["other"], Grant::default());
        let cluster = policy.cluster.unwrap();
        assert_eq!(cluster.service_ranges, ["10.96.0.0/12".parse().unwrap()]);
        assert_eq!(cluster.node_ports, 20_000..=22_767);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, sentence) in [
            (
                "virtualIPRanges: [192.0.2.0]\nnamespaces: {chat: {virtualIPRanges: [a]}}",
                "namespaces.chat.virtualIPRanges[0]: \"a\" is no range of addresses; write",
            ),
            (
                "virtualIPRanges: [192.0.2.1/24]",
                "virtualIPRanges[0]: 192.0.2.1/24 has bits set beyond its prefix length; write",
            ),
            (
                "portRanges: [0]",
                "portRanges[0]: \"0\" is no range of ports; write 8000-8999",
            ),
            (
                "portRanges: [9000-8000]",
                "portRanges[0]: \"9000-8000\" is no range of ports",
            ),
            ("nodePortRange: x", "nodePortRange: \"x\" is no range"),
            ("serviceCIDRs: [x]", "serviceCIDRs[0]: \"x\" is none; write"),
            ("virtualIpRanges: []", "virtualIpRanges"),
            ("portRanges: 7", "expected sequence start"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(sentence), "{text}: {problem}");
        }
    }
}
