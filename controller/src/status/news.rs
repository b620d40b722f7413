//! Changes that a user should hear of.

use crds::WebSocketHAPoolStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{ACCEPTED, DEGRADED};

/// Notes of events are 1024 bytes long at most.
const LONGEST: usize = 1000;

/// One event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct News {
    /// Whether somebody should look.
    pub warns: bool,
    /// What was done.
    pub action: &'static str,
    /// Why, a word.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

/// What there is to tell of the way from one status to the next.
pub fn news(before: &WebSocketHAPoolStatus, after: &WebSocketHAPoolStatus) -> Vec<News> {
    let mut news = moves(before, after);
    news.extend(verdict(ACCEPTED, "False", "Admit", before, after));
    news.extend(verdict(DEGRADED, "True", "Watch", before, after));
    news
}

/// Addresses that another node holds now.
fn moves(before: &WebSocketHAPoolStatus, after: &WebSocketHAPoolStatus) -> Vec<News> {
    let moved = after.virtual_ips.iter().filter_map(|entry| {
        let mut former = before.virtual_ips.iter();
        let former = former.find(|it| it.address == entry.address);
        let former = former.and_then(|it| it.active_node_name.as_deref());
        let now = entry.active_node_name.as_deref();
        if former == now {
            return None;
        }
        let address = &entry.address;
        let note = match (former, now) {
            (Some(former), Some(now)) => format!("{address} moved from {former} to {now}"),
            (None, Some(now)) => format!("{address} is held by {now}"),
            (_, None) => format!("no gateway says that it holds {address}"),
        };
        Some(News {
            warns: now.is_none(),
            action: "Failover",
            reason: "ActiveNodeChanged".to_owned(),
            note,
        })
    });
    moved.collect()
}

/// A condition that has become `bad`, for a new reason or in new words, or is so no longer.
fn verdict(
    type_: &str,
    bad: &str,
    action: &'static str,
    before: &WebSocketHAPoolStatus,
    after: &WebSocketHAPoolStatus,
) -> Option<News> {
    let of = |status: &WebSocketHAPoolStatus| -> Option<Condition> {
        let mut conditions = status.conditions.iter();
        conditions.find(|it| it.type_ == type_).cloned()
    };
    let (former, now) = (of(before), of(after)?);
    let was_bad = former.as_ref().is_some_and(|it| it.status == bad);
    let is_bad = now.status == bad;
    let same = former
        .is_some_and(|it| (it.reason, it.message) == (now.reason.clone(), now.message.clone()));
    if same || !(was_bad || is_bad) {
        return None;
    }
    let mut note = now.message;
    let end = (0..=LONGEST.min(note.len())).rev();
    note.truncate(
        end.into_iter()
            .find(|&at| note.is_char_boundary(at))
            .unwrap_or(0),
    );
    Some(News {
        warns: is_bad,
        action,
        reason: now.reason,
        note,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(active: Option<&str>, accepted: (&str, &str, &str)) -> WebSocketHAPoolStatus {
        let (holds, reason, message) = accepted;
        serde_json::from_value(json!({
            "virtualIPs": [{"address": "10.0.0.9", "activeNodeName": active}],
            "conditions": [{
                "type": ACCEPTED, "status": holds, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        }))
        .unwrap()
    }

    const GOOD: (&str, &str, &str) = ("True", "Accepted", "the object is valid and permitted");

    fn told(before: &WebSocketHAPoolStatus, after: &WebSocketHAPoolStatus) -> Vec<String> {
        let news = news(before, after).into_iter();
        news.map(|it| {
            format!(
                "{} {} {}",
                if it.warns { "!" } else { "-" },
                it.reason,
                it.note
            )
        })
        .collect()
    }

    #[test]
    fn moves_are_told_once() {
        let before = WebSocketHAPoolStatus::default();
        let held = status(Some("a"), GOOD);
        assert_eq!(
            told(&before, &held),
            ["- ActiveNodeChanged 10.0.0.9 is held by a"]
        );
        assert!(told(&held, &held).is_empty());
        let moved = status(Some("b"), GOOD);
        assert_eq!(
            told(&held, &moved),
            ["- ActiveNodeChanged 10.0.0.9 moved from a to b"]
        );
        let lost = status(None, GOOD);
        assert_eq!(
            told(&moved, &lost),
            ["! ActiveNodeChanged no gateway says that it holds 10.0.0.9"]
        );
    }

    #[test]
    fn a_refusal_is_told_with_its_reason_and_so_is_its_end() {
        let before = WebSocketHAPoolStatus::default();
        let refused = status(None, ("False", "AddressConflict", "belongs to another"));
        assert_eq!(
            told(&before, &refused),
            ["! AddressConflict belongs to another"]
        );
        assert!(told(&refused, &refused).is_empty());
        let otherwise = status(None, ("False", "AddressConflict", "and to a third"));
        assert_eq!(
            told(&refused, &otherwise),
            ["! AddressConflict and to a third"]
        );
        assert_eq!(
            told(&otherwise, &status(None, GOOD)),
            ["- Accepted the object is valid and permitted"]
        );
        assert!(
            told(&before, &status(None, GOOD)).is_empty(),
            "as it should be"
        );
    }
}
