//! ARCHITECTURE.md against the code: what it lists is what there is.
#![allow(clippy::panic, reason = "helpers of tests fail like tests")]

use std::collections::BTreeSet;

use dataplane::metrics::{Kind, Metric};

const DOCUMENT: &str = include_str!("../../ARCHITECTURE.md");

/// The rows of the table below `heading`, cells trimmed.
fn table(heading: &str) -> Vec<Vec<String>> {
    let (_, section) = DOCUMENT
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_default();
    let section = section.split("\n## ").next().unwrap_or_default();
    assert!(
        !section.is_empty(),
        "ARCHITECTURE.md has no section {heading}"
    );
    section
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            line.trim_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect()
        })
        .collect()
}

#[test]
fn metrics_are_listed_with_kind_and_help() {
    let expected: Vec<Vec<String>> = Metric::ALL
        .iter()
        .map(|metric| {
            let (suffix, kind) = match metric.kind() {
                Kind::Counter => ("_total", "counter"),
                Kind::Gauge => ("", "gauge"),
                Kind::Histogram => ("", "histogram"),
            };
            vec![
                format!("`{}{suffix}`", metric.name()),
                kind.to_owned(),
                metric.help().to_owned(),
            ]
        })
        .collect();
    let rows = |rows: &[Vec<String>]| {
        rows.iter().fold(String::new(), |text, row| {
            text + "| " + &row.join(" | ") + " |\n"
        })
    };
    assert_eq!(
        table("Metrics"),
        expected,
        "the table should be:\n{}",
        rows(&expected)
    );
}

#[test]
fn causes_of_transitions_are_listed() {
    let listed: BTreeSet<String> = table("Causes of a transition")
        .iter()
        .filter_map(|row| row.first().map(|cell| cell.trim_matches('`').to_owned()))
        .collect();
    let known: BTreeSet<String> = vrrp::Cause::LABELS
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(listed, known);
}

/// Each fault names the tests that show what is said of it, and each test that is named stands where it is said to.
#[test]
fn tests_of_faults_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let rows = table("What happens when X dies");
    // The tests' own table has a head, too.
    let faults = rows.iter().filter(|row| row.len() == 3);
    let shown: Vec<_> = rows.iter().filter(|row| row.len() == 2).skip(2).collect();
    let first = |row: &&Vec<String>| row[0].clone();
    let faults: Vec<String> = faults.map(|row| row[0].clone()).collect();
    assert_eq!(shown.iter().map(first).collect::<Vec<_>>(), faults);
    for row in shown {
        let cells = row[1].split('`').filter(|cell| cell.contains(".rs: "));
        let named: Vec<_> = cells.collect();
        assert!(!named.is_empty(), "no test of {:?}", row[0]);
        for name in named {
            let (path, test) = name.split_once(": ").unwrap_or_default();
            let source = std::fs::read_to_string(root.join(path)).unwrap_or_default();
            assert!(source.contains(&format!("fn {test}(")), "no test {name}");
        }
    }
}
