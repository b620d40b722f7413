//! A lab with an API server and controllers on a host of its own, and data planes that follow them.

mod dial;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::cluster::{Answer, ControlPlane, Program, Programs, Settings, Site, tools};
use e2e::lab::Process;
use e2e::testing::{Cluster, Gateway, dataplane, in_lab, skipped};
use e2e::wait;
use nix::sys::signal::Signal;
use node_api::stream::AUDIENCE;
use serde_json::Value;

pub(crate) use self::dial::ANSWER;

pub(crate) const VIP1: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 110);
pub(crate) const VIP2: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 112);

/// Bound against hangs. A lease that nobody gave up takes ten seconds of it.
const BOUND: Duration = Duration::from_mins(1);

/// Everything at work.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) control_plane: ControlPlane,
    controllers: Vec<Option<Process>>,
    controllers_words: Vec<String>,
    as_whom: AsWhom,
}

/// As whom controllers speak to the API server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AsWhom {
    /// Who may do everything.
    Administrator,
    /// The chart's ServiceAccount, with the rights that the chart gives it; what it does is recorded.
    Account,
}

/// Runs `body` with `replicas` controllers and a data plane on both gateways.
pub(crate) fn on_stage(
    test: &str,
    replicas: usize,
    body: impl FnOnce(&mut Stage<'_>) -> Result<()>,
) -> Result<()> {
    on_stage_with(test, replicas, &[], AsWhom::Administrator, body)
}

/// The same, with these more words for the controllers.
pub(crate) fn on_stage_with(
    test: &str,
    replicas: usize,
    words: &[&str],
    as_whom: AsWhom,
    body: impl FnOnce(&mut Stage<'_>) -> Result<()>,
) -> Result<()> {
    on_stage_after(test, replicas, words, as_whom, |_| Ok(()), body)
}

/// The same, with something done `before` the controllers start.
pub(crate) fn on_stage_after(
    test: &str,
    replicas: usize,
    words: &[&str],
    as_whom: AsWhom,
    before: impl FnOnce(&Stage<'_>) -> Result<()>,
    body: impl FnOnce(&mut Stage<'_>) -> Result<()>,
) -> Result<()> {
    in_lab(test, |cluster| {
        let mut settings = Settings::default();
        let mut programs = settings.programs();
        if as_whom == AsWhom::Account {
            programs.push(Program::Helm);
        }
        if let Some(why) = tools::cannot_get(&programs) {
            skipped(test, &why);
            return Ok(());
        }
        let site = Site::Host(cluster.lab.add_host("control", 30)?);
        if as_whom == AsWhom::Account {
            settings.api_server_flags = record(site.dir())?;
        }
        let control_plane = ControlPlane::start(site, Programs::get(&programs)?, settings)?;
        let mut stage = Stage {
            cluster,
            control_plane,
            controllers: (0..replicas).map(|_| None).collect(),
            controllers_words: words.iter().map(|&word| word.to_owned()).collect(),
            as_whom,
        };
        let outcome = stage
            .set_up_objects()
            .and_then(|()| before(&stage))
            .and_then(|()| stage.set_up_programs())
            .and_then(|()| body(&mut stage));
        if outcome.is_err() {
            eprintln!("{}", stage.control_plane.logs());
            for number in 0..replicas {
                let log = format!("controller{number}.log");
                let content = fs::read_to_string(stage.control_plane.site().dir().join(&log));
                eprintln!("== {log}\n{}", content.unwrap_or_default());
            }
        }
        outcome
    })
}

/// Flags by which the API server records every request in `audit.log`, but for what was in it.
fn record(dir: &Path) -> Result<Vec<String>> {
    let policy = dir.join("audit.yaml");
    let content = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules: [{level: Metadata}]
";
    fs::write(&policy, content)?;
    Ok(vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", dir.join("audit.log").display()),
    ])
}

fn controller() -> Result<PathBuf> {
    let path = dataplane()?.with_file_name("wsha-controller");
    ensure!(
        path.exists(),
        "{} is missing: cargo build --package controller",
        path.display()
    );
    Ok(path)
}

impl Stage<'_> {
    fn set_up_objects(&self) -> Result<()> {
        self.apply(&crds::definition_yaml()?)?;
        self.kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/websockethapools.wsha.dev",
        ])?;
        self.apply(
            "
apiVersion: v1
kind: Namespace
metadata: {name: wsha}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: wsha-dataplane, namespace: wsha}
",
        )?;
        for gateway in Gateway::BOTH {
            let name = gateway.name();
            self.apply(&format!(
                "
apiVersion: v1
kind: Node
metadata: {{name: {name}, labels: {{wsha.dev/gateway: \"true\"}}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: dataplane-{name}
  namespace: wsha
  labels: {{app.kubernetes.io/name: wsha, app.kubernetes.io/component: dataplane}}
spec:
  nodeName: {name}
  serviceAccountName: wsha-dataplane
  automountServiceAccountToken: false
  containers: [{{name: agent, image: localhost/none}}]
"
            ))?;
        }
        self.policy("")?;
        if self.as_whom == AsWhom::Account {
            self.install_rights()?;
        }
        Ok(())
    }

    fn set_up_programs(&mut self) -> Result<()> {
        for number in 0..self.controllers.len() {
            self.start_controller(number)?;
        }
        let bundle = self.wait("the controllers' authority", |stage| {
            Ok(stage.bundle().ok().filter(|text| !text.is_empty()))
        })?;
        for gateway in Gateway::BOTH {
            let token = self.pod_token(gateway, AUDIENCE)?;
            fs::write(self.token_file(gateway), token)?;
            fs::write(self.authority_file(gateway), &bundle)?;
            self.start_gateway(gateway)?;
        }
        Ok(())
    }

    fn token_file(&self, gateway: Gateway) -> PathBuf {
        self.cluster.host(gateway).dir().join("token")
    }

    /// A token of a gateway's pod for `audience`.
    pub(crate) fn pod_token(&self, gateway: Gateway, audience: &str) -> Result<String> {
        let pod = format!("--bound-object-name=dataplane-{}", gateway.name());
        let audience = format!("--audience={audience}");
        self.token(&["--bound-object-kind=Pod", &pod, &audience])
    }

    /// A token of the data plane's account.
    pub(crate) fn token(&self, words: &[&str]) -> Result<String> {
        let mut all = vec![
            "create",
            "token",
            "wsha-dataplane",
            "-n",
            "wsha",
            "--duration=1h",
        ];
        all.extend(words);
        Ok(self.kubectl(&all)?.trim().to_owned())
    }

    /// Starts the replica of that number.
    pub(crate) fn start_controller(&mut self, number: usize) -> Result<()> {
        let address = self.control_plane.site().address();
        let mut command = Command::new(controller()?);
        command
            .env("KUBECONFIG", self.controllers_config())
            .args(["run", "--namespace=wsha", "--log-format=text"])
            .arg(format!("--replica=controller{number}"))
            .arg(format!("--server-name={address}"))
            .arg(format!("--listen=0.0.0.0:{}", 8443 + number))
            .arg(format!("--admin=127.0.0.1:{}", 8080 + number))
            .arg("--policy")
            .arg(self.policy_file())
            .args(&self.controllers_words);
        let name = format!("controller{number}");
        let process = self.control_plane.site().spawn(&name, command)?;
        self.controllers[number] = Some(process);
        Ok(())
    }

    fn policy_file(&self) -> PathBuf {
        self.control_plane.site().dir().join("policy.yaml")
    }

    /// Lets this be what the administrator permits.
    pub(crate) fn policy(&self, text: &str) -> Result<()> {
        let new = self.policy_file().with_extension("new");
        fs::write(&new, text)?;
        fs::rename(new, self.policy_file())?;
        Ok(())
    }

    fn controllers_config(&self) -> PathBuf {
        match self.as_whom {
            AsWhom::Administrator => self.control_plane.kubeconfig(),
            AsWhom::Account => self.control_plane.site().dir().join("account.yaml"),
        }
    }

    /// The chart's account and rights, the objects that it makes for the controller, and a way to the API
    /// server as that account.
    fn install_rights(&self) -> Result<()> {
        let words = [
            "template",
            "wsha",
            "--namespace=wsha",
            "--show-only=templates/controller/rbac.yaml",
            "--show-only=templates/controller/own.yaml",
        ];
        let tls = self.controllers_words.iter();
        let tls = tls.filter_map(|word| word.strip_prefix("--tls-namespaces="));
        let sets: Vec<_> = tls
            .map(|names| format!("tls.namespaces={{{names}}}"))
            .collect();
        let sets: Vec<_> = sets.iter().map(String::as_str).collect();
        let output = e2e::chart::helm(self.control_plane.programs(), &words, &sets)?;
        let shown = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm template: {shown}");
        self.apply(&String::from_utf8(output.stdout)?)?;
        let token = [
            "create",
            "token",
            "wsha-controller",
            "-n",
            "wsha",
            "--duration=1h",
        ];
        let token = self.kubectl(&token)?;
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": {
                "server": self.control_plane.url(),
                "certificate-authority": self.control_plane.authority().certificate(),
            }}],
            "users": [{"name": "account", "user": {"token": token.trim()}}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "account"}}],
            "current-context": "e2e",
        });
        fs::write(self.controllers_config(), config.to_string())?;
        Ok(())
    }

    /// Runs `wsha-controller retire`.
    pub(crate) fn retire(&self, words: &[&str]) -> Result<Answer> {
        let mut all = vec!["retire", "--namespace=wsha"];
        all.extend(words);
        self.controller_command(&all)
    }

    /// Runs a command of `wsha-controller` that ends by itself.
    pub(crate) fn controller_command(&self, words: &[&str]) -> Result<Answer> {
        let mut command = Command::new(controller()?);
        command
            .env("KUBECONFIG", self.controllers_config())
            .args(words);
        let output = self.control_plane.site().output(command)?;
        Ok(Answer {
            words: words.join(" "),
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Kills every replica.
    pub(crate) fn kill_controllers(&mut self) -> Result<()> {
        for controller in self.controllers.iter_mut().filter_map(Option::take) {
            controller.signal(Signal::SIGKILL)?;
            controller.wait(BOUND)?;
        }
        Ok(())
    }

    /// Kills the replica of that name.
    pub(crate) fn kill_controller(&mut self, name: &str) -> Result<()> {
        let number: usize = name.trim_start_matches("controller").parse()?;
        let controller = self.controllers[number].take().context("it does not run")?;
        controller.signal(Signal::SIGKILL)?;
        controller.wait(BOUND)?;
        Ok(())
    }

    /// Starts a gateway's data plane.
    pub(crate) fn start_gateway(&mut self, gateway: Gateway) -> Result<()> {
        let address = self.control_plane.site().address();
        let mut command = Command::new(dataplane()?);
        command.args(["run", "--node-name", gateway.name(), "--state-dir"]);
        command.arg(self.cluster.state_dir(gateway));
        for number in 0..self.controllers.len() {
            command.arg(format!("--controller={address}:{}", 8443 + number));
        }
        command
            .arg("--controller-ca")
            .arg(self.authority_file(gateway));
        command.arg("--token-file").arg(self.token_file(gateway));
        self.cluster.start_with(gateway, command)
    }

    /// The replica that leads.
    pub(crate) fn leader(&self) -> Result<String> {
        self.kubectl(&[
            "get",
            "lease",
            "wsha-controller",
            "-n",
            "wsha",
            "-o",
            "jsonpath={.spec.holderIdentity}",
        ])
    }

    /// What is kept of pools that are gone.
    pub(crate) fn ledger(&self) -> Result<String> {
        self.kubectl(&[
            "get",
            "configmap",
            "wsha-ledger",
            "-n",
            "wsha",
            "-o",
            "jsonpath={.data.ledger\\.json}",
        ])
    }

    pub(crate) fn stop_api_server(&self) -> Result<()> {
        self.control_plane.stop_api_server()
    }

    pub(crate) fn start_api_server(&self) -> Result<()> {
        self.control_plane.start_api_server()
    }

    pub(crate) fn apply(&self, manifest: &str) -> Result<()> {
        self.control_plane
            .kubectl_file(&["apply", "--server-side"], manifest)?
            .success()?;
        Ok(())
    }

    pub(crate) fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.control_plane.kubectl(words)?.success()
    }

    /// Merges `patch` into an object (`more` as flags of kubectl, a namespace or a subresource).
    pub(crate) fn patch(&self, kind: &str, name: &str, more: &[&str], patch: &Value) -> Result<()> {
        let patch = patch.to_string();
        let words = ["patch", kind, name, "--type=merge", "-p", &patch];
        self.kubectl(&[&words[..], more].concat()).map(drop)
    }

    /// Waits for a state of the stage.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        wait::until(what, BOUND, || look(self))
    }

    /// Waits until a condition of a pool has this status for the generation that stands.
    pub(crate) fn wait_condition(&self, pool: &str, type_: &str, status: &str) -> Result<()> {
        let path = format!(
            "jsonpath={{.metadata.generation}} {{.status.conditions[?(@.type=='{type_}')].observedGeneration}} \
             {{.status.conditions[?(@.type=='{type_}')].status}}"
        );
        let what = format!("{type_}={status} of pool {pool}");
        let done = self.wait(&what, |stage| {
            let shown = stage.kubectl(&["get", "wshap", pool, "-o", &path])?;
            let words: Vec<_> = shown.split_whitespace().collect();
            Ok(
                matches!(words[..], [one, other, stands] if one == other && stands == status)
                    .then_some(()),
            )
        });
        done.with_context(|| {
            self.kubectl(&["get", "wshap", pool, "-o", "yaml"])
                .unwrap_or_default()
        })
    }

    /// The node that status says holds `address`.
    pub(crate) fn active(&self, pool: &str, address: Ipv4Addr) -> Result<String> {
        let path =
            format!("jsonpath={{.status.virtualIPs[?(@.address=='{address}')].activeNodeName}}");
        self.kubectl(&["get", "wshap", pool, "-o", &path])
    }

    /// The host that has `address`.
    pub(crate) fn holder(&self, address: Ipv4Addr) -> Result<String> {
        match self.cluster.lab.holders(address)?[..] {
            [holder] => Ok(holder.to_owned()),
            ref holders => bail!("{address} is held by {holders:?}"),
        }
    }
}
