//! The cluster, and words for what is done with it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::cluster::{Cluster, Local, Node, Provider};
use e2e::testing::{Client, Session, Watch};
use e2e::wait;
use serde_json::Value;

/// Bound against hangs for anything that the cluster is waited for.
pub(crate) const BOUND: Duration = Duration::from_mins(4);
/// Where the chart is installed.
pub(crate) const NAMESPACE: &str = "wsha-system";

/// The cluster at work.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
}

impl Stage {
    pub(crate) fn start(provider: Provider) -> Result<Self> {
        let cluster = provider.start()?;
        Ok(Self { cluster })
    }

    /// The cluster, where its nodes are on this machine.
    pub(crate) fn local(&self) -> Result<&Local> {
        match &self.cluster {
            Cluster::Local(local) => Ok(local),
            Cluster::Remote(_) => bail!("the nodes are not on this machine"),
        }
    }

    /// As [`Self::local`], to be changed.
    pub(crate) fn local_mut(&mut self) -> Result<&mut Local> {
        match &mut self.cluster {
            Cluster::Local(local) => Ok(local),
            Cluster::Remote(_) => bail!("the nodes are not on this machine"),
        }
    }

    /// Where clients are.
    pub(crate) fn client(&self) -> Client<'_> {
        self.cluster.client()
    }

    /// The pool's addresses.
    pub(crate) fn vips(&self) -> [Ipv4Addr; 2] {
        self.cluster.addresses()
    }

    /// Runs `kubectl`, which must go well.
    pub(crate) fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.cluster.console().kubectl(words)?.success()
    }

    /// Runs `helm`, which must go well.
    pub(crate) fn helm(&self, words: &[&str]) -> Result<String> {
        let namespace = ["--namespace", NAMESPACE];
        let answer = self.cluster.console().helm(&[words, &namespace].concat());
        answer?.success()
    }

    /// As [`Self::helm`], with more words.
    pub(crate) fn helm_with(&self, words: &[&str], more: &[String]) -> Result<String> {
        let mut all = words.to_vec();
        all.extend(more.iter().map(String::as_str));
        self.helm(&all)
    }

    /// What `kubectl get WORDS` shows.
    pub(crate) fn get(&self, words: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--output=json"], words].concat())?;
        serde_json::from_str(&text).context("kubectl get shows no JSON")
    }

    /// `kubectl apply` of this text.
    pub(crate) fn apply(&self, text: &str) -> Result<()> {
        let answer = self.cluster.console().kubectl_file(&["apply"], text)?;
        answer.success().map(drop)
    }

    /// Waits until `condition` gives a value.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        mut condition: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        wait::until(what, BOUND, || {
            if let Cluster::Local(local) = &self.cluster {
                local.alive()?;
            }
            condition(self)
        })
    }

    /// Waits until a condition of the pool has this status for the generation that stands.
    pub(crate) fn wait_condition(&self, kind: &str, status: &str) -> Result<()> {
        let mut last = Value::Null;
        let found = self.wait(&format!("{kind}={status} of the pool"), |stage| {
            last = stage.get(&["wshap", "chat"])?;
            let generation = &last["metadata"]["generation"];
            let conditions = last["status"]["conditions"].as_array();
            let wanted = conditions.into_iter().flatten().any(|condition| {
                condition["type"] == kind
                    && condition["status"] == status
                    && condition["observedGeneration"] == *generation
            });
            Ok(wanted.then_some(()))
        });
        found.with_context(|| format!("{:#}", last["status"]))
    }

    /// Names of the nodes that hold `address`.
    pub(crate) fn holders(&self, address: Ipv4Addr) -> Result<Vec<&'static str>> {
        let mut holders = Vec::new();
        for node in self.local()?.nodes() {
            if node.host().holds(address)? {
                holders.push(node.name());
            }
        }
        Ok(holders)
    }

    /// The node that holds `address` alone.
    pub(crate) fn holder(&self, address: Ipv4Addr) -> Result<&Node> {
        match self.holders(address)?[..] {
            [name] => self.local()?.node(name),
            ref holders => bail!("{address} is held by {holders:?}"),
        }
    }

    /// Waits until exactly these nodes hold `address`.
    pub(crate) fn wait_holders(&self, address: Ipv4Addr, holders: &[&str]) -> Result<()> {
        self.wait(&format!("{address} to be held by {holders:?}"), |stage| {
            Ok((stage.holders(address)? == holders).then_some(()))
        })
        .with_context(|| format!("{:?}", self.holders(address)))
    }

    /// Waits until each address has one holder of its own, and both serve.
    pub(crate) fn settle(&self) -> Result<()> {
        let [one, two] = self.vips();
        if let Cluster::Local(_) = self.cluster {
            self.wait("each address to have a node of its own", |stage| {
                let (one, two) = (stage.holders(one)?, stage.holders(two)?);
                Ok((one.len() == 1 && two.len() == 1 && one != two).then_some(()))
            })
            .with_context(|| format!("{:?}, {:?}", self.holders(one), self.holders(two)))?;
        }
        self.wait_condition("Programmed", "True")?;
        self.wait_condition("Ready", "True")?;
        self.vips().into_iter().try_for_each(|address| {
            self.wait("a session", |stage| {
                let opened = Session::open(stage.client(), address);
                Ok(opened
                    .ok()
                    .and_then(|mut session| session.say("hello").ok()))
            })
            .map(drop)
        })
    }

    /// Waits until the status names the node that holds each address.
    pub(crate) fn status_is_true(&self) -> Result<()> {
        self.vips().into_iter().try_for_each(|address| {
            self.wait("the status to name the holder", |stage| {
                let pool = stage.get(&["wshap", "chat"])?;
                let all = pool["status"]["virtualIPs"].as_array();
                let mut all = all.into_iter().flatten();
                let told = all.find(|one| one["address"] == address.to_string());
                let told = told.and_then(|one| one["activeNodeName"].as_str());
                let holder = match &stage.cluster {
                    Cluster::Local(_) => Some(stage.holder(address)?.name()),
                    Cluster::Remote(_) => told,
                };
                Ok((told.is_some() && told == holder).then_some(()))
            })
        })
    }

    /// Watches both addresses by ARP and by a client of each.
    pub(crate) fn watch(&self) -> Result<Watch> {
        Watch::on(self.local()?.lab(), &self.vips())
    }

    /// The one data plane pod of a node that is not on its way out.
    pub(crate) fn gateway_pod(&self, node: &str) -> Result<Option<Value>> {
        let on = format!("--field-selector=spec.nodeName={node}");
        let pods = self.get(&[
            "pods",
            "--namespace",
            NAMESPACE,
            "--selector=app.kubernetes.io/component=dataplane",
            &on,
        ])?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let mut living = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let found = living.next().cloned();
        ensure!(
            living.next().is_none(),
            "{node} has several data plane pods"
        );
        Ok(found)
    }

    /// Prints what the client of `address` saw since `since`.
    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    pub(crate) fn tell(&self, watch: &Watch, address: Ipv4Addr, since: Instant) -> Result<()> {
        let outage = watch.outage(address, since)?;
        println!(
            "    {address}: longest without an echo {} ms; saw {}",
            outage.longest.as_millis(),
            outage.saw()
        );
        Ok(())
    }

    /// What a message about a failure should show.
    pub(crate) fn logs(&self) -> String {
        let look = |words: &[&str]| {
            self.kubectl(words)
                .unwrap_or_else(|error| format!("{error:#}"))
        };
        let mut text = look(&["get", "nodes,pods,events", "--all-namespaces", "-o", "wide"]);
        text += &look(&["get", "wshap", "--all-namespaces", "-o", "yaml"]);
        for component in ["controller", "dataplane"] {
            let selector = format!("--selector=app.kubernetes.io/component={component}");
            let words = [
                "logs",
                "--namespace",
                NAMESPACE,
                &selector,
                "--all-containers",
                "--prefix",
            ];
            text += &look(&[&words[..], &["--tail=60", "--max-log-requests=20"]].concat());
        }
        match &self.cluster {
            Cluster::Local(local) => text + "\n" + &local.logs(),
            Cluster::Remote(_) => text,
        }
    }
}
