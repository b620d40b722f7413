//! Figures beside what is to be reached.

use super::super::change::Changed;
use super::super::goal::{SCALING, SESSION_BYTES, Verdict, goals};
use super::super::load::Load;
use super::super::peer::Peer;
use super::super::ratio::Median;
use super::tables::head;
use super::{Results, Rounds, share};

pub(super) fn goal_table(results: &Results) -> Vec<Vec<String>> {
    let mut rows = vec![head(&["", "limit", "reached", ""])];
    for goal in goals() {
        let median = of(&results.cpu, goal.load).and_then(|rounds| share(rounds, goal.peer));
        let name = format!("{}, beside {}", goal.load, goal.peer);
        rows.extend(median.map(|median| judged(name, median, goal.limit)));
    }
    for (rate, which, rounds) in &results.latency {
        for peer in [Peer::Nginx, Peer::Haproxy] {
            let name = format!("{which} at {rate}/s, beside {peer}");
            rows.extend(share(rounds, peer).map(|median| judged(name, median, 1.0)));
        }
    }
    let is_ours = |(peer, tls, _): &&(Peer, bool, _)| *peer == Peer::Wsha && !tls;
    let ours = results.memory.iter().find(is_ours);
    rows.extend(ours.map(|(_, _, memory)| {
        vec![
            "bytes a session".to_owned(),
            SESSION_BYTES.to_string(),
            memory.session.to_string(),
            met(memory.session <= SESSION_BYTES),
        ]
    }));
    let ours = results.edits.iter().filter(|edit| edit.peer == Peer::Wsha);
    rows.extend(ours.map(edit_row));
    rows
}

/// wsha's shares with `workers` as a multiple of what they are with one in the same round.
pub(super) fn scaling_table(
    one: &[(Load, Rounds)],
    workers: usize,
    scaled: &[(Load, Rounds)],
) -> Vec<Vec<String>> {
    let more = format!("{workers} workers");
    let mut rows = vec![head(&["", "1 worker", &more, "beside 1 worker", ""])];
    for goal in goals() {
        let row = || {
            let (one, more) = (of(one, goal.load)?, of(scaled, goal.load)?);
            let growth = Median::of_ratios(&shares(more, goal.peer)?, &shares(one, goal.peer)?)?;
            Some(vec![
                format!("{}, beside {}", goal.load, goal.peer),
                format!("{:.2}", share(one, goal.peer)?.value),
                format!("{:.2}", share(more, goal.peer)?.value),
                growth.to_string(),
                Verdict::of(growth, SCALING).to_string(),
            ])
        };
        rows.extend(row());
    }
    rows
}

fn of(cpu: &[(Load, Rounds)], load: Load) -> Option<&Rounds> {
    let found = cpu.iter().find(|(other, _)| *other == load);
    found.map(|(_, rounds)| rounds)
}

/// wsha's share in each round.
fn shares(rounds: &Rounds, peer: Peer) -> Option<Vec<f64>> {
    let both = rounds.get(&Peer::Wsha)?.iter().zip(rounds.get(&peer)?);
    Some(both.map(|(ours, theirs)| ours / theirs).collect())
}

fn judged(name: String, median: Median, limit: f64) -> Vec<String> {
    vec![
        name,
        format!("{limit:.2}"),
        median.to_string(),
        Verdict::of(median, limit).to_string(),
    ]
}

fn edit_row(edit: &Changed) -> Vec<String> {
    vec![
        format!("an edit: {}", edit.edit),
        String::new(),
        format!(
            "{} of {} kept, {} refused",
            edit.kept, edit.live, edit.failed
        ),
        met(edit.is_unnoticed()),
    ]
}

fn met(is_met: bool) -> String {
    let verdict = if is_met {
        Verdict::Met
    } else {
        Verdict::Missed
    };
    verdict.to_string()
}
