//! The table of `README.md` against the tests: what it names is there, and runs.
#![allow(clippy::panic, reason = "helpers of tests fail like tests")]

use std::{fs, path::Path};

const TABLE: &str = include_str!("README.md");
/// Whose rules run in both versions: they are listed there by name, and marked as tests by that.
const RULES: &str = "transitions/standard.rs";
const LIST: &str = include_str!("transitions/main.rs");

fn source(path: &str) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    fs::read_to_string(tests.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands in backticks and names a test.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter_map(|it| it.split_once(".rs: ").map(|_| it)?.split_once(": "))
}

/// Names of functions that the test harness runs.
fn tests_of(path: &str) -> Vec<String> {
    if path == RULES {
        let list = LIST.split_once("in_both_versions! { standard:");
        let list = list.and_then(|(_, list)| list.split_once('}'));
        let names = list.map_or("", |(names, _)| names).split_whitespace();
        return names.map(str::to_owned).collect();
    }
    let (mut tests, mut is_marked) = (Vec::new(), false);
    for line in source(path).lines().map(str::trim) {
        if line == "#[test]" {
            is_marked = true;
        } else if let Some(name) = line.strip_prefix("fn ")
            && std::mem::take(&mut is_marked)
        {
            let name = name.split('(').next().unwrap_or_default();
            tests.push(name.to_owned());
        }
    }
    tests
}

#[test]
fn each_rule_names_tests_that_run_or_says_why_there_is_none() {
    let rows = TABLE.lines().filter(|line| line.starts_with('|'));
    let rows = rows.filter(|row| !row.starts_with("| section") && !row.starts_with("|---"));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [section, rule, shown] = cells[..] else {
            panic!("a row of {} cells: {row}", cells.len());
        };
        let is_section =
            section.starts_with(|it: char| it.is_ascii_digit()) || section.starts_with("RFC ");
        assert!(is_section && !rule.is_empty() && !shown.is_empty(), "{row}");
        for (path, test) in named(shown) {
            let is_there = tests_of(path).iter().any(|it| it == test);
            assert!(is_there, "{section}: no test {test} in {path}");
        }
        count += 1;
    }
    assert!(count > 50, "{count} rows");
}

/// A rule that is tested is one of the standards, which says where it stands.
#[test]
fn each_rule_that_is_tested_is_in_the_table() {
    for path in ["discards.rs", RULES] {
        let tests = tests_of(path);
        assert!(tests.len() > 15, "{path}: {tests:?}");
        for test in tests {
            let is_named = named(TABLE).any(|it| it == (path, test.as_str()));
            assert!(is_named, "README.md does not name {path}: {test}");
            assert!(
                source(path).contains(&format!("fn {test}(")),
                "{path}: {test}"
            );
        }
    }
}
