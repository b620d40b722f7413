//! Figures of a run as one table.

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
    /// How many clients did not come back by themselves.
    pub stuck: usize,
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
        })
    }

    fn cell(&self) -> String {
        let mut cell = format!(
            "{:.0} / {:.0} / {:.0} ({:.0})",
            self.median, self.p90, self.max, self.control_at_max
        );
        if self.stuck > 0 {
            cell = format!("{cell} {} stuck", self.stuck);
        }
        cell
    }
}

/// One table: a row for each fault and each return, a column for each subject and interval among `samples`.
pub fn table(samples: &[Sample]) -> String {
    let mut columns: Vec<(Subject, u128)> = samples
        .iter()
        .map(|sample| (sample.subject, sample.advertisement_ms))
        .collect();
    columns.sort_unstable();
    columns.dedup();
    let mut rows = vec![vec!["outage of a client, ms".to_owned()]];
    rows[0].extend(
        columns
            .iter()
            .map(|(subject, interval)| format!("{subject}, {interval} ms")),
    );
    for fault in Fault::ALL {
        let of = |column: (Subject, u128)| {
            samples.iter().filter(move |sample| {
                sample.fault == fault && (sample.subject, sample.advertisement_ms) == column
            })
        };
        let outages = columns
            .iter()
            .map(|column| Figures::of(of(*column).map(|sample| &sample.outage)));
        let returns = columns
            .iter()
            .map(|column| Figures::of(of(*column).filter_map(|sample| sample.fail_back.as_ref())));
        push_row(&mut rows, fault.to_string(), outages.collect());
        push_row(&mut rows, "  its fail-back".to_owned(), returns.collect());
    }
    align(&rows)
}

fn push_row(rows: &mut Vec<Vec<String>>, name: String, figures: Vec<Option<Figures>>) {
    if figures.iter().any(Option::is_some) {
        let cells = figures
            .into_iter()
            .map(|figures| figures.map_or_else(|| "-".to_owned(), |figures| figures.cell()));
        rows.push(std::iter::once(name).chain(cells).collect());
    }
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
}
