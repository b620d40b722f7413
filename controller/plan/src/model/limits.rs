//! `spec.limits`.

use std::time::Duration;

use node_api::{Limits, MessageRate};

use super::timing;
use crate::Problem;

/// Longest life of a session.
const OLDEST: Duration = Duration::from_hours(8760);

/// What a read of the proxy brings may wait at any time.
const BUFFERED_LEAST: u64 = 64 * 1024;

pub(super) fn limits(problems: &mut Vec<Problem>, spec: &crds::Limits) -> Limits {
    let mut refuse = |field: &str, message: &str| {
        problems.push(Problem::new(format!("spec.limits.{field}"), message));
    };
    let counts = [
        ("maxSessions", spec.max_sessions),
        ("maxSessionsPerSource", spec.max_sessions_per_source),
        ("maxSessionsPerOrigin", spec.max_sessions_per_origin),
        ("handshakesPerSecond", spec.handshakes_per_second),
        ("messagesPerSecond", spec.messages_per_second),
        ("messageBurst", spec.message_burst),
    ];
    for (field, count) in counts {
        if !count.is_none_or(|count| (1..=1_000_000).contains(&count)) {
            refuse(
                field,
                "is out of range; use a number from 1 to 1000000, or leave it out",
            );
        }
    }
    let least = BUFFERED_LEAST;
    if spec.max_buffered_bytes.is_some_and(|most| most < least) {
        let message = format!("is less than {least}; use at least that, or leave it out");
        refuse("maxBufferedBytes", &message);
    }
    if spec.max_buffered_bytes.is_some() && spec.slow_reader_timeout.is_zero() {
        refuse(
            "maxBufferedBytes",
            "has no meaning with slowReaderTimeout 0s, as it ends nothing at once; remove it or set slowReaderTimeout",
        );
    }
    // Control frames have up to 125 bytes (RFC 6455 section 5.5).
    for (field, least, size) in [
        ("maxFrameSize", 125, spec.max_frame_size),
        ("maxMessageSize", 1, spec.max_message_size),
    ] {
        if size.is_some_and(|size| size < least) {
            let message = format!("is less than {least}; use at least that, or leave it out");
            refuse(field, &message);
        }
    }
    if spec.message_burst.is_some() && spec.messages_per_second.is_none() {
        refuse(
            "messageBurst",
            "has no meaning without messagesPerSecond; remove it or set messagesPerSecond",
        );
    }
    let age = spec.max_session_age;
    if let Some(age) = age.filter(|age| !(Duration::from_secs(1)..=OLDEST).contains(&age.get())) {
        refuse("maxSessionAge", &format!("is {age}; use 1s to 8760h"));
    }
    let slow_reader = spec.slow_reader_timeout;
    timing::limit(problems, "spec.limits.slowReaderTimeout", slow_reader, true);
    Limits {
        sessions: spec.max_sessions,
        sessions_per_source: spec.max_sessions_per_source,
        sessions_per_origin: spec.max_sessions_per_origin,
        handshakes_per_second: spec.handshakes_per_second,
        frame_size: spec.max_frame_size,
        message_size: spec.max_message_size,
        messages: spec.messages_per_second.map(|per_second| MessageRate {
            per_second,
            burst: spec.message_burst.unwrap_or(per_second),
        }),
        session_age: age.map(crds::Duration::get),
        slow_reader: (!slow_reader.is_zero()).then(|| slow_reader.get()),
        buffered_bytes: spec.max_buffered_bytes,
    }
}
