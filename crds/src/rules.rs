//! Rules about durations that several fields share, for the API server to check.

use kube::core::Rule;

/// A rule about the duration `name`, which a text that is none does not break: the pattern says what
/// is wrong with that, and `duration()` would fail with a sentence about its own types.
pub(crate) fn duration_rule(name: &str, rule: &str) -> String {
    format!(
        "!{name}.matches('{}') || ({rule})",
        crate::duration::PATTERN
    )
}

/// From one question to the next.
pub(crate) fn pace() -> Rule {
    let rule = "duration(self) >= duration('100ms') && duration(self) <= duration('1h')";
    Rule::new(duration_rule("self", rule)).message("must be 100ms to 1h")
}

/// What somebody waits for.
pub(crate) fn wait() -> Rule {
    let rule = "duration(self) > duration('0s') && duration(self) <= duration('1h')";
    Rule::new(duration_rule("self", rule)).message("must be 1ms to 1h")
}

/// What may be nothing at all.
pub(crate) fn at_most_an_hour() -> Rule {
    let rule = "duration(self) <= duration('1h')";
    Rule::new(duration_rule("self", rule)).message("must be at most 1h")
}

/// Of `timeout` and `interval`: what is asked is over before it is asked again.
pub(crate) fn answered_before_the_next() -> Rule {
    let rule = "duration(self.timeout) <= duration(self.interval)";
    let rule = duration_rule("self.interval", rule);
    Rule::new(duration_rule("self.timeout", &rule))
        .message("must not be longer than interval")
        .field_path(".timeout")
}
