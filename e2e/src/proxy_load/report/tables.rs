//! Rows of figures, and how they fit on a terminal.

use std::collections::BTreeSet;

use super::super::change::Changed;
use super::super::chart::figure;
use super::super::peer::Peer;
use super::super::ratio::Median;
use super::super::trial::Memory;
use super::{Rounds, share};
use crate::measure::align;

/// Columns of a terminal.
const WIDTH: usize = 100;

/// What stands for a figure that there is not.
const NONE: &str = "-";

/// The table, in several below each other where it is too wide: each begins with the first column.
pub(super) fn within_width(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map(Vec::len).unwrap_or_default();
    let pick = |wanted: &[usize]| -> String {
        let cells = |row: &Vec<String>| {
            wanted
                .iter()
                .filter_map(|at| row.get(*at).cloned())
                .collect()
        };
        align(&rows.iter().map(cells).collect::<Vec<_>>())
    };
    let is_narrow = |text: &str| text.lines().all(|line| line.chars().count() <= WIDTH);
    let mut tables = Vec::new();
    let mut wanted = vec![0];
    for column in 1..columns {
        wanted.push(column);
        if wanted.len() > 2 && !is_narrow(&pick(&wanted)) {
            wanted.pop();
            tables.push(pick(&wanted));
            wanted = vec![0, column];
        }
    }
    tables.push(pick(&wanted));
    tables.join("\n")
}

pub(super) fn head(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

pub(super) fn median(costs: &[f64]) -> String {
    Median::of(costs).map_or_else(|| NONE.to_owned(), |median| figure(median.value))
}

/// What each proxy cost.
pub(super) fn medians<'a>(rows: impl Iterator<Item = (String, &'a Rounds)>) -> Vec<Vec<String>> {
    of_peers(
        rows,
        |_| true,
        |rounds, peer| median(rounds.get(&peer).map_or(&[], Vec::as_slice)),
    )
}

/// What wsha cost as a share of what each of the others did.
pub(super) fn shares<'a>(rows: impl Iterator<Item = (String, &'a Rounds)>) -> Vec<Vec<String>> {
    of_peers(
        rows,
        |peer| peer != Peer::Wsha,
        |rounds, peer| {
            share(rounds, peer).map_or_else(|| NONE.to_owned(), |share| share.to_string())
        },
    )
}

fn of_peers<'a>(
    rows: impl Iterator<Item = (String, &'a Rounds)>,
    is_shown: impl Fn(Peer) -> bool,
    cell: impl Fn(&Rounds, Peer) -> String,
) -> Vec<Vec<String>> {
    let rows: Vec<_> = rows.collect();
    let peers: BTreeSet<Peer> = rows
        .iter()
        .flat_map(|(_, rounds)| rounds.keys().copied())
        .filter(|peer| is_shown(*peer))
        .collect();
    if peers.is_empty() {
        return Vec::new();
    }
    let first = std::iter::once(String::new());
    let mut table = vec![first.chain(peers.iter().map(ToString::to_string)).collect()];
    for (name, rounds) in rows {
        let cells = peers.iter().map(|peer| cell(rounds, *peer));
        table.push(std::iter::once(name).chain(cells).collect());
    }
    table
}

pub(super) fn memory(memory: &[(Peer, bool, Memory)]) -> Vec<Vec<String>> {
    let mut rows = vec![head(&[
        "",
        "bytes a session",
        "MiB before",
        "MiB 2 s after all have ended",
    ])];
    for (peer, tls, memory) in memory {
        rows.push(vec![
            format!("{peer}{}", if *tls { ", TLS" } else { "" }),
            memory.session.to_string(),
            mebibytes(memory.before),
            mebibytes(memory.after),
        ]);
    }
    rows
}

pub(super) fn edits<'a>(edits: impl Iterator<Item = &'a Changed>) -> Vec<Vec<String>> {
    let mut rows = vec![head(&[
        "",
        "kept",
        "opened",
        "refused",
        "in use after, ms",
        "processes",
        "MiB",
    ])];
    for edit in edits {
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

#[expect(
    clippy::cast_precision_loss,
    reason = "memory sizes are far below 2^52"
)]
pub(super) fn bytes(bytes: u64) -> f64 {
    bytes as f64
}

fn mebibytes(size: u64) -> String {
    format!("{:.1}", bytes(size) / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_wide_goes_on_below() {
        let cell = |text: &str| format!("{text:<40}.");
        let rows = vec![
            head(&["", &cell("a"), &cell("b"), &cell("c")]),
            head(&["row", "1", "2", "3"]),
        ];
        let text = within_width(&rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 7, "{text}");
        assert!(
            lines[2].starts_with("row | 1") && lines[2].ends_with("| 2"),
            "{text}"
        );
        assert!(
            lines[3].is_empty() && lines[6].ends_with("row | 3"),
            "{text}"
        );
        assert!(lines.iter().all(|line| line.len() <= WIDTH), "{text}");
    }
}
