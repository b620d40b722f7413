//! Conditions: types and reasons are constants, messages tell what to do.

use std::{borrow::Cow, net::IpAddr};

use crds::{ListenerStatus, WebSocketHAPool, WebSocketHAPoolStatus};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use node_api::{Endpoint, EndpointPhase, Tracked};
use plan::{Problem, Reason};

use crate::{
    desired::Desired,
    status::observed::{Carried, Observed},
    tls::{Fault, Holder, Reference},
};

/// A Secret that a pool names and that cannot be used.
pub(super) type TlsFault<'a> = (Reference<'a>, Fault);

/// The object is valid and permitted.
pub const ACCEPTED: &str = "Accepted";
/// Every gateway carries it out.
pub const PROGRAMMED: &str = "Programmed";
/// Every address has a holder that accepts clients.
pub const READY: &str = "Ready";
/// Something needs attention.
pub const DEGRADED: &str = "Degraded";
/// A listener accepts clients wherever its address is held.
pub(super) const ACCEPTING: &str = "Accepting";
/// What a listener names is there and can be used.
pub(super) const RESOLVED_REFS: &str = "ResolvedRefs";

/// What a condition says: whether it holds, why, and what to do.
struct Verdict {
    holds: bool,
    reason: Cow<'static, str>,
    message: String,
}

impl Verdict {
    fn new(holds: bool, reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            holds,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// The conditions of a pool.
pub(crate) fn of_pool(
    pool: &WebSocketHAPool,
    before: &WebSocketHAPoolStatus,
    desired: &Desired,
    observed: &Observed<'_>,
    faults: &[TlsFault<'_>],
    now: Timestamp,
) -> Vec<Condition> {
    let verdicts = [
        (ACCEPTED, accepted(desired, observed)),
        (PROGRAMMED, programmed(observed)),
        (READY, ready(pool, observed)),
        (DEGRADED, degraded(pool, desired, observed, faults, now)),
    ];
    let generation = pool.metadata.generation;
    verdicts
        .into_iter()
        .map(|(type_, verdict)| condition(type_, verdict, generation, &before.conditions, now))
        .collect()
}

/// The listeners with their conditions.
pub(crate) fn listeners(
    pool: &WebSocketHAPool,
    before: &WebSocketHAPoolStatus,
    observed: &Observed<'_>,
    faults: &[TlsFault<'_>],
    now: Timestamp,
) -> Vec<ListenerStatus> {
    let listeners = pool.spec.listeners.iter().map(|listener| {
        let reports: Vec<_> = observed
            .listeners()
            .filter(|(_, report)| report.name == listener.name)
            .collect();
        let failing: Vec<_> = reports
            .iter()
            .filter(|(_, report)| !report.accepting)
            .map(|(node, report)| {
                let why = report.problem.as_deref().unwrap_or("not yet accepting");
                format!("{} on {node}: {why}", report.address)
            })
            .collect();
        let verdict = if reports.is_empty() {
            Verdict::new(false, "Pending", "no gateway has reported it")
        } else if failing.is_empty() {
            Verdict::new(true, "Accepting", "accepts clients")
        } else {
            Verdict::new(false, "NotAccepting", failing.join("; "))
        };
        let former = before.listeners.iter().find(|it| it.name == listener.name);
        let former = former.map_or(&[][..], |former| &former.conditions);
        let of_secrets = listener.tls.as_ref().map(|_| {
            let of_listener = |it: &&TlsFault<'_>| it.0.holder == Holder::Listener(&listener.name);
            (RESOLVED_REFS, resolved(faults.iter().filter(of_listener)))
        });
        let verdicts = [Some((ACCEPTING, verdict)), of_secrets];
        let conditions = verdicts.into_iter().flatten().map(|(type_, verdict)| {
            condition(type_, verdict, pool.metadata.generation, former, now)
        });
        ListenerStatus {
            name: listener.name.clone(),
            conditions: conditions.collect(),
        }
    });
    listeners.collect()
}

/// Whether the Secrets that are named can be used.
fn resolved<'a, 'b: 'a>(faults: impl Iterator<Item = &'a TlsFault<'b>>) -> Verdict {
    let faults: Vec<_> = faults.collect();
    let Some((_, first)) = faults.first() else {
        return Verdict::new(
            true,
            "ResolvedRefs",
            "every Secret is there and can be used",
        );
    };
    let texts = faults.iter();
    let texts: Vec<_> = texts
        .map(|(reference, fault)| format!("{}: {}", reference.path, fault.message))
        .collect();
    Verdict::new(false, format!("{:?}", first.reason), texts.join("; "))
}

fn accepted(desired: &Desired, observed: &Observed<'_>) -> Verdict {
    match desired.plan.rejected.get(&observed.name) {
        Some(problems) => Verdict::new(false, reason(problems), sentences(problems)),
        None => Verdict::new(true, "Accepted", valid(desired, observed)),
    }
}

fn valid(desired: &Desired, observed: &Observed<'_>) -> String {
    let mut message = "the object is valid and permitted".to_owned();
    let Some(pool) = desired.plan.pools.get(&observed.name) else {
        return message;
    };
    let mut routers = pool.virtual_routers.iter();
    if routers.any(|router| router.password.is_some()) {
        message.push_str(
            "; the password of spec.vrrp.authentication crosses the wire in clear and protects from \
             nothing but mistakes",
        );
    }
    // As a backend that no route refers to: there before its route, or still there after it.
    let unused = pool.upstreams.iter().map(|upstream| upstream.name.as_str());
    let unused: Vec<_> = unused.filter(|name| !pool.is_routed(name)).collect();
    if !unused.is_empty() {
        message.push_str("; no route leads to upstream ");
        message.push_str(&unused.join(", "));
    }
    message
}

/// The reason that the first problem names.
fn reason(problems: &[Problem]) -> String {
    let first = problems.first();
    first.map_or(Reason::Invalid, |it| it.reason).to_string()
}

fn programmed(observed: &Observed<'_>) -> Verdict {
    let (mut waiting, mut away, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let mut all = 0;
    for (node, carried) in observed.carried() {
        all += 1;
        match carried {
            Carried::Yes => {}
            Carried::Waiting => waiting.push(node),
            Carried::Away => away.push(node),
            Carried::Refused(why) => refused.push(format!("{node}: {why}")),
        }
    }
    if all == 0 {
        Verdict::new(
            false,
            "NoGateways",
            "no node takes part; label gateway nodes as spec.gateways.nodeSelector asks",
        )
    } else if !refused.is_empty() {
        Verdict::new(false, "Refused", refused.join("; "))
    } else if !away.is_empty() {
        Verdict::new(
            false,
            "GatewayUnreachable",
            format!(
                "not connected: {}; look at the data-plane pods of these nodes",
                away.join(", ")
            ),
        )
    } else if !waiting.is_empty() {
        let nodes = waiting.join(", ");
        Verdict::new(false, "Pending", format!("waiting for {nodes}"))
    } else {
        Verdict::new(
            true,
            "Programmed",
            "every gateway carries this generation out",
        )
    }
}

fn ready(pool: &WebSocketHAPool, observed: &Observed<'_>) -> Verdict {
    let mut nobody = Vec::new();
    for address in addresses(pool) {
        if observed.active(address).is_none() {
            nobody.push(address.to_string());
        }
    }
    if !nobody.is_empty() {
        return Verdict::new(
            false,
            "NoActiveNode",
            format!("no gateway holds {}", nobody.join(", ")),
        );
    }
    let deaf: Vec<_> = observed
        .listeners()
        .filter(|(node, report)| {
            let holder = observed.active(report.address.ip());
            holder.is_some_and(|active| active.node == *node) && !report.accepting
        })
        .map(|(node, report)| format!("{} on {node}", report.address))
        .collect();
    if deaf.is_empty() {
        Verdict::new(true, "Ready", "every address is held and accepts clients")
    } else {
        let which = deaf.join(", ");
        Verdict::new(false, "NotAccepting", format!("does not accept: {which}"))
    }
}

/// While an address moves, the one that takes it says so before the other says that it let go. What
/// lasts longer is no move.
const MOVE: i64 = 3000;

fn degraded(
    pool: &WebSocketHAPool,
    desired: &Desired,
    observed: &Observed<'_>,
    faults: &[TlsFault<'_>],
    now: Timestamp,
) -> Verdict {
    for address in addresses(pool) {
        let holders = observed.all_active(address);
        let newest = holders.iter().map(|active| active.since_unix_ms).max();
        let newest = newest.and_then(|since| i64::try_from(since).ok());
        let lasts = newest.is_some_and(|since| now.as_millisecond() - since >= MOVE);
        if holders.len() > 1 && lasts {
            let names: Vec<_> = holders.iter().map(|active| active.node).collect();
            return Verdict::new(
                true,
                "SeveralActive",
                format!(
                    "{address} is held by {}; VRRP (IP protocol 112) does not pass between them",
                    names.join(" and ")
                ),
            );
        }
    }
    for address in addresses(pool) {
        let conflicts = observed.conflicts(address);
        if !conflicts.is_empty() {
            return Verdict::new(true, "AddressInUse", conflicts.join("; "));
        }
    }
    if !faults.is_empty() {
        let unresolved = resolved(faults.iter());
        return Verdict {
            holds: true,
            ..unresolved
        };
    }
    if let Some(problems) = desired.plan.unresolved.get(&observed.name) {
        return Verdict::new(true, reason(problems), sentences(problems));
    }
    let isolated = observed.isolated();
    if !isolated.is_empty() {
        return Verdict::new(
            true,
            "NodeIsolated",
            format!(
                "{} gave up what they held, as they hear neither another router nor their default \
                 gateway; look at cables and switch ports",
                isolated.join(", ")
            ),
        );
    }
    if let Some((kind, sentences)) = observed.lowered() {
        let reason = match kind {
            Tracked::Interface => "InterfaceFailed",
            Tracked::Check => "CheckFailed",
            Tracked::Upstream => "TooFewEndpoints",
        };
        return Verdict::new(true, reason, sentences.join("; "));
    }
    if let Some(message) = without_endpoints(desired, observed) {
        return Verdict::new(true, "NoEndpoints", message);
    }
    let unwell = observed.unwell();
    if !unwell.is_empty() {
        return Verdict::new(true, "EndpointsUnwell", unwell.join("; "));
    }
    Verdict::new(false, "AsExpected", "nothing needs attention")
}

/// What clients of upstreams meet that have no server.
fn without_endpoints(desired: &Desired, observed: &Observed<'_>) -> Option<String> {
    let pool = desired.plan.pools.get(&observed.name)?;
    let is_ready = |endpoint: &Endpoint| endpoint.phase == EndpointPhase::Ready;
    let without: Vec<_> = pool
        .upstreams
        .iter()
        .filter(|it| pool.is_routed(&it.name) && !it.endpoints.iter().any(is_ready))
        .map(|it| it.name.as_str())
        .collect();
    match (without.as_slice(), pool.upstreams.as_slice()) {
        ([], _) => None,
        (_, [_]) => Some("no server is ready; clients get 503 until one is".to_owned()),
        _ => Some(format!(
            "no server of upstream {} is ready; clients get 503 there until one is",
            without.join(", ")
        )),
    }
}

fn addresses(pool: &WebSocketHAPool) -> impl Iterator<Item = IpAddr> + '_ {
    let listed = pool.spec.virtual_ips.iter();
    listed.filter_map(|it| it.address.parse().ok())
}

fn sentences(problems: &[Problem]) -> String {
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// The time of the last transition stays where the status does.
fn condition(
    type_: &str,
    verdict: Verdict,
    generation: Option<i64>,
    before: &[Condition],
    now: Timestamp,
) -> Condition {
    let status = if verdict.holds { "True" } else { "False" };
    let former = before.iter().find(|it| it.type_ == type_);
    let former = former.filter(|it| it.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.into_owned(),
        message: cut(verdict.message),
        observed_generation: generation,
        last_transition_time: former.map_or(Time(now), |it| it.last_transition_time.clone()),
    }
}

/// Kubernetes takes messages of 32 KiB at most; nobody reads more than this.
fn cut(mut message: String) -> String {
    const MOST: usize = 1024;
    if message.len() > MOST {
        let end = (0..=MOST).rev().find(|&at| message.is_char_boundary(at));
        message.truncate(end.unwrap_or(0));
        message.push('…');
    }
    message
}
