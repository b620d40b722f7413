//! What is drawn.

use super::super::change::Edit;
use super::super::chart::{Bar, Group};
use super::super::load::Load;
use super::super::peer::Peer;
use super::super::ratio::Median;
use super::tables::bytes;
use super::{Results, Rounds, loads};

impl Results {
    /// What is drawn.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for (name, rounds) in loads(&self.cpu) {
            groups.push(group(format!("{name}: CPU, µs"), rounds));
        }
        if let Some((workers, scaled)) = &self.scaled {
            for (name, rounds) in loads(scaled) {
                groups.push(group(format!("{workers} workers, {name}: CPU, µs"), rounds));
            }
        }
        groups.extend(self.recorded().filter_map(records));
        for (rate, which, rounds) in &self.latency {
            groups.push(group(format!("{which} at {rate}/s, µs"), rounds));
        }
        for (name, wanted) in [
            ("idle session: bytes", false),
            ("TLS, idle session: bytes", true),
        ] {
            let memory = self.memory.iter().filter(|(_, tls, _)| *tls == wanted);
            let memory = memory.map(|(peer, _, memory)| (*peer, vec![bytes(memory.session)]));
            groups.push(group(name.to_owned(), &memory.collect()));
        }
        for edit in Edit::ALL {
            let edits = self.edits.iter().filter(|changed| changed.edit == edit);
            let delays = edits.map(|changed| (changed.peer, vec![changed.in_use_ms]));
            groups.push(group(format!("{edit}: after, ms"), &delays.collect()));
        }
        groups.retain(|group| !group.bars.is_empty());
        groups
    }
}

fn group(name: String, rounds: &Rounds) -> Group {
    let bar = |(peer, costs): (&Peer, &Vec<f64>)| {
        let ours = rounds.get(&Peer::Wsha)?;
        Some(Bar {
            name: peer.to_string(),
            peer: *peer,
            cost: Median::of(costs)?.value,
            ratio: Median::of_ratios(costs, ours)?.value,
        })
    };
    Group {
        name,
        bars: rounds.iter().filter_map(bar).collect(),
    }
}

fn records((load, with, without): (Load, &[f64], &[f64])) -> Option<Group> {
    let bar = |name: &str, costs: &[f64]| {
        Some(Bar {
            name: name.to_owned(),
            peer: Peer::Wsha,
            cost: Median::of(costs)?.value,
            ratio: Median::of_ratios(costs, without)?.value,
        })
    };
    Some(Group {
        name: format!("{load}, records: CPU, µs"),
        bars: vec![bar("without records", without)?, bar("with", with)?],
    })
}
