//! How servers are chosen, as users write it.

use node_api::{Balancing, HashKey};

use super::timing::limit;
use crate::Problem;

/// `loadBalancing` of the upstream at `path`; `None` only together with a problem.
pub(super) fn balancing(
    problems: &mut Vec<Problem>,
    path: &str,
    spec: &crds::LoadBalancing,
) -> Option<Balancing> {
    let path = format!("{path}.loadBalancing");
    let slow_start = format!("{path}.slowStart");
    limit(problems, &slow_start, spec.slow_start, true);
    if let Some(sessions) = spec.max_sessions_per_endpoint
        && !(1..=1_000_000).contains(&sessions)
    {
        problems.push(Problem::new(
            format!("{path}.maxSessionsPerEndpoint"),
            format!("is {sessions}; use a number from 1 to 1000000, or leave it out"),
        ));
    }
    let hash = spec.consistent_hash.as_ref();
    let balancing = match spec.type_ {
        crds::LoadBalancingType::RoundRobin => Balancing::RoundRobin,
        crds::LoadBalancingType::LeastConnections => Balancing::LeastConnections,
        crds::LoadBalancingType::PowerOfTwo => Balancing::PowerOfTwo,
        crds::LoadBalancingType::ConsistentHash => {
            let default = crds::ConsistentHash::default();
            return consistent_hash(problems, &path, hash.unwrap_or(&default));
        }
    };
    if hash.is_some() {
        problems.push(Problem::new(
            format!("{path}.consistentHash"),
            "has no meaning unless type is ConsistentHash; remove it or set type to ConsistentHash",
        ));
        return None;
    }
    Some(balancing)
}

fn consistent_hash(
    problems: &mut Vec<Problem>,
    path: &str,
    spec: &crds::ConsistentHash,
) -> Option<Balancing> {
    if let Some(percent) = spec.max_load_percent
        && !(101..=1000).contains(&percent)
    {
        problems.push(Problem::new(
            format!("{path}.consistentHash.maxLoadPercent"),
            format!("is {percent}; use a number from 101 to 1000, or leave it out"),
        ));
    }
    let path = format!("{path}.consistentHash.key.name");
    let key = match (spec.key.type_, spec.key.name.as_deref()) {
        (crds::HashKeyType::SourceAddress, None) => HashKey::SourceAddress,
        (crds::HashKeyType::SourceAddress, Some(_)) => {
            let problem = "has no meaning with SourceAddress; remove it or choose another type";
            problems.push(Problem::new(path, problem));
            return None;
        }
        (_, None) => {
            let problem = "is missing; name the header, cookie or query parameter";
            problems.push(Problem::new(path, problem));
            return None;
        }
        (_, Some(name)) if !is_token(name) => {
            let problem = format!("is {name:?}; use letters, digits and signs of !#$%&'*+-.^_`|~");
            problems.push(Problem::new(path, problem));
            return None;
        }
        (crds::HashKeyType::Header, Some(name)) => HashKey::Header(name.to_owned()),
        (crds::HashKeyType::Cookie, Some(name)) => HashKey::Cookie(name.to_owned()),
        (crds::HashKeyType::QueryParameter, Some(name)) => HashKey::QueryParameter(name.to_owned()),
    };
    Some(Balancing::ConsistentHash {
        key,
        max_load_percent: spec.max_load_percent,
    })
}

/// RFC 9110 section 5.6.2.
pub(crate) fn is_token(name: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_tchar)
}
