//! The figures of a run as tables, as a list of what was to be reached, and as a drawing.

use std::collections::BTreeMap;

use super::change::Changed;
use super::chart::{Group, figure};
use super::goal::{SESSION_BYTES, Verdict, goals};
use super::peer::Peer;
use super::ratio::Median;
use super::trial::{Load, Memory};
use crate::measure::align;

/// What each proxy cost in each round.
pub type Rounds = BTreeMap<Peer, Vec<f64>>;

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// CPU time of a message or session, in microseconds.
    pub cpu: Vec<(Load, Rounds)>,
    /// Latencies by rate and percentile, in microseconds.
    pub latency: Vec<(u32, &'static str, Rounds)>,
    /// Memory of idle sessions, without TLS and with.
    pub memory: Vec<(Peer, bool, Memory)>,
    /// What an edit did.
    pub edits: Vec<Changed>,
}

impl Results {
    /// Everything for a terminal.
    pub fn text(&self) -> String {
        let tables = [
            (
                "CPU time, microseconds each, and wsha's as a share of it:",
                self.cpu_table(),
            ),
            (
                "Round trip at a fixed rate of messages of 64 bytes, microseconds:",
                self.latency_table(),
            ),
            ("User memory of idle sessions:", self.memory_table()),
            (
                "A server is added while sessions are live:",
                self.edit_table(),
            ),
            ("What is to be reached:", self.goal_table()),
        ];
        let shown = tables.into_iter().filter(|(_, rows)| rows.len() > 1);
        let texts = shown.map(|(title, rows)| format!("\n{title}\n\n{}", align(&rows)));
        texts.collect::<Vec<_>>().concat()
    }

    fn cpu_table(&self) -> Vec<Vec<String>> {
        let rows = self.cpu.iter();
        beside_wsha(rows.map(|(load, rounds)| (load.to_string(), rounds)))
    }

    fn latency_table(&self) -> Vec<Vec<String>> {
        let rows = self.latency.iter();
        beside_wsha(rows.map(|(rate, which, rounds)| (format!("{rate}/s, {which}"), rounds)))
    }

    fn memory_table(&self) -> Vec<Vec<String>> {
        let mut rows = vec![head(&[
            "",
            "bytes a session",
            "MiB before",
            "MiB 2 s after all have ended",
        ])];
        for (peer, tls, memory) in &self.memory {
            rows.push(vec![
                format!("{peer}{}", if *tls { ", TLS" } else { "" }),
                memory.session.to_string(),
                mebibytes(memory.before),
                mebibytes(memory.after),
            ]);
        }
        rows
    }

    fn edit_table(&self) -> Vec<Vec<String>> {
        let mut rows = vec![head(&[
            "",
            "kept",
            "opened",
            "refused",
            "in use after, ms",
            "processes",
            "MiB",
        ])];
        for edit in &self.edits {
            rows.push(vec![
                edit.peer.to_string(),
                format!("{} of {}", edit.kept, edit.live),
                edit.opened.to_string(),
                edit.failed.to_string(),
                figure(edit.in_use_ms),
                format!("{} -> {}", edit.processes.0, edit.processes.1),
                format!(
                    "{} -> {}",
                    mebibytes(edit.memory.0),
                    mebibytes(edit.memory.1)
                ),
            ]);
        }
        rows
    }

    fn goal_table(&self) -> Vec<Vec<String>> {
        let mut rows = vec![head(&["", "limit", "reached", ""])];
        for goal in goals() {
            let rounds = self.cpu.iter().find(|(load, _)| *load == goal.load);
            let Some(median) = rounds.and_then(|(_, rounds)| ratio(rounds, goal.peer)) else {
                continue;
            };
            rows.push(vec![
                format!("{}, beside {}", goal.load, goal.peer),
                format!("{:.2}", goal.limit),
                median.to_string(),
                Verdict::of(median, goal.limit).to_string(),
            ]);
        }
        for (rate, which, rounds) in &self.latency {
            for peer in [Peer::Nginx, Peer::Haproxy] {
                let Some(median) = ratio(rounds, peer) else {
                    continue;
                };
                rows.push(vec![
                    format!("{which} at {rate}/s, beside {peer}"),
                    "1.00".to_owned(),
                    median.to_string(),
                    Verdict::of(median, 1.0).to_string(),
                ]);
            }
        }
        let is_ours = |(peer, tls, _): &&(Peer, bool, Memory)| *peer == Peer::Wsha && !tls;
        let ours = self.memory.iter().find(is_ours);
        rows.extend(ours.map(|(_, _, memory)| {
            let met = memory.session <= SESSION_BYTES;
            let verdict = if met { Verdict::Met } else { Verdict::Missed };
            vec![
                "bytes a session".to_owned(),
                SESSION_BYTES.to_string(),
                memory.session.to_string(),
                verdict.to_string(),
            ]
        }));
        let ours = self.edits.iter().find(|edit| edit.peer == Peer::Wsha);
        rows.extend(ours.map(|edit| {
            let met = edit.kept == edit.live
                && edit.failed == 0
                && edit.processes.0 == edit.processes.1
                && edit.memory.1 * 10 <= edit.memory.0 * 11;
            let verdict = if met { Verdict::Met } else { Verdict::Missed };
            vec![
                "an edit: all kept, none refused, no process and at most 10 % of memory more"
                    .to_owned(),
                String::new(),
                String::new(),
                verdict.to_string(),
            ]
        }));
        rows
    }

    /// What is drawn.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for (load, rounds) in &self.cpu {
            groups.push(group(format!("{load}: CPU, µs"), rounds));
        }
        for (rate, which, rounds) in &self.latency {
            groups.push(group(format!("{which} at {rate}/s, µs"), rounds));
        }
        for (name, wanted) in [
            ("idle session: bytes", false),
            ("TLS, idle session: bytes", true),
        ] {
            let memory = self.memory.iter().filter(|(_, tls, _)| *tls == wanted);
            let memory: Rounds = memory
                .map(|(peer, _, memory)| (*peer, vec![bytes(memory.session)]))
                .collect();
            if !memory.is_empty() {
                groups.push(group(name.to_owned(), &memory));
            }
        }
        groups
    }
}

fn group(name: String, rounds: &Rounds) -> Group {
    let bar = |(peer, costs): (&Peer, &Vec<f64>)| {
        let ours = rounds.get(&Peer::Wsha)?;
        let ratio = Median::of_ratios(costs, ours)?.value;
        Some((*peer, Median::of(costs)?.value, ratio))
    };
    Group {
        name,
        bars: rounds.iter().filter_map(bar).collect(),
    }
}

/// wsha's cost as a share of `peer`'s.
fn ratio(rounds: &Rounds, peer: Peer) -> Option<Median> {
    Median::of_ratios(rounds.get(&Peer::Wsha)?, rounds.get(&peer)?)
}

fn beside_wsha<'a>(rows: impl Iterator<Item = (String, &'a Rounds)>) -> Vec<Vec<String>> {
    let mut table: Vec<Vec<String>> = vec![Vec::new()];
    for (name, rounds) in rows {
        if table[0].is_empty() {
            table[0] = std::iter::once(String::new())
                .chain(rounds.keys().map(ToString::to_string))
                .collect();
        }
        let mut row = vec![name];
        for (peer, costs) in rounds {
            let mut cell = Median::of(costs)
                .map(|median| figure(median.value))
                .unwrap_or_default();
            if let (true, Some(ratio)) = (*peer != Peer::Wsha, ratio(rounds, *peer)) {
                cell = format!("{cell}  {ratio}");
            }
            row.push(cell);
        }
        table.push(row);
    }
    table
}

fn head(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "memory sizes are far below 2^52"
)]
fn bytes(bytes: u64) -> f64 {
    bytes as f64
}

fn mebibytes(size: u64) -> String {
    format!("{:.1}", bytes(size) / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_wsha_s_share_of_each_peer_and_goals_are_judged() {
        let rounds = Rounds::from([(Peer::Wsha, vec![10.0; 9]), (Peer::Nginx, vec![20.0; 9])]);
        let load = Load::ALL[0];
        let results = Results {
            cpu: vec![(load, rounds)],
            ..Results::default()
        };
        let text = results.text();
        assert!(text.contains("20.0  0.50 [0.50-0.50]"), "{text}");
        let goal = text
            .lines()
            .find(|line| line.starts_with("64 B x1, beside nginx"));
        assert!(
            goal.is_some_and(|line| line.contains("1.03") && line.ends_with("met")),
            "{text}"
        );
        assert_eq!(results.groups()[0].bars.len(), 2);
    }
}
