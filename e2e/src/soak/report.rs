//! The summary of a soak, as text that is Markdown, too.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::resting::BeforeAndAfter;
use super::vitals::{Memory, name};
use crate::machine;
use crate::testing::{Gateway, Part};

/// What a soak came to.
#[derive(Debug)]
pub struct Summary {
    pub(super) seed: u64,
    pub(super) lasted: Duration,
    pub(super) clients: usize,
    /// Most sessions at once, and all of them.
    pub(super) peak: usize,
    pub(super) sessions: u64,
    /// Those of HTTP/1.1 with TLS, those in streams of HTTP/2, and how many connections these had.
    pub(super) over_tls: u64,
    pub(super) in_streams: u64,
    pub(super) connections: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) turned_away: BTreeMap<String, u64>,
    pub(super) faults: BTreeMap<&'static str, u64>,
    pub(super) edits: BTreeMap<&'static str, u64>,
    /// Addresses that moved though nothing was done to their gateway. A machine with more to do than it can may bring that
    /// about, so it is told and is not wrong by itself.
    pub(super) unasked: Vec<String>,
    pub(super) closes: BTreeMap<(String, String), u64>,
    pub(super) unattributed: u64,
    pub(super) lost: u64,
    pub(super) memory: Vec<(Gateway, Part, Memory)>,
    /// Of each process, before the first session and after the last. That of the steady gateway is one process.
    pub(super) resting: BeforeAndAfter<u64>,
    /// Gateways that did not stop in time, so that their last records are lost. Told as `unasked` is.
    pub(super) late: Vec<String>,
    /// Descriptors of each process, before the first session and after the last.
    pub(super) descriptors: BeforeAndAfter<usize>,
    /// What must not be, one sentence each.
    pub(super) wrong: Vec<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Soak, seed {}, {}", self.seed, machine::describe())?;
        let total = |counts: &BTreeMap<&str, u64>| counts.values().sum::<u64>().to_string();
        let rows = [
            ("lasted", format!("{} s", self.lasted.as_secs())),
            ("clients", self.clients.to_string()),
            ("sessions at once, at most", self.peak.to_string()),
            ("sessions", self.sessions.to_string()),
            ("with TLS", self.over_tls.to_string()),
            (
                "in streams of HTTP/2, of so many connections",
                format!("{} of {}", self.in_streams, self.connections),
            ),
            ("messages echoed byte for byte", self.messages.to_string()),
            ("received", mib(self.bytes)),
            ("faults", total(&self.faults)),
            ("edits", total(&self.edits)),
            (
                "addresses that moved unasked",
                self.unasked.len().to_string(),
            ),
            ("**closes without a cause**", self.unattributed.to_string()),
            ("**messages lost or altered**", self.lost.to_string()),
        ];
        let rows = rows.map(|(what, count)| vec![what.to_owned(), count]);
        table(f, &["", ""], rows)?;
        let done = |counts: &BTreeMap<&str, u64>, kind: &str| {
            let row =
                |(what, count): (&&str, &u64)| vec![format!("{kind}: {what}"), count.to_string()];
            counts.iter().map(row).collect::<Vec<_>>()
        };
        let deeds = [done(&self.faults, "fault"), done(&self.edits, "edit")];
        table(f, &["what was done", "times"], deeds.concat())?;
        let close = |((by, seen), count): (&(String, String), &u64)| {
            vec![by.clone(), seen.clone(), count.to_string()]
        };
        let closes = self.closes.iter().map(close);
        table(
            f,
            &["ended by, as recorded", "as the client saw it", "sessions"],
            closes,
        )?;
        let turned = self.turned_away.iter();
        let turned = turned.map(|(told, count)| vec![told.clone(), count.to_string()]);
        table(f, &["no session, the client was told", "times"], turned)?;
        let memory = self.memory.iter().map(|(gateway, part, memory)| {
            vec![
                name(*gateway, *part),
                format!("{} s", memory.lasted.as_secs()),
                mib(memory.first),
                mib(memory.last),
                mib(memory.peak),
                format!("{:+} KiB", memory.growth / 1024),
                memory
                    .course
                    .iter()
                    .copied()
                    .map(tenths)
                    .collect::<Vec<_>>()
                    .join(" "),
            ]
        });
        let head = [
            "memory of",
            "lived",
            "first",
            "last",
            "peak",
            "trend over that time",
            "its tenths, MiB",
        ];
        table(f, &head, memory)?;
        let descriptors = self.descriptors.iter();
        let descriptors = descriptors.map(|(process, [before, after])| {
            vec![process.clone(), before.to_string(), after.to_string()]
        });
        table(f, &["descriptors of", "before", "after"], descriptors)?;
        let resting = self
            .resting
            .iter()
            .map(|(process, [before, after])| vec![process.clone(), mib(*before), mib(*after)]);
        let head = ["own memory without sessions of", "before", "after"];
        table(f, &head, resting)?;
        self.late
            .iter()
            .try_for_each(|late| writeln!(f, "\nlate: {late}"))?;
        self.unasked
            .iter()
            .try_for_each(|moved| writeln!(f, "\nmoved unasked: {moved}"))?;
        self.wrong
            .iter()
            .try_for_each(|wrong| writeln!(f, "\nWRONG: {wrong}"))
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", tenths(bytes))
}

/// In MiB, without the unit.
fn tenths(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// A table of Markdown with aligned columns; nothing where there are no rows.
fn table(
    f: &mut fmt::Formatter<'_>,
    head: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> fmt::Result {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max();
        widest.unwrap_or(0).max(head[column].chars().count()).max(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let mut line = "|".to_owned();
        for (cell, width) in cells.iter().zip(&widths) {
            write!(line, " {cell:<width$} |")?;
        }
        Ok(line)
    };
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    writeln!(f, "\n{}\n{}", line(&head)?, line(&rule)?)?;
    rows.iter()
        .try_for_each(|row| writeln!(f, "{}", line(row)?))
}
