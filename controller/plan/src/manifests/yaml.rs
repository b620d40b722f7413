//! YAML, and what is wrong with it in words of our own: those of the library speak to programmers,
//! and quote texts of any length.

use serde_json::Value;
use serde_saphyr::{Budget, Error, budget::BudgetBreach, options::AliasLimits};

use super::strict::shorten;

/// Values that one file may hold. The agent takes files of up to 16 MiB, and objects as `kubectl get`
/// writes them have a value every 14 bytes: such a file has half of these.
const MOST_NODES: usize = 2 << 20;
/// What aliases repeat comes on top: a few lines of them can stand for gigabytes.
const MOST_ALIASES: usize = 100_000;
const MOST_REPEATED: usize = 1_000_000;
const MOST_BYTES: usize = 64 << 20;
/// Lists and maps within each other; the objects have less than 20.
const DEEPEST: usize = 64;

/// The documents of a text. The error is a clause that says where it is no YAML.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: Some(budget()),
        alias_limits: limits(),
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| explain(&error))
}

fn budget() -> Budget {
    let mut budget = Budget::default();
    budget.max_events = 4 * MOST_NODES;
    budget.max_nodes = MOST_NODES;
    budget.max_documents = MOST_NODES;
    budget.max_aliases = MOST_ALIASES;
    budget.max_anchors = MOST_ALIASES;
    budget.max_merge_keys = MOST_ALIASES;
    budget.max_recorded_anchor_events = MOST_REPEATED;
    budget.max_recorded_anchor_bytes = MOST_BYTES;
    budget.max_total_scalar_bytes = MOST_BYTES;
    budget.max_depth = DEEPEST;
    // Two anchors that hundreds of objects share are what anchors are for.
    budget.enforce_alias_anchor_ratio = false;
    budget
}

fn limits() -> AliasLimits {
    let mut limits = AliasLimits::default();
    limits.max_total_replayed_events = MOST_REPEATED;
    limits
}

fn explain(error: &Error) -> String {
    let place = error.location().map_or_else(String::new, |at| {
        format!(" at line {} column {}", at.line(), at.column())
    });
    match cause(error) {
        Cause::Limit(what, remedy) => {
            format!("holds too much{place}: {what}; {remedy}")
        }
        Cause::Text(what) => format!("is no valid YAML{place}: {what}"),
    }
}

enum Cause {
    /// What there is too much of, and what to do.
    Limit(String, &'static str),
    Text(String),
}

fn cause(error: &Error) -> Cause {
    const SPLIT: &str = "split the file";
    const ALIASES: &str = "write out what they stand for";
    let too_deep = || {
        Cause::Limit(
            format!("lists and maps lie deeper than {DEEPEST} within each other"),
            "correct the indentation or the brackets",
        )
    };
    let text = |text: &str| Cause::Text(text.to_owned());
    match error {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => cause(error),
        Error::DuplicateMappingKey { key, .. } => Cause::Text(match key {
            Some(key) => format!("{} is there twice; remove one of the two", shorten(key)),
            None => "a field is there twice; remove one of the two".to_owned(),
        }),
        Error::NullIntoString { .. } => {
            text("a field has no name; write one before the colon, in quotes if it is null or ~")
        }
        Error::UnknownAnchor { .. } => text(
            "an alias (*) has no anchor (&) before it in its document; add it or write the value out",
        ),
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            text("an anchor (&) holds an alias (*) of itself; write the value out")
        }
        Error::NonFiniteFloat { value, .. } => Cause::Text(format!(
            "{} is no finite number; write a number that is",
            shorten(value)
        )),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::Budget {
            breach:
                BudgetBreach::RecordedAnchorEvents { .. } | BudgetBreach::RecordedAnchorBytes { .. },
            ..
        } => Cause::Limit(
            format!("what anchors and aliases stand for is more than {MOST_REPEATED} values"),
            ALIASES,
        ),
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Depth { .. } => too_deep(),
            BudgetBreach::Aliases { .. }
            | BudgetBreach::Anchors { .. }
            | BudgetBreach::MergeKeys { .. } => Cause::Limit(
                format!("more than {MOST_ALIASES} anchors and aliases"),
                ALIASES,
            ),
            BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
                Cause::Limit(format!("more than {MOST_NODES} values"), SPLIT)
            }
            BudgetBreach::ScalarBytes { .. } => {
                Cause::Limit(format!("more than {} MiB of text", MOST_BYTES >> 20), SPLIT)
            }
            BudgetBreach::SequenceUnbalanced => text("a list is not closed; add its bracket"),
            _ => Cause::Limit("more than is ever needed".to_owned(), SPLIT),
        },
        // The scanner, which runs ahead of the budget, has no kind of its own for it.
        other if words(other).contains("recursion limit") => too_deep(),
        other => Cause::Text(words(other)),
    }
}

/// The library's words, on one line, without the place, and not endless: they may quote the text.
fn words(error: &Error) -> String {
    let message = error.to_string();
    let line = message.lines().next().unwrap_or_default();
    let line = line.split(" at line ").next().unwrap_or_default();
    let short: String = line.trim_end_matches('.').chars().take(200).collect();
    let dots = if short.len() < line.trim_end_matches('.').len() {
        "..."
    } else {
        ""
    };
    format!("{short}{dots}")
}
