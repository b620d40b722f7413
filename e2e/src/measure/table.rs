//! Figures of a run as one table.

use std::collections::BTreeSet;

use super::{Cost, Sample};
use crate::fault::Fault;
use crate::subject::Subject;

/// What repetitions of one fault cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Number of repetitions.
    pub count: usize,
    /// Median, ms.
    pub median: f64,
    /// The value that nine in ten do not exceed, ms (nearest rank).
    pub p90: f64,
    /// The largest, ms.
    pub max: f64,
    /// The control timer's worst gap during the largest, ms.
    pub control_at_max: f64,
    /// How many did not end by themselves within the bound.
    pub stuck: usize,
    /// The largest is one of those, and so a lower limit.
    pub max_is_stuck: bool,
}

impl Figures {
    /// Figures of `costs`; `None` when there are none.
    pub fn of<'a>(costs: impl Iterator<Item = &'a Cost>) -> Option<Self> {
        let mut costs: Vec<&Cost> = costs.collect();
        costs.sort_by(|a, b| a.outage_ms.total_cmp(&b.outage_ms));
        let worst = costs.last()?;
        let middle = costs.len() / 2;
        let upper = costs.get(middle)?.outage_ms;
        let median = if costs.len().is_multiple_of(2) {
            f64::midpoint(costs.get(middle - 1)?.outage_ms, upper)
        } else {
            upper
        };
        let rank = (costs.len() * 9).div_ceil(10);
        Some(Self {
            count: costs.len(),
            median,
            p90: costs.get(rank - 1)?.outage_ms,
            max: worst.outage_ms,
            control_at_max: worst.control_ms,
            stuck: costs.iter().filter(|cost| cost.stuck).count(),
            max_is_stuck: worst.stuck,
        })
    }

    /// Median, 90th percentile and maximum, with the control timer's gap.
    pub fn shown(&self) -> String {
        // Below ten milliseconds a tenth of one matters.
        let digits = usize::from(self.median < 10.0);
        format!(
            "{:.digits$} / {:.digits$} / {}{:.digits$} ({:.0})",
            self.median,
            self.p90,
            if self.max_is_stuck { ">" } else { "" },
            self.max,
            self.control_at_max
        )
    }

    /// As the table shows them; their number only where it is not `expected`.
    fn cell(&self, expected: usize) -> String {
        let mut cell = self.shown();
        if self.count != expected {
            cell = format!("{cell} n={}", self.count);
        }
        if self.stuck > 0 {
            cell = format!("{cell} {} stuck", self.stuck);
        }
        cell
    }
}

/// A subject, and its interval between advertisements in ms.
pub(super) type Column = (Subject, u128);

/// What a row is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// The fault.
    Outage,
    /// Not an outage of a client: until the host itself had noticed.
    Vacated,
    /// The return after its heal.
    FailBack,
}

/// A fault's rows.
pub(super) const PHASES: [Phase; 3] = [Phase::Outage, Phase::Vacated, Phase::FailBack];

/// The columns among `samples`, in order.
pub(super) fn columns(samples: &[Sample]) -> Vec<Column> {
    let all = samples
        .iter()
        .map(|sample| (sample.subject, sample.advertisement_ms));
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The figures of one cell.
pub(super) fn figures(
    samples: &[Sample],
    column: Column,
    fault: Fault,
    phase: Phase,
) -> Option<Figures> {
    let of_cell = samples.iter().filter(|sample| {
        sample.fault == fault && (sample.subject, sample.advertisement_ms) == column
    });
    Figures::of(of_cell.filter_map(|sample| match phase {
        Phase::Outage => Some(&sample.outage),
        Phase::Vacated => sample.vacated.as_ref(),
        Phase::FailBack => sample.fail_back.as_ref(),
    }))
}

/// The rows of one table: one for each fault and each return, with a column for each subject and interval among
/// `samples`. A cell says how many samples it has where that is not `expected`.
pub fn rows(samples: &[Sample], expected: usize) -> Vec<Vec<String>> {
    let columns = columns(samples);
    let mut rows = vec![vec!["outage of a client, ms".to_owned()]];
    rows[0].extend(
        columns
            .iter()
            .map(|(subject, interval)| format!("{subject}, {interval} ms")),
    );
    for fault in Fault::ALL {
        for phase in PHASES {
            let cells: Vec<_> = columns
                .iter()
                .map(|column| figures(samples, *column, fault, phase))
                .collect();
            if cells.iter().all(Option::is_none) {
                continue;
            }
            let mut row = vec![match phase {
                Phase::Outage => fault.to_string(),
                Phase::Vacated => "its host gives the address up".to_owned(),
                Phase::FailBack => "its fail-back".to_owned(),
            }];
            row.extend(cells.into_iter().map(|figures| {
                figures.map_or_else(|| "-".to_owned(), |figures| figures.cell(expected))
            }));
            rows.push(row);
        }
    }
    rows
}

/// An outage after a heal, ms, that nobody takes for a reconnection: the client knew the wrong host.
const NOT_BACK: f64 = 1000.0;

/// How clients fared when a silent host was heard again; no rows where none was.
pub fn heals(samples: &[Sample]) -> Vec<Vec<String>> {
    let words = [
        "a partition heals",
        "heals",
        "client cut off for more than 1 s",
        "for more than 8 s",
        "outage, ms",
    ];
    let mut rows = vec![words.map(str::to_owned).to_vec()];
    for column in columns(samples) {
        let of_column = samples.iter().filter(|sample| {
            sample.fault == Fault::HostSilent && (sample.subject, sample.advertisement_ms) == column
        });
        let healed: Vec<&Cost> = of_column.filter_map(|it| it.fail_back.as_ref()).collect();
        let Some(figures) = Figures::of(healed.iter().copied()) else {
            continue;
        };
        let longer = healed.iter().filter(|cost| cost.outage_ms > NOT_BACK);
        rows.push(vec![
            format!("{}, {} ms", column.0, column.1),
            figures.count.to_string(),
            longer.count().to_string(),
            figures.stuck.to_string(),
            figures.shown(),
        ]);
    }
    if rows.len() == 1 { Vec::new() } else { rows }
}

/// `rows` as a table of Markdown, the first one its head.
pub fn markdown(rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        text += &line(row);
        if number == 0 {
            text += &line(&vec!["---".to_owned(); row.len()]);
        }
    }
    text
}

/// Lines up the cells of `rows` with a rule below the first.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
        })
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += cells.join(" | ").trim_end();
        text.push('\n');
        if number == 0 {
            text += &widths
                .iter()
                .map(|width| "-".repeat(*width))
                .collect::<Vec<_>>()
                .join("-|-");
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(values: &[f64]) -> Vec<Cost> {
        let cost = |value: &f64| Cost {
            outage_ms: *value,
            total_ms: *value,
            control_ms: *value / 10.0,
            saw: String::new(),
            stuck: false,
        };
        values.iter().map(cost).collect()
    }

    #[test]
    fn figures_are_those_of_the_sorted_values() {
        let twenty: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        let figures = Figures::of(costs(&twenty).iter()).unwrap();
        assert_eq!(
            (
                figures.median,
                figures.p90,
                figures.max,
                figures.control_at_max
            ),
            (10.5, 18.0, 20.0, 2.0)
        );
        let one = Figures::of(costs(&[7.0]).iter()).unwrap();
        assert_eq!((one.median, one.p90, one.max), (7.0, 7.0, 7.0));
        assert_eq!(Figures::of(costs(&[]).iter()), None);
    }

    #[test]
    fn a_cell_tells_a_lower_limit_and_an_unexpected_number() {
        let mut three = costs(&[10.0, 20.0, 30.0]);
        let cell = |costs: &[Cost]| Figures::of(costs.iter()).unwrap().cell(3);
        assert_eq!(cell(&three), "20 / 30 / 30 (3)");
        three[2].stuck = true;
        assert_eq!(cell(&three), "20 / 30 / >30 (3) 1 stuck");
        assert_eq!(cell(&three[..2]), "15 / 20 / 20 (2) n=2");
        assert_eq!(cell(&costs(&[4.2, 5.0, 21.3])), "5.0 / 21.3 / 21.3 (2)");
    }

    #[test]
    fn a_heal_that_leaves_a_client_behind_is_counted() {
        let sample = |outage_ms: f64, stuck| Sample {
            subject: Subject::Best,
            advertisement_ms: 10,
            fault: Fault::HostSilent,
            repeat: 0,
            outage: costs(&[30.0])[0].clone(),
            vacated: None,
            fail_back: Some(Cost {
                stuck,
                ..costs(&[outage_ms])[0].clone()
            }),
        };
        let rows = heals(&[
            sample(7.0, false),
            sample(3800.0, false),
            sample(8000.0, true),
        ]);
        assert_eq!(rows[1][1..4], ["3", "2", "1"]);
        let text = markdown(&rows);
        assert_eq!(text.lines().nth(1), Some("| --- | --- | --- | --- | --- |"));
        assert!(heals(&[]).is_empty());
    }
}
