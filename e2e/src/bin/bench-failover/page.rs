//! A run as a piece of a page.

use std::collections::BTreeMap;

use e2e::machine;
use e2e::measure::{Finding, Sample, heals, markdown, rows};
use e2e::subject::Subject;

/// What is shown of a run.
pub(crate) struct Page<'a> {
    /// Intervals between advertisements, ms, in their order.
    pub(crate) intervals: &'a [u64],
    /// So many samples of each fault are expected.
    pub(crate) repeat: usize,
    pub(crate) samples: &'a [Sample],
    pub(crate) findings: &'a [Finding],
    /// How it was measured.
    pub(crate) footer: &'a str,
    /// How each subject was set up.
    pub(crate) configurations: &'a BTreeMap<String, String>,
}

impl Page<'_> {
    /// Markdown: machine and date, tables, what is to be said of them, and the configuration.
    pub(crate) fn text(&self) -> String {
        let mut parts = vec![format!("{}. {}.\n", machine::describe(), machine::peers())];
        // One for each interval: a table of all would be too wide.
        for (number, interval) in self.intervals.iter().enumerate() {
            let is_shown = |sample: &&Sample| match sample.subject {
                // The article's interval is its own.
                Subject::Article => number == 0,
                _ => sample.advertisement_ms == u128::from(*interval),
            };
            let shown: Vec<Sample> = self.samples.iter().filter(is_shown).cloned().collect();
            parts.push(markdown(&rows(&shown, self.repeat)));
        }
        let heals = heals(self.samples);
        if !heals.is_empty() {
            parts.push(markdown(&heals));
        }
        let findings: Vec<String> = self.findings.iter().map(ToString::to_string).collect();
        let remarks = [&[self.footer.to_owned()], &findings[..]].concat();
        parts.push(block(&(remarks.join("\n") + "\n")));
        for (name, text) in self.configurations {
            parts.push(format!("{name}:\n\n{}", block(text)));
        }
        parts.join("\n")
    }
}

fn block(text: &str) -> String {
    format!("```text\n{text}```\n")
}
