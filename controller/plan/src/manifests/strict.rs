//! Holds a value to a schema, and says in words where it departs from it.
//!
//! The API server does this for objects that pass through it. Files have none, and types that
//! ignore unknown fields would take a misspelt one for a field left out.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use super::nulls;
use crate::{
    Problem,
    model::{
        is_file_name, is_host_pattern, is_hostname, is_label_value, is_request_target, is_token,
    },
};

/// Adds to `problems` whatever `schema` does not allow in `value`, which stands at `path`.
pub(super) fn check(value: &Value, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let mut refuse = |message: String| problems.push(Problem::new(path, message));
    if schema["x-kubernetes-int-or-string"] == true {
        if !(value.is_string() || value.as_i64().is_some_and(|it| i32::try_from(it).is_ok())) {
            refuse(format!(
                "is {}; write a whole number of at most {} or a name",
                show(value),
                i32::MAX
            ));
        }
        return;
    }
    if value.is_null() && nulls::is_map(schema) {
        refuse("has no value; write {} for none, or leave the field out".to_owned());
        return;
    }
    if schema["format"] == "password" && !value.is_string() {
        refuse("is no text; put it in quotes".to_owned());
        return;
    }
    let expected = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ => return, // anything goes
    };
    if !expected {
        refuse(wrong_type(value, schema));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        let allowed: Vec<_> = allowed.iter().map(show).collect();
        refuse(format!("is {}; use {}", show(value), allowed.join(" or ")));
        return;
    }
    match value {
        Value::Object(fields) => object(fields, schema, path, problems),
        Value::Array(items) => array(items, schema, path, problems),
        Value::String(text) => {
            if schema["format"] != "password"
                && let Some(message) = string(text, schema)
            {
                refuse(message);
            }
        }
        Value::Number(number) => {
            // The types behind the schema are no wider.
            let format = match schema["format"].as_str() {
                Some("int32") => Some((f64::from(i32::MIN), f64::from(i32::MAX))),
                _ => None,
            };
            let bound = |name: &str| {
                let format =
                    format.map(|(least, most)| if name == "minimum" { least } else { most });
                schema[name].as_f64().or(format)
            };
            let value = number.as_f64().unwrap_or(f64::NAN);
            if bound("minimum").is_some_and(|least| value < least)
                || bound("maximum").is_some_and(|most| value > most)
            {
                let text = |name: &str| bound(name).unwrap_or_default();
                refuse(format!(
                    "is {number}; use a number from {} to {}",
                    text("minimum"),
                    text("maximum")
                ));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn object(fields: &Map<String, Value>, schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    let within = |name: &str| {
        let name = show_name(name);
        if path.is_empty() {
            name
        } else {
            format!("{path}.{name}")
        }
    };
    let properties = schema["properties"].as_object();
    let others = &schema["additionalProperties"];
    for (name, value) in fields {
        if value.is_null() && nulls::is_map(schema) {
            problems.push(Problem::new(
                within(name),
                "has no value; write \"\" for an empty one",
            ));
            continue;
        }
        match properties.and_then(|properties| properties.get(name)) {
            Some(schema) => check(value, schema, &within(name), problems),
            None if others.is_object() => check(value, others, &within(name), problems),
            None if *others == true || properties.is_none() => {}
            None => {
                let known = || {
                    properties
                        .into_iter()
                        .flat_map(Map::keys)
                        .map(String::as_str)
                };
                let remedy = nearest(name, known()).map_or_else(
                    || {
                        let known: Vec<_> = known().take(12).collect();
                        format!("remove it or use one of {}", known.join(", "))
                    },
                    |near| format!("did you mean {near}?"),
                );
                problems.push(Problem::new(
                    within(name),
                    format!("is not a known field; {remedy}"),
                ));
            }
        }
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        if let Some(name) = required.as_str()
            && !fields.contains_key(name)
        {
            problems.push(Problem::new(within(name), "is missing; add it"));
        }
    }
    if schema["maxProperties"]
        .as_u64()
        .is_some_and(|most| fields.len() as u64 > most)
    {
        problems.push(Problem::new(
            path,
            format!(
                "has {} entries; at most {} are possible",
                fields.len(),
                schema["maxProperties"]
            ),
        ));
    }
}

fn array(items: &[Value], schema: &Value, path: &str, problems: &mut Vec<Problem>) {
    for (index, item) in items.iter().enumerate() {
        check(
            item,
            &schema["items"],
            &format!("{path}[{index}]"),
            problems,
        );
    }
    let count = items.len() as u64;
    if schema["minItems"]
        .as_u64()
        .is_some_and(|least| count < least)
    {
        problems.push(Problem::new(path, "is empty; at least one entry is needed"));
    }
    if schema["maxItems"].as_u64().is_some_and(|most| count > most) {
        problems.push(Problem::new(
            path,
            format!(
                "has {count} entries; at most {} are possible",
                schema["maxItems"]
            ),
        ));
    }
    let Some(keys) = schema["x-kubernetes-list-map-keys"].as_array() else {
        return;
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let keys = keys.iter().filter_map(Value::as_str);
        let values: Vec<_> = keys
            .filter_map(|key| Some(format!("{key} {}", show(item.get(key)?))))
            .collect();
        if !values.is_empty() && !seen.insert(values.clone()) {
            problems.push(Problem::new(
                format!("{path}[{index}]"),
                format!(
                    "is a second entry with {}; remove one of the two",
                    values.join(" and ")
                ),
            ));
        }
    }
}

fn string(text: &str, schema: &Value) -> Option<String> {
    if schema["format"] == "date-time" && text.parse::<Timestamp>().is_err() {
        return Some(format!(
            "is {}; write a time such as 2026-01-31T12:00:00Z or leave the field out",
            shorten(text)
        ));
    }
    let length = text.chars().count() as u64;
    if schema["maxLength"]
        .as_u64()
        .is_some_and(|most| length > most)
    {
        return Some(format!(
            "is {}, {length} characters long; use at most {}",
            shorten(text),
            schema["maxLength"]
        ));
    }
    if schema["minLength"]
        .as_u64()
        .is_some_and(|least| length < least)
    {
        return Some(if text.is_empty() {
            "is empty; write a value".to_owned()
        } else {
            format!("is {}, which is too short", shorten(text))
        });
    }
    let pattern = schema["pattern"].as_str()?;
    PATTERNS
        .iter()
        .find(|known| known.text == pattern)
        .and_then(|known| {
            (!(known.matches)(text)).then(|| format!("is {}; {}", shorten(text), known.remedy))
        })
}

/// A pattern of the definition, as a function: a regular expression's engine would be a dependency
/// for a few of them, and could not say what to write instead.
struct Pattern {
    text: &'static str,
    matches: fn(&str) -> bool,
    remedy: &'static str,
}

const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

const PATTERNS: [Pattern; 10] = [
    Pattern {
        text: DURATION,
        matches: |text| text.parse::<crds::Duration>().is_ok(),
        remedy: "write numbers with a unit (h, m, s or ms), such as 100ms or 1m30s",
    },
    Pattern {
        text: "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
        matches: |text| is_name(text, "-."),
        remedy: "use lower-case letters, digits, - and ., with a letter or digit at both ends",
    },
    Pattern {
        text: "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        matches: |text| is_name(text, "-"),
        remedy: "use lower-case letters, digits and -, with a letter or digit at both ends",
    },
    Pattern {
        text: "^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        matches: is_host_pattern,
        remedy: "write a name in lower case, without port, *. at most before it",
    },
    Pattern {
        text: "^[^/: \\t]+$",
        matches: |text| !text.is_empty() && !text.contains(['/', ':', ' ', '\t']),
        remedy: "write the name of a network interface, such as eth0",
    },
    Pattern {
        text: "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$",
        matches: is_token,
        remedy: "use letters, digits and signs of !#$%&'*+-.^_`|~",
    },
    Pattern {
        text: "^/[!-~]*$",
        matches: is_request_target,
        remedy: "write a path that begins with /, without blanks",
    },
    Pattern {
        text: "^[A-Za-z0-9][-._A-Za-z0-9]*$",
        matches: is_file_name,
        remedy: "write the name of a file in --check-dir, without its directory",
    },
    Pattern {
        text: r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        matches: is_hostname,
        remedy: "write the name of a host in lower case, such as chat.example.com",
    },
    Pattern {
        text: "^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$",
        matches: is_label_value,
        remedy: "use letters, digits and signs of -._, with a letter or digit at both ends",
    },
];

fn is_name(text: &str, inner: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain)
        && text.ends_with(plain)
        && text.chars().all(|c| plain(c) || inner.contains(c))
}

/// What is wrong with the name of an object.
pub(super) fn name_problem(name: &str) -> Option<String> {
    let [_, names, ..] = &PATTERNS;
    let fits = name.len() <= 253 && (names.matches)(name);
    (!fits).then(|| format!("is {}; {}", shorten(name), names.remedy))
}

pub(super) fn wrong_type(value: &Value, schema: &Value) -> String {
    let remedy = match (schema["type"].as_str(), value) {
        // YAML has yes, no, y, n, on and off for true and false.
        (Some("string"), Value::Bool(_)) => {
            return format!("is read as {value}, not as a text; put it in quotes");
        }
        (Some("string"), Value::Number(_)) if schema["pattern"] == DURATION => {
            return format!("is {value}; add a unit, such as {value}s");
        }
        (Some("string"), Value::Number(_)) => "put it in quotes",
        (Some("string"), _) => "write a text",
        (Some("integer" | "number"), Value::String(_)) => "write a number without quotes",
        (Some("integer"), Value::Number(number)) if number.is_u64() => "write a smaller number",
        (Some("integer"), _) => "write a whole number",
        (Some("boolean"), _) => "write true or false",
        (Some("array"), _) => "write a list, each entry behind a dash",
        (Some("object"), _) => "write fields, each with a name and a value",
        _ => "write another value",
    };
    format!("is {}; {remedy}", show(value))
}

/// A value in a message.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "missing".to_owned(),
        Value::String(text) => shorten(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A text in a message: on one line and not endless.
pub(super) fn shorten(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    let plain = |c: char| c.is_ascii_graphic() && c != '"';
    if !short.is_empty() && short.chars().all(plain) {
        format!("{short}{dots}")
    } else {
        format!("{short:?}{dots}")
    }
}

pub(super) fn show_name(name: &str) -> String {
    // Labels have dots in their names: in brackets the path stays readable.
    if name.contains('.') || name.contains('/') {
        format!("[{}]", shorten(name))
    } else {
        shorten(name)
    }
}

/// The name that was probably meant: but for case the same, or few letters away.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let lower = name.to_lowercase();
    let distances = known.map(|known| (distance(&lower, &known.to_lowercase()), known));
    let (distance, near) = distances.min()?;
    (distance <= 1 + near.len() / 5).then_some(near)
}

/// Edits that lead from one word to the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All patterns of a schema.
    fn patterns(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(fields) => {
                if let Some(pattern) = fields.get("pattern").and_then(Value::as_str) {
                    found.insert(pattern.to_owned());
                }
                fields.values().for_each(|value| patterns(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| patterns(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_pattern_of_the_definition_is_known() {
        let mut found = BTreeSet::new();
        patterns(&super::super::object::pool_schema(), &mut found);
        let known: BTreeSet<_> = PATTERNS.iter().map(|known| known.text.to_owned()).collect();
        assert_eq!(found, known);
    }

    #[test]
    fn finds_the_name_that_was_meant() {
        let known = || {
            [
                "virtualRouterID",
                "address",
                "interface",
                "preferredNodeName",
            ]
            .into_iter()
        };
        assert_eq!(nearest("virtualRouterId", known()), Some("virtualRouterID"));
        assert_eq!(nearest("adress", known()), Some("address"));
        assert_eq!(nearest("weight", known()), None);
    }

    #[test]
    fn counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
