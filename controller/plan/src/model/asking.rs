//! What checks of every kind have in common, as users write it: how often they ask, what of HTTP, and how many
//! answers decide.

use std::time::Duration;

use super::timing::limit;
use crate::Problem;

/// Pace of the quickest check.
const QUICKEST: Duration = Duration::from_millis(100);

/// `interval` and `timeout` of the check at `path`.
pub(super) fn pace(
    problems: &mut Vec<Problem>,
    path: &str,
    interval: crds::Duration,
    timeout: crds::Duration,
) {
    let interval_path = format!("{path}.interval");
    let timeout_path = format!("{path}.timeout");
    limit(problems, &interval_path, interval, true);
    if interval.get() < QUICKEST {
        let problem = format!("is {interval}; use at least 100ms");
        problems.push(Problem::new(interval_path, problem));
    }
    limit(problems, &timeout_path, timeout, false);
    if timeout > interval {
        problems.push(Problem::new(
            timeout_path,
            format!("is {timeout}, which is longer than interval, {interval}; use at most that"),
        ));
    }
}

/// How many in a row decide.
pub(super) fn threshold(problems: &mut Vec<Problem>, path: &str, field: &str, value: u32) {
    if !(1..=100).contains(&value) {
        problems.push(Problem::new(
            format!("{path}.{field}"),
            format!("is {value}; use a number from 1 to 100"),
        ));
    }
}

/// `path` of the question at `path`. RFC 9112 section 3.2.1: it is asked for as it stands.
pub(super) fn request_target(problems: &mut Vec<Problem>, path: &str, target: &str) {
    if !is_request_target(target) {
        problems.push(Problem::new(
            format!("{path}.path"),
            "is no path; begin with / and write no blanks",
        ));
    }
}

/// `expectedStatuses` of the question at `path`.
pub(super) fn statuses(problems: &mut Vec<Problem>, path: &str, statuses: &[u16]) {
    if statuses.len() > 16 || statuses.iter().any(|it| !(200..=599).contains(it)) {
        problems.push(Problem::new(
            format!("{path}.expectedStatuses"),
            "has more than 16 entries, or one that is no final status; use numbers from 200 to 599",
        ));
    }
}

pub(crate) fn is_request_target(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic())
}
