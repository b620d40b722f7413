//! The figures of a run as tables, as a list of what was to be reached, and as a drawing.

mod drawn;
mod judged;
mod tables;

use std::collections::BTreeMap;

use super::change::{Changed, Edit};
use super::load::Load;
use super::peer::Peer;
use super::ratio::Median;
use super::trial::Memory;

/// What each proxy cost in each round.
pub type Rounds = BTreeMap<Peer, Vec<f64>>;

/// All that was measured.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// CPU time of a message or session with one worker, in microseconds.
    pub cpu: Vec<(Load, Rounds)>,
    /// The same in the same rounds with more workers, and with how many.
    pub scaled: Option<(usize, Vec<(Load, Rounds)>)>,
    /// The same as `cpu` of wsha with an access record of each session.
    pub recorded: Vec<(Load, Vec<f64>)>,
    /// Latencies by rate and percentile, in microseconds.
    pub latency: Vec<(u32, &'static str, Rounds)>,
    /// Memory of idle sessions, without TLS and with.
    pub memory: Vec<(Peer, bool, Memory)>,
    /// What edits did.
    pub edits: Vec<Changed>,
}

/// What stands beside the price of records.
const ALWAYS: &str = "Counters of sessions, messages, frames and bytes, histograms and heartbeats cannot be switched \
                      off:\nthey are in all figures of wsha.\n";

/// What stands beside the goals.
const UNNOTICED: &str =
    "An edit: all sessions kept, none refused, no process and at most 10 % of memory more.\n";

impl Results {
    /// Everything for a terminal.
    pub fn text(&self) -> String {
        let loads = || loads(&self.cpu);
        let rates = || {
            let rows = self.latency.iter();
            rows.map(|(rate, which, rounds)| (format!("{rate}/s, {which}"), rounds))
        };
        let mut text = String::new();
        let mut add = |title: &str, rows: &[Vec<String>], note: &str| {
            if rows.len() > 1 {
                let table = tables::within_width(rows);
                text.extend(["\n", title, "\n\n", &table, note]);
            }
        };
        add(
            "CPU time of a message or session, microseconds:",
            &tables::medians(loads()),
            "",
        );
        add(
            "wsha's share of the others', median [95 % interval]:",
            &tables::shares(loads()),
            "",
        );
        add(
            "CPU time of wsha with an access record of each session, microseconds:",
            &self.record_table(),
            ALWAYS,
        );
        add(
            "Round trip at a fixed rate of messages of 64 bytes, microseconds:",
            &tables::medians(rates()),
            "",
        );
        add(
            "wsha's share of the others', median [95 % interval]:",
            &tables::shares(rates()),
            "",
        );
        add(
            "User memory of idle sessions:",
            &tables::memory(&self.memory),
            "",
        );
        for edit in Edit::ALL {
            let title = format!("While sessions are live {edit}:");
            let edits = self.edits.iter().filter(|changed| changed.edit == edit);
            add(&title, &tables::edits(edits), "");
        }
        let note = if self.edits.is_empty() { "" } else { UNNOTICED };
        add("What is to be reached:", &judged::goal_table(self), note);
        if let Some((workers, scaled)) = &self.scaled {
            let title = format!(
                "wsha's share with {workers} workers, which is to be what it is with one, and 10 % more at most:"
            );
            let rows = judged::scaling_table(&self.cpu, *workers, scaled);
            add(&title, &rows, "");
        }
        text
    }

    fn record_table(&self) -> Vec<Vec<String>> {
        let mut rows = vec![tables::head(&["", "without", "with", "with / without"])];
        for (load, with, without) in self.recorded() {
            let costs = [without, with].map(tables::median);
            let share = Median::of_ratios(with, without);
            let mut row = vec![load.to_string()];
            row.extend(costs);
            row.extend(share.map(|share| share.to_string()));
            rows.push(row);
        }
        rows
    }

    /// What wsha cost with records and without in the same rounds.
    fn recorded(&self) -> impl Iterator<Item = (Load, &[f64], &[f64])> {
        self.recorded.iter().filter_map(|(load, with)| {
            let (_, rounds) = self.cpu.iter().find(|(other, _)| other == load)?;
            Some((*load, with.as_slice(), rounds.get(&Peer::Wsha)?.as_slice()))
        })
    }
}

fn loads(cpu: &[(Load, Rounds)]) -> impl Iterator<Item = (String, &Rounds)> {
    cpu.iter().map(|(load, rounds)| (load.to_string(), rounds))
}

/// wsha's cost as a share of `peer`'s.
fn share(rounds: &Rounds, peer: Peer) -> Option<Median> {
    Median::of_ratios(rounds.get(&Peer::Wsha)?, rounds.get(&peer)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(ours: f64, theirs: f64) -> Rounds {
        Rounds::from([
            (Peer::Wsha, vec![ours; 9]),
            (Peer::Nginx, vec![theirs; 9]),
            (Peer::Envoy, vec![theirs; 9]),
        ])
    }

    fn line<'text>(text: &'text str, begin: &str) -> &'text str {
        let mut lines = text.lines().filter(|line| line.starts_with(begin));
        lines.next().unwrap_or_default()
    }

    #[test]
    fn a_row_tells_wsha_s_share_of_each_peer_and_goals_are_judged() {
        let first = Load::ALL[0];
        let last = first.over_http2();
        let mut without_nginx = rounds(10.0, 20.0);
        without_nginx.remove(&Peer::Nginx);
        let results = Results {
            cpu: vec![(first, rounds(10.0, 20.0)), (last, without_nginx)],
            recorded: vec![(first, vec![11.0; 9])],
            ..Results::default()
        };
        let text = results.text();
        assert!(text.contains("| 0.50 [0.50-0.50] |"), "{text}");
        let http2 = line(&text, "HTTP/2, 64 B x1");
        assert!(http2.ends_with("| 10.0 | -     | 20.0"), "{text}");
        let goal = line(&text, "64 B x1, beside nginx");
        assert!(goal.contains("1.03") && goal.ends_with("met"), "{text}");
        assert!(text.contains("| 11.0 | 1.10 [1.10-1.10]"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        let groups = results.groups();
        assert_eq!(groups[0].bars.len(), 3);
        assert_eq!(groups[2].bars.len(), 2);
    }

    #[test]
    fn a_share_that_grows_with_workers_is_missed() {
        let [first, second] = [Load::ALL[0], Load::HANDSHAKES];
        let results = Results {
            cpu: vec![(first, rounds(10.0, 20.0)), (second, rounds(10.0, 20.0))],
            scaled: Some((
                2,
                vec![(first, rounds(9.0, 17.0)), (second, rounds(12.0, 20.0))],
            )),
            ..Results::default()
        };
        let text = results.text();
        let scaled = &text[text.find("with 2 workers").unwrap()..];
        assert!(
            line(scaled, "64 B x1, beside nginx").ends_with("met"),
            "{text}"
        );
        let grown = line(scaled, "handshake, beside nginx");
        assert!(grown.contains("0.50") && grown.contains("0.60"), "{text}");
        assert!(grown.ends_with("MISSED"), "{text}");
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
        assert!(
            results
                .groups()
                .iter()
                .any(|group| group.name.starts_with("2 workers, 64 B x1"))
        );
    }
}
