//! The access log: a line of JSON on standard output for each record of the relay.
//!
//! Standard error has what the program says of itself; here are the clients. A thread writes, so that
//! the workers never wait for whoever reads it; what it has no room for the relay counts.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proxy::{Record, Volume};
use serde::Serialize;

use super::lines::Lines;

/// Records that may wait to be written: sessions that end together have more than gather otherwise.
const QUEUE: usize = 8192;

/// How long records gather before they are written. A worker that finds this thread waiting has to
/// wake it, which costs more than the record does: with many, it does so once in this time.
const GATHER: Duration = Duration::from_millis(5);

/// How long the end of the process waits for the last of them.
const FLUSH: Duration = Duration::from_millis(500);

/// The thread that writes.
#[derive(Debug)]
pub(super) struct AccessLog {
    over: Receiver<()>,
}

impl AccessLog {
    /// Starts it; where its records are to be sent.
    pub(super) fn start() -> io::Result<(SyncSender<Box<Record>>, Self)> {
        let (sender, records) = mpsc::sync_channel(QUEUE);
        let (finished, over) = mpsc::channel();
        let write = move || {
            let written = write(&records, io::stdout());
            if let Err(error) = written {
                tracing::error!(%error, "cannot write the access log: records are lost");
                records.iter().for_each(drop);
            }
            drop(finished);
        };
        let named = thread::Builder::new().name("access-log".to_owned());
        named.spawn(write)?;
        Ok((sender, Self { over }))
    }

    /// Waits, but not for long, until all that was sent is written. The senders must be gone.
    pub(super) fn finish(self) {
        if self.over.recv_timeout(FLUSH) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("nobody reads the access log: its last records are lost");
        }
    }
}

/// Writes what comes, together what has come together.
fn write(records: &Receiver<Box<Record>>, to: impl Write) -> io::Result<()> {
    let mut lines = Lines::new(to);
    while let Ok(first) = records.recv() {
        thread::sleep(GATHER);
        for record in std::iter::once(first).chain(records.try_iter().take(QUEUE)) {
            lines.push(&Line::from(&*record))?;
        }
        lines.flush()?;
    }
    Ok(())
}

/// A record as it is written; ARCHITECTURE.md describes the fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    time: String,
    pool: &'a str,
    listener: &'a str,
    address: SocketAddr,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subprotocol: Option<&'a str>,
    handshake: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    duration_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    close_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_client: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_endpoint: Option<Size>,
}

#[derive(Serialize)]
struct Size {
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<u64>,
}

impl<'a> From<&'a Record> for Line<'a> {
    fn from(record: &'a Record) -> Self {
        let client = record.client;
        let size = |volume: Volume| {
            let messages = record.ended.is_some().then_some(volume.messages);
            let bytes = volume.bytes;
            let is_said = messages.is_some() || record.request.is_some();
            is_said.then_some(Size { bytes, messages })
        };
        Self {
            time: rfc3339(record.at),
            pool: &record.pool,
            listener: &record.listener,
            address: record.address,
            client: match client.port() {
                0 => client.ip().to_string(),
                _ => client.to_string(),
            },
            peer: (record.peer != client).then_some(record.peer),
            tls_version: record.tls_version,
            server_name: record.server_name.as_deref(),
            http_version: record.http_version,
            host: record.host.as_deref(),
            method: record.method.as_deref(),
            path: record.path.as_deref(),
            origin: record.origin.as_deref(),
            route: record.route.as_deref(),
            upstream: record.upstream.as_deref(),
            endpoint: record.endpoint,
            subprotocol: record.subprotocol.as_deref(),
            handshake: record.handshake.label(),
            request: record.request.map(proxy::RequestResult::label),
            status: record.status,
            duration_seconds: record.duration.as_secs_f64(),
            ended_by: record.ended.map(proxy::Ended::label),
            close_code: record.close_code,
            from_client: size(record.from_client),
            from_endpoint: size(record.from_endpoint),
        }
    }
}

/// Milliseconds in UTC (RFC 3339 section 5.6).
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (year, month, day) = date(seconds / 86_400);
    let [hour, minute, second] = [seconds / 3600 % 24, seconds / 60 % 60, seconds % 60];
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date so many days after 1 January 1970. Years are taken to begin in March, so that a leap day
/// is the last day of one, and counted in cycles of 400, which all have the same number of days.
fn date(days: u64) -> (u64, u64, u64) {
    const CYCLE: u64 = 146_097;
    // From 1 March of the year 0.
    let days = days + 719_468;
    let (cycle, day) = (days / CYCLE, days % CYCLE);
    let year = (day - day / 1460 + day / 36_524 - day / (CYCLE - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months from March on have 153 days, and so have the next five.
    let month = (5 * day + 2) / 153;
    let in_month = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (cycle * 400 + year + next, month, in_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_709_210_096, "2024-02-29T12:34:56.007Z"),
            (1_767_225_599, "2025-12-31T23:59:59.007Z"),
            (1_767_225_600, "2026-01-01T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let at = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(7);
            assert_eq!(rfc3339(at), expected);
        }
    }
}
