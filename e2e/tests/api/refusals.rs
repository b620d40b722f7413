//! Bad objects and the sentences that users read, from the table in `refusals.txt`.

use anyhow::{Context, Result, ensure};
use e2e::testing::{Api, on_api_server};
use serde_json::Value;

use super::{edited, pool};

const TABLE: &str = include_str!("refusals.txt");

/// A part of the table: edits, each with what the user reads.
fn cases(part: &str) -> Result<Vec<(Value, String)>> {
    let heading = format!("[{part}]");
    let lines = TABLE.lines().skip_while(|line| *line != heading).skip(1);
    let mut cases: Vec<(Value, String)> = Vec::new();
    for line in lines.take_while(|line| !line.starts_with('[')) {
        if line.starts_with('{') {
            let edit = serde_json::from_str(line).with_context(|| line.to_owned())?;
            cases.push((edit, String::new()));
        } else if let Some(told) = line.strip_prefix("    ") {
            let (_, sentence) = cases.last_mut().context("a sentence without an edit")?;
            sentence.push('\n');
            sentence.push_str(told);
        }
    }
    ensure!(!cases.is_empty(), "the table has no part {part}");
    Ok(cases)
}

/// Applies each edit of a part of the table to `pool`, and compares what the user reads.
pub(crate) fn refused(api: &Api, pool: &Value, part: &str) -> Result<()> {
    let mut differences = Vec::new();
    for (edit, sentence) in cases(part)? {
        let edited = edited(pool, &edit)?.to_string();
        let answer = api.kubectl_file(&["apply", "--dry-run=server"], &edited)?;
        let told = answer.refusal().with_context(|| edit.to_string())?;
        let lines: Vec<&str> = told.lines().map(str::trim_end).collect();
        // Several problems stand below each other, one alone on the same line.
        let apart = if sentence.starts_with("\n*") { "" } else { " " };
        let sentence = if apart.is_empty() {
            sentence.as_str()
        } else {
            sentence.trim_start()
        };
        let expected = format!("The WebSocketHAPool \"chat\" is invalid:{apart}{sentence}");
        if lines.join("\n") != expected {
            differences.push(format!("{edit}\n  expected {expected}\n  found    {told}"));
        }
    }
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

#[test]
fn fields_are_refused_with_a_sentence() -> Result<()> {
    on_api_server("fields_are_refused_with_a_sentence", |api| {
        refused(api, &pool(), "fields")
    })
}

#[test]
fn combinations_are_refused_with_a_sentence() -> Result<()> {
    on_api_server("combinations_are_refused_with_a_sentence", |api| {
        refused(api, &pool(), "combinations")
    })
}

/// No rule without an object that it refuses.
#[test]
fn every_rule_is_in_the_table() -> Result<()> {
    fn messages<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
        match schema {
            Value::Object(fields) => {
                for rule in fields
                    .get("x-kubernetes-validations")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                {
                    found.extend(rule["message"].as_str());
                }
                fields.values().for_each(|value| messages(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| messages(value, found)),
            _ => {}
        }
    }
    let definition = serde_json::to_value(crds::definition())?;
    let mut found = Vec::new();
    messages(&definition, &mut found);
    ensure!(found.len() > 10, "found {} rules only", found.len());
    for message in found {
        ensure!(
            TABLE.contains(message),
            "no object is refused with: {message}"
        );
    }
    Ok(())
}
