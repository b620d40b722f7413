//! The same endpoint for the same client, whichever gateway it comes to.
//!
//! Rendezvous hashing: each endpoint draws a number from the client's key and its own address, and the
//! lowest wins. An endpoint that goes moves its own clients and no others, and one that comes takes
//! its share from all alike; there is no ring to be built, and none to differ between gateways.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::share::Candidate;
use crate::{
    config::{Balancing, HashKey},
    endpoint::Endpoint,
    handshake::Request,
};

/// What a client is known by; `None`: nothing, as the request lacks it or nobody asks.
pub(crate) fn key(balancing: &Balancing, request: &Request<'_>, client: IpAddr) -> Option<u64> {
    let Balancing::ConsistentHash(hash) = balancing else {
        return None;
    };
    let value = match &hash.key {
        HashKey::SourceAddress => return Some(digest(octets(client))),
        HashKey::Header(name) => request.fields.all(name).next(),
        HashKey::Cookie(name) => cookie(request, name.as_bytes()),
        HashKey::QueryParameter(name) => parameter(request.target, name.as_bytes()),
    };
    value.map(|value| digest(value.iter().copied()))
}

/// RFC 6265 section 4.2.1: pairs behind semicolons.
fn cookie<'a>(request: &Request<'a>, name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs = request
        .fields
        .all("cookie")
        .flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.find_map(|pair| value_of(pair.trim_ascii(), name))
}

/// A parameter as it stands: what is encoded in one way or another is not the same.
fn parameter<'a>(target: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let query = target.splitn(2, |byte| *byte == b'?').nth(1)?;
    let mut pairs = query.split(|byte| *byte == b'&');
    pairs.find_map(|pair| value_of(pair, name))
}

fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    pair.strip_prefix(name)?.strip_prefix(b"=")
}

/// The candidate for `key`. With `max_load_percent` none has more sessions than that part of what
/// would be its share, this one included; as that is more than 100, one is always below.
pub(super) fn choose<'a>(
    candidates: &[Candidate<'a>],
    key: u64,
    max_load_percent: Option<u16>,
) -> Option<&'a Arc<Endpoint>> {
    let bound = max_load_percent.map(|percent| {
        let sessions = 1 + candidates.iter().map(Candidate::load).sum::<usize>() as u128;
        let weights: u128 = candidates.iter().map(|one| u128::from(one.weight)).sum();
        (sessions * u128::from(percent), weights.max(1) * 100)
    });
    let has_room = |candidate: &&Candidate<'_>| {
        bound.is_none_or(|(sessions, weights)| {
            let share = sessions * u128::from(candidate.weight);
            (candidate.load() as u128) < share.div_ceil(weights)
        })
    };
    let roomy = candidates.iter().filter(has_room);
    let drawn = roomy.map(|one| (draw(key, one.endpoint.address, one.weight), one.endpoint));
    let lowest = drawn.min_by(|(one, _), (other, _)| one.total_cmp(other));
    lowest.map(|(_, endpoint)| endpoint)
}

/// What an endpoint draws: exponentially distributed with its weight as the rate, so that the lowest
/// is this one's in proportion to its weight, and a change of the weight moves as few as can be.
#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits are more than enough to draw from"
)]
fn draw(key: u64, address: SocketAddr, weight: u32) -> f64 {
    let port = address.port().to_be_bytes();
    let own = octets(address.ip()).into_iter().chain(port);
    let drawn = mix(key ^ digest(own).rotate_left(32));
    // In (0, 1]: its logarithm is finite.
    let uniform = ((drawn >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(weight.max(1))
}

/// An address in one form, whether it came as IPv4 or as IPv6 of the same.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// FNV-1a, its result mixed. Not a hash of the standard library: those may change with a release, and
/// gateways of different versions are to agree.
fn digest(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// A bijection in which each bit depends on all (the last step of `SplitMix64`).
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
