//! Configurations of a node's daemons.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::Identity;

/// Where the runtime listens, on each node's own `/run`.
pub(super) const RUNTIME: &str = "/run/containerd/containerd.sock";
/// Where Debian's package has the plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// Addresses of all pods.
pub(super) const PODS: &str = "10.244.0.0/16";

/// Files that were written.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) containerd: PathBuf,
    pub(super) kubelet: PathBuf,
    pub(super) proxy: PathBuf,
}

/// Addresses of the pods of the node at `address`.
pub(super) fn pod_range(address: Ipv4Addr) -> String {
    let [.., last] = address.octets();
    format!("10.244.{last}.0/24")
}

/// Writes all of them into the node's directory.
pub(super) fn write(node: &Identity, dir: &Path, runc: &Path, pause: &str) -> Result<Files> {
    let plugins = dir.join("cni");
    fs::create_dir_all(&plugins)?;
    let file = |name: &str, content: String| -> Result<PathBuf> {
        let path = dir.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    file("cni/10-e2e.conflist", network(node, dir).to_string())?;
    Ok(Files {
        containerd: file("containerd.toml", runtime(dir, runc, pause))?,
        // JSON is YAML.
        kubelet: file("kubelet.yaml", kubelet(node).to_string())?,
        proxy: file("kube-proxy.yaml", proxy(node).to_string())?,
    })
}

fn runtime(dir: &Path, runc: &Path, pause: &str) -> String {
    let (dir, runc) = (dir.display(), runc.display());
    format!(
        r#"version = 2
root = "{dir}/containerd"
state = "/run/containerd/state"
oom_score = 0
disabled_plugins = [
  "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
]
[debug]
  level = "warn"
[grpc]
  address = "{RUNTIME}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Root without CAP_SYS_RESOURCE may not lower it.
  restrict_oom_score_adj = true
  disable_apparmor = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "{runc}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{dir}/cni"
"#
    )
}

fn network(node: &Identity, dir: &Path) -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "e2e",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": pod_range(node.address)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": dir.join("ipam"),
            },
        }],
    })
}

fn kubelet(node: &Identity) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.cgroup),
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "resolvConf": "",
        "clusterDomain": "cluster.local",
        "clusterDNS": [super::super::dns::ADDRESS],
        "containerRuntimeEndpoint": format!("unix://{RUNTIME}"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": node.authority},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": node.serving.certificate,
        "tlsPrivateKeyFile": node.serving.key,
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 12,
        "volumePluginDir": "/var/lib/kubelet/plugins",
        // What is gone cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        // Settings that cannot be made are warnings.
        "featureGates": {"KubeletInUserNamespace": true},
    })
}

fn proxy(node: &Identity) -> serde_json::Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": PODS,
        "hostnameOverride": node.name,
        "oomScoreAdj": 0,
        "clientConnection": {"kubeconfig": node.proxy_kubeconfig},
        // These are the machine's, not the node's.
        "conntrack": {"maxPerCore": 0, "min": 0},
    })
}
