//! Follows the files: when they are looked at, and what a look gives.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc},
    task::spawn_blocking,
    time::Instant,
};

use crate::{
    agent::{
        app::Origin,
        chain,
        event::Event,
        files::{self, Accepted, FileSet, ReadError, Refused},
        keys::KeyFiles,
        locks::StateLock,
        state_dir::StateDir,
        watch::{LOOK_ANYWAY, Sight, Watcher},
    },
    sys::clock,
};

/// From a look that may have seen half a change to the one that sees the same again. On file systems
/// that tell nothing (NFS) there is no better sign that a writer is done.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// File or directory.
    pub(super) path: PathBuf,
    /// Which node this is.
    pub(super) node_name: String,
    /// Where accepted files are kept.
    pub(super) state: StateDir,
}

/// What an agent starts with.
#[derive(Debug)]
pub(super) struct First {
    /// What is served.
    pub(super) origin: Origin,
    /// The files as they were looked at, so that only a change of them is looked at again.
    pub(super) known: Option<FileSet>,
    /// The files that are served.
    pub(super) in_use: FileSet,
}

/// Nothing can be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum NothingToServe {
    /// The node is not in the files.
    #[error("{0}")]
    Node(String),
    /// The files cannot be used, and those of before neither.
    #[error("{files}; and there is nothing to go on with: {before}")]
    Files {
        /// What is wrong with the files.
        files: String,
        /// What is wrong with those accepted before.
        before: String,
    },
}

/// Why nothing can be done with the files.
#[derive(Debug)]
enum Unusable {
    /// They cannot be read.
    Unreadable(String),
    /// They are not in order.
    Refused(FileSet, Vec<String>),
    /// They are in order, and this node is not among their nodes.
    Node(String),
}

fn read(source: &Source) -> Result<(Accepted, FileSet), Unusable> {
    let files = files::read(&source.path).map_err(|error| Unusable::Unreadable(chain(&error)))?;
    match files::evaluate(&files, &source.node_name) {
        Ok(accepted) => Ok((accepted, files)),
        Err(Refused::Node(sentence)) => Err(Unusable::Node(sentence)),
        Err(Refused::Content(sentences)) => Err(Unusable::Refused(files, sentences)),
    }
}

/// From the files, or else from what was accepted before.
pub(super) fn first(source: &Source) -> Result<First, NothingToServe> {
    let (sentences, known) = match read(source) {
        Ok((accepted, files)) => {
            return Ok(First {
                origin: Origin {
                    accepted,
                    stale_reason: None,
                    unsaved_reason: None,
                    accepted_unix_ms: clock::now_unix_ms(),
                },
                known: Some(files.clone()),
                in_use: files,
            });
        }
        Err(Unusable::Node(sentence)) => return Err(NothingToServe::Node(sentence)),
        Err(Unusable::Unreadable(sentence)) => (vec![sentence], None),
        Err(Unusable::Refused(files, sentences)) => (sentences, Some(files)),
    };
    let why = sentences.join("; ");
    let saved = source.state.load().map_err(|error| chain(&error));
    let saved = saved.and_then(|saved| {
        let accepted = files::evaluate(&saved.files, &source.node_name);
        let accepted = accepted.map_err(|refused| {
            format!("the files accepted before do not serve either: {refused}")
        })?;
        Ok((accepted, saved))
    });
    let (accepted, saved) = saved.map_err(|before| NothingToServe::Files {
        files: why.clone(),
        before,
    })?;
    for sentence in &sentences {
        tracing::error!("cannot use the files: {sentence}");
    }
    tracing::warn!("starting with the files that were accepted before");
    Ok(First {
        origin: Origin {
            accepted,
            stale_reason: Some(format!(
                "the files cannot be used and those accepted before are in use: {why}"
            )),
            unsaved_reason: None,
            accepted_unix_ms: saved.at_unix_ms,
        },
        known,
        in_use: saved.files,
    })
}

/// Saves what is served. If that fails, what runs is fine; the sentence tells what is not.
pub(super) fn save(state: &StateDir, files: &FileSet) -> Result<(), String> {
    state.save(files).map_err(|error| unsaved(chain(&error)))
}

fn unsaved(why: impl fmt::Display) -> String {
    format!(
        "the files in use are not saved: {why}; a start with files that cannot be used would go on \
         with older ones, or fail; remove the cause: it is tried again within 10 s"
    )
}

/// Looks at the files whenever they may have changed, and when `asked`; ends when the agent does.
pub(super) async fn follow(
    mut follower: Follower,
    keys: KeyFiles,
    lock: Arc<StateLock>,
    asked: Arc<Notify>,
    events: mpsc::Sender<Event>,
) {
    let mut watcher = match Watcher::open(&follower.source.path) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "cannot watch the files: they are looked at every 10 s");
            None
        }
    };
    let mut writing = Writing::default();
    // Once before the first wait: they may have changed between the first look and the watch.
    let mut sight = Sight::Unsure;
    loop {
        let open = watcher.as_ref().map(Watcher::being_written);
        if sight == Sight::Asked || writing.is_over(&open.unwrap_or_default(), Instant::now()) {
            let before = follower.unsaved_reason.clone();
            follower.keep(&lock).await;
            let judged = follower.look(sight).await;
            let saved = (follower.unsaved_reason != before)
                .then(|| Event::Saved(follower.unsaved_reason.clone().map_or(Ok(()), Err)));
            for event in saved.into_iter().chain(judged) {
                if let Event::Accepted(accepted) = &event {
                    look_for_keys(&keys, accepted, &events).await;
                }
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
        let again = follower.candidate.is_some();
        let most = if again { AGAIN } else { LOOK_ANYWAY };
        sight = tokio::select! {
            sight = wait_for_change(&mut watcher, most) => sight,
            () = asked.notified() => Sight::Asked,
        };
    }
}

/// Tells the keys of what was accepted first, so that it takes effect with them.
async fn look_for_keys(keys: &KeyFiles, accepted: &Accepted, events: &mpsc::Sender<Event>) {
    let (keys, config, events) = (keys.clone(), accepted.config.clone(), events.clone());
    if let Err(error) = spawn_blocking(move || keys.tell(&config, &events)).await {
        tracing::error!(%error, "cannot look at the certificates");
    }
}

async fn wait_for_change(watcher: &mut Option<Watcher>, most: Duration) -> Sight {
    if let Some(watching) = watcher {
        match watching.changed(most).await {
            Ok(sight) => return sight,
            Err(error) => {
                tracing::warn!(%error, "cannot watch the files: they are looked at every 10 s");
                *watcher = None;
            }
        }
    }
    tokio::time::sleep(most).await;
    Sight::Unsure
}

/// Files that are being written.
#[derive(Debug, Default)]
struct Writing {
    since: Option<Instant>,
    is_told: bool,
}

impl Writing {
    /// Whether no file is being written. Says so once if one is for long.
    fn is_over(&mut self, open: &[String], now: Instant) -> bool {
        if open.is_empty() {
            *self = Self::default();
            return true;
        }
        let since = *self.since.get_or_insert(now);
        if !self.is_told && now.duration_since(since) >= LOOK_ANYWAY {
            self.is_told = true;
            tracing::warn!(
                files = ?open,
                "a program has these files open and writes to them: they are looked at when it \
                 closes them, or on SIGHUP"
            );
        }
        false
    }
}

/// Looks at the files.
#[derive(Debug)]
pub(super) struct Follower {
    source: Source,
    /// As they were judged last.
    known: Option<FileSet>,
    /// As they were accepted last.
    in_use: FileSet,
    /// Why these are not saved.
    unsaved_reason: Option<String>,
    /// Why they could not be read last time.
    unreadable: Option<String>,
    /// Changed files that may be half of what is to come, and since when they are as they are.
    candidate: Option<(FileSet, Instant)>,
}

impl Follower {
    /// Of an agent that serves the files `in_use`; `known` were judged already.
    pub(super) fn new(
        source: Source,
        known: Option<FileSet>,
        in_use: FileSet,
        unsaved_reason: Option<String>,
    ) -> Self {
        Self {
            source,
            known,
            in_use,
            unsaved_reason,
            unreadable: None,
            candidate: None,
        }
    }

    /// Makes the state directory again if it was removed, and saves what could not be saved.
    async fn keep(&mut self, lock: &Arc<StateLock>) {
        let lock = Arc::clone(lock);
        let path = self.source.state.path().display();
        match spawn_blocking(move || lock.restore()).await {
            Ok(Ok(false)) if self.unsaved_reason.is_none() => {}
            Ok(Ok(false)) => self.save().await,
            Ok(Ok(true)) => {
                tracing::warn!(state_dir = %path, "the state directory was removed; it is made again");
                self.save().await;
            }
            Ok(Err(error)) => {
                self.unsaved_reason = Some(unsaved(format_args!(
                    "state directory {path} was removed and cannot be made again ({error})"
                )));
            }
            Err(error) => tracing::error!(%error, "cannot look at the state directory"),
        }
    }

    async fn save(&mut self) {
        let (state, in_use) = (self.source.state.clone(), self.in_use.clone());
        let saved = spawn_blocking(move || save(&state, &in_use)).await;
        let saved = saved.unwrap_or_else(|error| Err(unsaved(error)));
        self.unsaved_reason = saved.err();
    }

    /// What the agent must hear.
    async fn look(&mut self, sight: Sight) -> Option<Event> {
        let path = self.source.path.clone();
        match spawn_blocking(move || files::read(&path)).await {
            Ok(read) => self.judge(read, sight, Instant::now()).await,
            Err(error) => {
                tracing::error!(%error, "cannot look at the files");
                None
            }
        }
    }

    async fn judge(
        &mut self,
        read: Result<FileSet, ReadError>,
        sight: Sight,
        now: Instant,
    ) -> Option<Event> {
        let files = match read {
            Ok(files) => files,
            Err(error) => {
                self.candidate = None;
                let sentence = chain(&error);
                let before = self.unreadable.replace(sentence.clone());
                return (before.as_ref() != Some(&sentence))
                    .then(|| Event::Refused(vec![sentence]));
            }
        };
        if self.known.as_ref() == Some(&files) {
            self.candidate = None;
            // Readable again, and as they were: what was said of them is said again.
            self.unreadable.take()?;
        } else if sight == Sight::Unsure && !self.is_seen_again(&files, now) {
            return None;
        }
        self.candidate = None;
        self.unreadable = None;
        self.known = Some(files.clone());
        let (node_name, judged) = (self.source.node_name.clone(), files.clone());
        let event = guarded(move || evaluate(&judged, &node_name)).await;
        if matches!(event, Event::Accepted(_)) {
            self.in_use = files;
            self.save().await;
        }
        Some(event)
    }

    /// Whether these are what was seen before, long enough ago.
    fn is_seen_again(&mut self, files: &FileSet, now: Instant) -> bool {
        match &self.candidate {
            Some((before, since)) if before == files => now.duration_since(*since) >= AGAIN,
            _ => {
                self.candidate = Some((files.clone(), now));
                false
            }
        }
    }
}

fn evaluate(files: &FileSet, node_name: &str) -> Event {
    match files::evaluate(files, node_name) {
        Ok(accepted) => Event::Accepted(Box::new(accepted)),
        Err(refused) => Event::Refused(refused.sentences().to_vec()),
    }
}

/// Files that the planner cannot bear are refused like others.
async fn guarded(evaluate: impl FnOnce() -> Event + Send + 'static) -> Event {
    spawn_blocking(evaluate).await.unwrap_or_else(|error| {
        Event::Refused(vec![format!(
            "planning failed, which is a defect of this program ({error}): report it along with the \
             files, and go back to those of before"
        )])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::temporary::Directory;

    fn on_runtime(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test);
    }

    fn follower(directory: &Directory) -> Follower {
        let source = Source {
            path: directory.path().join("pool.yaml"),
            node_name: "server1".to_owned(),
            state: StateDir::open(&directory.path().join("state")).unwrap(),
        };
        Follower::new(source, None, Vec::new(), None)
    }

    fn files(text: &str) -> FileSet {
        vec![("pool.yaml".to_owned(), text.to_owned())]
    }

    const NODE: &str = "{apiVersion: v1, kind: Node, metadata: {name: server1}}";

    #[test]
    fn what_may_be_half_a_change_is_judged_when_it_is_seen_again() {
        on_runtime(async {
            let directory = Directory::new();
            let mut follower = follower(&directory);
            let mut now = Instant::now();
            let mut see = async |after, text, sight| {
                now += after;
                follower.judge(Ok(files(text)), sight, now).await
            };
            let soon = AGAIN / 2;
            for (after, text, why) in [
                (soon, NODE, "it may be half"),
                (soon, NODE, "too soon"),
                (AGAIN, "{", "it goes on"),
                (AGAIN, NODE, "and on"),
            ] {
                assert!(see(after, text, Sight::Unsure).await.is_none(), "{why}");
            }
            let event = see(AGAIN, NODE, Sight::Unsure).await;
            assert!(matches!(event, Some(Event::Accepted(_))), "{event:?}");
            let event = see(soon, NODE, Sight::Complete).await;
            assert!(event.is_none(), "no change");
            let event = see(soon, "{", Sight::Complete).await;
            assert!(matches!(event, Some(Event::Refused(_))), "{event:?}");
            let event = see(soon, NODE, Sight::Asked).await;
            assert!(matches!(event, Some(Event::Accepted(_))), "{event:?}");
        });
    }

    #[test]
    fn files_that_the_planner_cannot_bear_are_refused() {
        on_runtime(async {
            let event = guarded(|| panic!("planted")).await;
            let Event::Refused(sentences) = event else {
                panic!("{event:?}");
            };
            assert!(sentences[0].contains("go back"), "{sentences:?}");
        });
    }

    #[test]
    fn a_program_that_writes_for_long_is_told_of_once() {
        let now = Instant::now();
        let mut writing = Writing::default();
        let open = ["pool.yaml".to_owned()];
        assert!(writing.is_over(&[], now));
        assert!(!writing.is_over(&open, now) && !writing.is_told);
        assert!(!writing.is_over(&open, now + LOOK_ANYWAY) && writing.is_told);
        assert!(writing.is_over(&[], now) && !writing.is_told);
    }

    #[test]
    fn a_start_without_usable_files_goes_on_with_those_of_before() {
        let directory = Directory::new();
        let Follower { source, .. } = follower(&directory);
        let error = first(&source).unwrap_err();
        assert!(matches!(error, NothingToServe::Files { .. }), "{error}");
        std::fs::write(&source.path, NODE).unwrap();
        let First { in_use, .. } = first(&source).unwrap();
        save(&source.state, &in_use).unwrap();
        let saved_at = source.state.load().unwrap().at_unix_ms;
        std::fs::write(&source.path, "{").unwrap();
        let First {
            origin,
            known,
            in_use: before,
        } = first(&source).unwrap();
        assert_eq!(before, in_use);
        assert_ne!(known, Some(in_use));
        assert!(origin.stale_reason.is_some());
        assert_eq!(origin.accepted_unix_ms, saved_at);
    }
}
