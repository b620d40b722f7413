//! Names of Services: `CoreDNS` beside the control plane, under the Service address that pods ask.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::controlplane::ControlPlane;
use super::tools::Program;
use crate::lab::Process;
use crate::wait;

/// Where pods ask.
pub(super) const ADDRESS: &str = "10.96.0.10";
const BOUND: Duration = Duration::from_mins(3);
const PORT: u16 = 53;

/// Starts it and waits until it answers, which it does once it knows all Services.
pub(super) fn start(control_plane: &ControlPlane) -> Result<Process> {
    let site = control_plane.site();
    let (address, kubeconfig) = (site.address(), control_plane.kubeconfig());
    let file = site.dir().join("Corefile");
    // All else in a block of its own: the answer "no such name" would take cluster.local along.
    let content = format!(
        "cluster.local:{PORT} in-addr.arpa:{PORT} {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {}
    }}
    cache 5
}}
.:{PORT} {{
    bind {address}
    errors
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
",
        kubeconfig.display()
    );
    fs::write(&file, content)?;
    let mut command = control_plane.programs().command(Program::Coredns)?;
    command.arg("-conf").arg(&file);
    let process = site.spawn("coredns", command)?;
    let service = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system}}
spec:
  clusterIP: {ADDRESS}
  ports:
  - {{name: dns, port: {PORT}, protocol: UDP}}
  - {{name: dns-tcp, port: {PORT}, protocol: TCP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: kube-dns
  namespace: kube-system
  labels: {{kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports:
- {{name: dns, port: {PORT}, protocol: UDP}}
- {{name: dns-tcp, port: {PORT}, protocol: TCP}}
endpoints:
- {{addresses: [{address}], conditions: {{ready: true}}}}
"
    );
    control_plane
        .kubectl_file(&["apply"], &service)?
        .success()?;
    wait::until("CoreDNS to listen", BOUND, || {
        ensure!(
            process.is_running(),
            "CoreDNS ended:\n{}",
            process.log_tail()
        );
        Ok(site.listens(PORT)?.then_some(()))
    })?;
    Ok(process)
}
