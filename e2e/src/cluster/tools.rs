//! The programs of a control plane: those at hand, else built from the Go modules in `e2e/controlplane`.
//!
//! No registry of packages has them as programs. A module there is a `go.mod` with `tool` lines and its
//! `go.sum`; what is built from it lies in a cache outside the tree, under the hash of both.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::tools::{alone, cache_dir, find};

/// Names a directory whose programs are taken unseen, as other projects' tests know it.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// How often a build says that it goes on.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// A program.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Program {
    /// Names of Services.
    Coredns,
    /// The API server's store.
    Etcd,
    /// Installs charts.
    Helm,
    /// The API server.
    KubeApiserver,
    /// The controllers that come with Kubernetes.
    KubeControllerManager,
    /// Service addresses on a node.
    KubeProxy,
    /// Gives pods their nodes.
    KubeScheduler,
    /// The command line.
    Kubectl,
    /// A node's agent.
    Kubelet,
}

/// A Go module of `e2e/controlplane`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Module {
    Kubernetes,
    Coredns,
    Etcd,
    Helm,
}

impl Program {
    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Coredns => "coredns",
            Self::Etcd => "etcd",
            Self::Helm => "helm",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeProxy => "kube-proxy",
            Self::KubeScheduler => "kube-scheduler",
            Self::Kubectl => "kubectl",
            Self::Kubelet => "kubelet",
        }
    }

    fn module(self) -> Module {
        match self {
            Self::Coredns => Module::Coredns,
            Self::Etcd => Module::Etcd,
            Self::Helm => Module::Helm,
            _ => Module::Kubernetes,
        }
    }

    /// The package to build. Its last part is what Go calls the program.
    fn package(self) -> String {
        match self {
            Self::Coredns | Self::Etcd => self.module().path().to_owned(),
            Self::Helm => "helm.sh/helm/v4/cmd/helm".to_owned(),
            other => format!("k8s.io/kubernetes/cmd/{}", other.name()),
        }
    }

    /// What makes it tell its version.
    fn version_words(self) -> &'static [&'static str] {
        match self {
            Self::Coredns => &["-version"],
            Self::Helm => &["version"],
            Self::Kubectl => &["version", "--client"],
            _ => &["--version"],
        }
    }

    /// Whether one that tells this of itself does beside the pinned ones: any etcd of version 3 and
    /// `CoreDNS` of version 1, and of the others the same minor or major version.
    fn suits(self, told: &str, pinned: &str) -> bool {
        let parts = match self {
            Self::Etcd => return told.contains("etcd Version: 3."),
            Self::Coredns => return told.contains("CoreDNS-1."),
            Self::Helm => 1,
            _ => 2,
        };
        let lead: Vec<&str> = pinned.split('.').take(parts).collect();
        told.contains(&format!("{}.", lead.join(".")))
    }
}

impl Module {
    fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Coredns => "coredns",
            Self::Etcd => "etcd",
            Self::Helm => "helm",
        }
    }

    /// Path of the Go module whose version names the release.
    fn path(self) -> &'static str {
        match self {
            Self::Kubernetes => "k8s.io/kubernetes",
            Self::Coredns => "github.com/coredns/coredns",
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::Helm => "helm.sh/helm/v4",
        }
    }

    fn source(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("controlplane")
            .join(self.name())
    }

    fn read(self, file: &str) -> Result<String> {
        let path = self.source().join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The pinned release, such as `v1.34.10`.
    fn version(self) -> Result<String> {
        let text = self.read("go.mod")?;
        let found = text.lines().find_map(|line| {
            let mut words = line
                .split_whitespace()
                .skip_while(|word| *word == "require");
            (words.next() == Some(self.path())).then(|| words.next())?
        });
        found.map(str::to_owned).with_context(|| {
            format!(
                "{} requires no version of {}",
                self.source().display(),
                self.path()
            )
        })
    }

    /// Linker flags: without a version the API server says v0.0.0, and clients and Helm misjudge it.
    fn linker_flags(self) -> Result<String> {
        let version = self.version()?;
        let mut numbers = version.trim_start_matches('v').split('.');
        let (major, minor) = (
            numbers.next().unwrap_or_default(),
            numbers.next().unwrap_or_default(),
        );
        let base = "k8s.io/component-base/version";
        let set = match self {
            Self::Kubernetes => vec![
                format!("{base}.gitVersion={version}"),
                format!("{base}.gitMajor={major}"),
                format!("{base}.gitMinor={minor}"),
                format!("k8s.io/client-go/pkg/version.gitVersion={version}"),
            ],
            Self::Coredns | Self::Etcd => Vec::new(),
            Self::Helm => vec![format!(
                "helm.sh/helm/v4/internal/version.version={version}"
            )],
        };
        let set = set.into_iter().map(|word| format!(" -X {word}"));
        Ok(format!("-s -w{}", set.collect::<String>()))
    }

    /// Where its programs lie once they are built.
    fn cache(self) -> Result<PathBuf> {
        let content = [
            self.read("go.mod")?,
            self.read("go.sum")?,
            self.linker_flags()?,
        ]
        .concat();
        let name = format!(
            "{}-{}-{:016x}",
            self.name(),
            self.version()?,
            hash(content.as_bytes())
        );
        Ok(cache_dir()?.join("controlplane").join(name))
    }
}

/// FNV-1a: tells contents apart, the same on every machine.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Programs by where they lie.
#[derive(Clone, Debug)]
pub struct Programs(BTreeMap<Program, PathBuf>);

impl Programs {
    /// Finds the programs: in `KUBEBUILDER_ASSETS`; on PATH, of a version that suits; built before. Builds
    /// the others, which takes minutes once.
    pub fn get(wanted: &[Program]) -> Result<Self> {
        let mut found = BTreeMap::new();
        let mut missing: BTreeMap<Module, Vec<Program>> = BTreeMap::new();
        for program in wanted {
            match at_hand(*program)? {
                Some(path) => {
                    found.insert(*program, path);
                }
                None => missing.entry(program.module()).or_default().push(*program),
            }
        }
        for (module, programs) in missing {
            found.extend(build(module, &programs)?);
        }
        Ok(Self(found))
    }

    /// Where one of them lies.
    pub fn path(&self, program: Program) -> Result<&Path> {
        let path = self.0.get(&program).map(PathBuf::as_path);
        path.with_context(|| format!("{} was not asked for", program.name()))
    }

    /// A call of one of them.
    pub fn command(&self, program: Program) -> Result<Command> {
        self.path(program).map(Command::new)
    }
}

/// Why the programs cannot be had here, if so.
pub fn cannot_get(wanted: &[Program]) -> Option<String> {
    let missing = wanted
        .iter()
        .find(|program| !matches!(at_hand(**program), Ok(Some(_))))?;
    go().is_none().then(|| {
        format!(
            "needs {}: set {ASSETS}, or install go to build it",
            missing.name()
        )
    })
}

/// A program that needs no building.
fn at_hand(program: Program) -> Result<Option<PathBuf>> {
    let given = std::env::var_os(ASSETS).filter(|dir| !dir.is_empty());
    let given = given.map(|dir| PathBuf::from(dir).join(program.name()));
    if let Some(path) = given.filter(|path| path.is_file()) {
        return Ok(Some(path));
    }
    if let Some(path) = find(program.name()) {
        let told = Command::new(&path)
            .args(program.version_words())
            .stdin(Stdio::null())
            .output();
        let pinned = program.module().version()?;
        if told.is_ok_and(|told| program.suits(&String::from_utf8_lossy(&told.stdout), &pinned)) {
            return Ok(Some(path));
        }
    }
    let built = program.module().cache()?.join(program.name());
    Ok(built.is_file().then_some(built))
}

fn go() -> Option<PathBuf> {
    let usual = PathBuf::from("/usr/local/go/bin/go");
    find("go").or_else(|| usual.is_file().then_some(usual))
}

/// Builds programs of a module, unless another process has done so meanwhile.
fn build(module: Module, programs: &[Program]) -> Result<Vec<(Program, PathBuf)>> {
    let cache = module.cache()?;
    let dir = cache_dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let _alone = alone(&dir.join(format!("controlplane-{}.lock", module.name())))?;
    let missing: Vec<Program> = programs
        .iter()
        .copied()
        .filter(|program| !cache.join(program.name()).is_file())
        .collect();
    if !missing.is_empty() {
        // Beside the cache: a name that is there is whole. A build that was killed left its own behind.
        let staging = cache.with_extension("building");
        if staging.exists() {
            fs::remove_dir_all(&staging)?;
        }
        for dir in [&staging, &cache] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        run_go(module, &missing, &staging)?;
        for program in missing {
            let package = program.package();
            let made = staging.join(go_name(&package));
            // The name must not come before the content, even if the machine goes down.
            File::open(&made)?.sync_all()?;
            fs::rename(&made, cache.join(program.name()))?;
        }
        fs::remove_dir_all(&staging)?;
    }
    let paths = programs
        .iter()
        .map(|program| (*program, cache.join(program.name())));
    Ok(paths.collect())
}

/// What Go calls the program of a package: its last part, a major version left out.
fn go_name(package: &str) -> &str {
    let mut parts = package.rsplit('/');
    let last = parts.next().unwrap_or_default();
    let number = last.strip_prefix('v').unwrap_or_default();
    if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        parts.next().unwrap_or_default()
    } else {
        last
    }
}

fn run_go(module: Module, programs: &[Program], into: &Path) -> Result<()> {
    let go = go().context("go is missing: install it, version 1.26 or later")?;
    let names: Vec<&str> = programs.iter().map(|program| program.name()).collect();
    let names = names.join(", ");
    let began = Instant::now();
    say(&format!(
        "building {names} {} from source, which takes minutes once (into {})",
        module.version()?,
        module.cache()?.display()
    ));
    let mut command = Command::new(go);
    command
        .args(["build", "-v", "-mod=readonly", "-trimpath", "-ldflags"])
        .arg(module.linker_flags()?)
        // A directory, even for one program.
        .arg("-o")
        .arg(into.join(""))
        .args(programs.iter().map(|program| program.package()))
        .current_dir(module.source())
        .envs([("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run go")?;
    let mut last = VecDeque::new();
    let (mut packages, mut said) = (0, Instant::now());
    for line in BufReader::new(child.stderr.take().context("no output of go")?).lines() {
        packages += 1;
        last.push_back(line?);
        if last.len() > 30 {
            last.pop_front();
        }
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            say(&format!(
                "{packages} packages after {} s",
                began.elapsed().as_secs()
            ));
        }
    }
    let status = child.wait().context("cannot wait for go")?;
    ensure!(
        status.success(),
        "{names} cannot be built ({status}):\n{}",
        last.make_contiguous().join("\n")
    );
    say(&format!("built {names} in {} s", began.elapsed().as_secs()));
    if programs
        .iter()
        .any(|program| !into.join(go_name(&program.package())).is_file())
    {
        bail!("go built {names} under other names, see {}", into.display());
    }
    Ok(())
}

/// On standard error, past the capture of the test harness.
fn say(text: &str) {
    drop(std::io::stderr().write_all(format!("control plane: {text}\n").as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_names_a_program_after_its_package() {
        assert_eq!(go_name("k8s.io/kubernetes/cmd/kubelet"), "kubelet");
        assert_eq!(go_name("go.etcd.io/etcd/server/v3"), "server");
        assert_eq!(go_name("example.com/v"), "v");
    }

    #[test]
    fn versions_are_pinned() {
        assert_eq!(Module::Kubernetes.version().unwrap(), "v1.34.10");
        assert_eq!(Module::Etcd.version().unwrap(), "v3.6.16");
        assert_eq!(Module::Helm.version().unwrap(), "v4.3.1");
        assert_eq!(Module::Coredns.version().unwrap(), "v1.14.4");
        let flags = Module::Kubernetes.linker_flags().unwrap();
        assert!(flags.contains("version.gitMinor=34"), "{flags}");
    }

    #[test]
    fn a_program_on_the_path_must_suit() {
        for (program, told, suits) in [
            (Program::Kubectl, "Client Version: v1.34.2", true),
            (
                Program::Kubectl,
                "Client Version: v1.32.4-dispatcher",
                false,
            ),
            (Program::Kubectl, "Client Version: v1.3.4", false),
            (Program::Helm, "version.BuildInfo{Version:\"v4.1.4\"}", true),
            (
                Program::Helm,
                "version.BuildInfo{Version:\"v3.17.2\"}",
                false,
            ),
            (Program::Etcd, "etcd Version: 3.4.23", true),
            (Program::Etcd, "", false),
            (Program::Coredns, "CoreDNS-1.12.0", true),
        ] {
            let pinned = program.module().version().unwrap();
            assert_eq!(program.suits(told, &pinned), suits, "{told}");
        }
    }
}
