//! A real API server that knows our kind, shared by the tests that run at the same time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context, Result, bail};

use super::skipped;
use crate::cluster::{Answer, ControlPlane, Programs, Settings, Site, tools};

/// The API server, and a namespace of it for one test.
#[derive(Debug)]
pub struct Api {
    shared: Arc<Shared>,
    namespace: String,
}

#[derive(Debug)]
struct Shared {
    control_plane: ControlPlane,
    /// What the API server said when it was given our definition.
    defined: Answer,
}

/// Runs `body` with an API server that knows our kind, and a namespace of its own.
pub fn on_api_server(test: &str, body: impl FnOnce(&Api) -> Result<()>) -> Result<()> {
    if let Some(why) = tools::cannot_get(&Settings::default().programs()) {
        skipped(test, &why);
        return Ok(());
    }
    let api = Api::new()?;
    let outcome = body(&api);
    if outcome.is_err() {
        eprintln!("{}", api.shared.control_plane.logs());
    }
    outcome
}

impl Api {
    fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let shared = shared()?;
        shared
            .control_plane
            .kubectl(&["create", "namespace", &namespace])?
            .success()?;
        Ok(Self { shared, namespace })
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.shared.control_plane
    }

    /// What the API server said when it was given our definition.
    pub fn defined(&self) -> &Answer {
        &self.shared.defined
    }

    /// Runs `kubectl WORDS` in the test's namespace.
    pub fn kubectl(&self, words: &[&str]) -> Result<Answer> {
        let namespace = format!("--namespace={}", self.namespace);
        self.control_plane()
            .kubectl(&[&[namespace.as_str()], words].concat())
    }

    /// As [`Self::kubectl`], with `-f` and a file of this content.
    pub fn kubectl_file(&self, words: &[&str], content: &str) -> Result<Answer> {
        let namespace = format!("--namespace={}", self.namespace);
        self.control_plane()
            .kubectl_file(&[&[namespace.as_str()], words].concat(), content)
    }
}

/// The one that runs, else a new one. It ends with the last test that uses it: what is kept in a static
/// would outlive the process.
fn shared() -> Result<Arc<Shared>> {
    static RUNNING: Mutex<Result<Weak<Shared>, String>> = Mutex::new(Ok(Weak::new()));
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    match &*running {
        Ok(weak) => {
            if let Some(shared) = weak.upgrade() {
                return Ok(shared);
            }
        }
        // The next one would fail as slowly.
        Err(why) => bail!("no API server: {why}"),
    }
    match start() {
        Ok(started) => {
            let shared = Arc::new(started);
            *running = Ok(Arc::downgrade(&shared));
            Ok(shared)
        }
        Err(error) => {
            *running = Err(format!("{error:#}"));
            Err(error)
        }
    }
}

fn start() -> Result<Shared> {
    let settings = Settings::default();
    let programs = Programs::get(&settings.programs())?;
    let control_plane = ControlPlane::start(Site::loopback()?, programs, settings)?;
    let defined = control_plane.kubectl_file(&["create"], &crds::definition_yaml()?)?;
    let accepted = defined.clone().success();
    accepted.context("the API server refuses our definition")?;
    let crd = "crd/websockethapools.wsha.dev";
    control_plane
        .kubectl(&["wait", "--for=condition=Established", "--timeout=60s", crd])?
        .success()?;
    Ok(Shared {
        control_plane,
        defined,
    })
}
