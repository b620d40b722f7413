//! What the process may have at most, and how near it is to that. Where the limit of memory stands
//! is found at the start; its value is followed.

use std::time::{Duration, Instant};

use proxy::{HandshakeResult, Snapshot};

use crate::{
    metrics::{Metric, Sample},
    sys::{cgroup::MemoryLimit, limits},
};

/// Share of a ceiling from which on it is warned, in percent.
const NEAR: u64 = 80;

/// Share of its memory from which on no session begins: the rest is for those that are there.
const FULL: u64 = 95;

/// Pause between two looks at how much memory is left: what many clients take of it meanwhile is less than
/// what is kept free for sessions that are there.
const LOOK: Duration = Duration::from_millis(100);

/// The ceilings.
#[derive(Debug)]
pub(super) struct Ceilings {
    workers: usize,
    /// Descriptors, after the limit was raised as far as is allowed.
    pub(super) open_files: Option<u64>,
    memory: Option<MemoryLimit>,
    /// When it is to be looked how much memory is left, where that is limited.
    look_due: Option<Instant>,
    /// There was none left for more sessions when it was looked last.
    lack_memory: bool,
}

impl Ceilings {
    /// Raises what can be raised, and finds the rest; to be called before the process is confined.
    pub(super) fn find(workers: usize) -> Self {
        let memory = MemoryLimit::find();
        Self {
            workers,
            open_files: limits::raise_open_files(),
            look_due: memory.as_ref().map(|_| Instant::now()),
            memory,
            lack_memory: false,
        }
    }

    pub(super) fn memory(&self) -> Option<u64> {
        self.memory.as_ref().and_then(MemoryLimit::bytes)
    }

    /// When [`Self::look_at_memory`] is due, where there is a limit to it.
    pub(super) fn look_due(&self) -> Option<Instant> {
        self.look_due
    }

    /// Looks, if it is due, whether there is memory left for more sessions: without it the kernel would end
    /// all that are there. Whether there is none, if that is news.
    pub(super) fn look_at_memory(&mut self, now: Instant) -> Option<bool> {
        self.look_due.filter(|at| *at <= now)?;
        self.look_due = Some(now + LOOK);
        let lack = self.is_memory_full();
        if std::mem::replace(&mut self.lack_memory, lack) == lack {
            return None;
        }
        if lack {
            tracing::warn!("memory is nearly used up: new sessions are refused");
        } else {
            tracing::info!("there is memory again for new sessions");
        }
        Some(lack)
    }

    fn is_memory_full(&self) -> bool {
        let Some((memory, most)) = self.memory.as_ref().zip(self.memory()) else {
            return false;
        };
        let is_full = |used: u64| used.saturating_mul(100) >= most.saturating_mul(FULL);
        let used = memory.used().unwrap_or(0);
        // What the kernel keeps of files it gives up for the asking, before it ends anybody.
        is_full(used) && is_full(used.saturating_sub(memory.files()))
    }

    /// What is in use now, as far as there is a limit to it.
    pub(super) fn usage(&self, snapshot: &Snapshot) -> Usage {
        let used = |limit: &MemoryLimit| Some((limit.used()?, limit.bytes()?));
        Usage {
            open_files: self
                .open_files
                .map(|most| (open_files(snapshot, self.workers), most)),
            memory: self.memory.as_ref().and_then(used),
            lacks_memory: self.lack_memory,
        }
    }
}

/// Descriptors of listeners, clients and endpoints: all but a few. A confined process cannot look, and
/// need not.
fn open_files(snapshot: &Snapshot, workers: usize) -> u64 {
    let counters = &snapshot.counters;
    let ended = HandshakeResult::ALL.iter();
    let ended: u64 = ended.map(|result| counters.handshakes(*result)).sum();
    let begun = counters.accepted + counters.streams + counters.plain_upgrades;
    let under_way = begun.saturating_sub(ended);
    let listening = snapshot.listeners.iter().filter(|one| one.accepting);
    let of_sessions = 2 * (counters.live_sessions + under_way);
    // Between requests a connection has its own alone.
    let of_requests = counters.plain_connections + counters.live_requests;
    // A stream of HTTP/2 has its endpoint's alone; its connection has one, be there streams or not.
    let of_sessions = (of_sessions + of_requests).saturating_sub(counters.live_streams);
    (listening.count() * workers) as u64 + of_sessions + counters.http2_connections
}

/// What is in use, and how much there may be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Usage {
    open_files: Option<(u64, u64)>,
    memory: Option<(u64, u64)>,
    lacks_memory: bool,
}

impl Usage {
    /// A sentence for each ceiling that is near. They say nothing that changes from one report to the
    /// next.
    pub(super) fn warnings(self) -> impl Iterator<Item = String> {
        let is_near = |(used, most): &(u64, u64)| used.saturating_mul(100) >= most * NEAR;
        let open_files = self.open_files.filter(is_near).map(|(_, most)| {
            format!(
                "{NEAR} % of the {most} file descriptors that the proxy may have are in use, two for each \
                 session: raise the limit of open files (LimitNOFILE= of the unit), or set \
                 limits.maxSessions"
            )
        });
        let lacks = self.lacks_memory;
        let is_told = |memory: &(u64, u64)| lacks || is_near(memory);
        let memory = self.memory.filter(is_told).map(|(_, most)| {
            let (share, refused) = if lacks {
                (FULL, ", so that new sessions are refused")
            } else {
                (NEAR, "")
            };
            format!(
                "{share} % of the {} MiB of memory that the proxy's control group may have are in \
                 use{refused}: raise its limit (MemoryMax= of the unit, resources.limits.memory of the \
                 container), or set limits.maxSessions",
                most >> 20
            )
        });
        open_files.into_iter().chain(memory)
    }

    pub(super) fn samples(self) -> impl Iterator<Item = Sample> {
        let pair = |used, most, usage: Option<(u64, u64)>| {
            usage.map(|(now, limit)| [Sample::new(used, &[], now), Sample::new(most, &[], limit)])
        };
        let open_files = pair(
            Metric::ProxyOpenFiles,
            Metric::ProxyOpenFilesLimit,
            self.open_files,
        );
        let memory = pair(Metric::ProxyMemory, Metric::ProxyMemoryLimit, self.memory);
        open_files.into_iter().chain(memory).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_two_descriptors_a_stream_one_and_its_connection_one_more() {
        let mut snapshot = Snapshot::default();
        let counters = &mut snapshot.counters;
        counters.accepted = 3;
        // Three connections have come and wait; of HTTP/2 there are two besides, one of them idle.
        counters.http2_connections = 2;
        counters.live_streams = 8;
        counters.live_sessions = 8 + 10;
        assert_eq!(open_files(&snapshot, 2), 2 * 3 + 2 + 8 + 2 * 10);
        // Of requests: three connections, one of them between two, and a stream with one.
        let counters = &mut snapshot.counters;
        (counters.plain_connections, counters.live_requests) = (3 + 1, 2 + 1);
        counters.live_streams += 1;
        assert_eq!(open_files(&snapshot, 2), 36 + 3 + 2 + 1);
    }

    #[test]
    fn from_four_fifths_on_each_ceiling_is_warned_about() {
        let warned = |open_files, memory| {
            let usage = Usage {
                open_files,
                memory,
                lacks_memory: false,
            };
            usage.warnings().collect::<Vec<_>>()
        };
        assert!(warned(Some((799, 1000)), Some((799, 1000))).is_empty());
        assert!(warned(None, None).is_empty());
        let near = warned(Some((800, 1000)), Some((900 << 20, 1000 << 20)));
        let [open_files, memory] = near.as_slice() else {
            panic!("{near:?}");
        };
        assert!(
            open_files.contains("1000 file descriptors") && open_files.contains("LimitNOFILE=")
        );
        assert!(memory.contains("1000 MiB of memory") && memory.contains("MemoryMax="));
        assert!(!memory.contains("refused"));
        let full = Usage {
            open_files: None,
            memory: Some((960 << 20, 1000 << 20)),
            lacks_memory: true,
        };
        let full: Vec<_> = full.warnings().collect();
        assert!(full.len() == 1 && full[0].starts_with("95 % of the 1000 MiB"));
        assert!(full[0].contains("new sessions are refused"), "{full:?}");
    }
}
