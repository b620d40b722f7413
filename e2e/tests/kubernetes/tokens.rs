//! Who may open a stream: tokens as the API server issues them, and such as it might have.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use e2e::testing::Gateway;
use node_api::{Protocol, stream::AUDIENCE};
use rcgen::{KeyPair, SigningKey as _};
use serde_json::Value;

use crate::serving;
use crate::stage::{ANSWER, Stage, on_stage};

#[test]
fn only_a_data_plane_pod_s_own_token_opens_a_stream() -> Result<()> {
    on_stage(
        "only_a_data_plane_pod_s_own_token_opens_a_stream",
        1,
        |stage| {
            serving(stage)?;
            let ask = |stage: &Stage<'_>, token: Option<&str>| {
                Ok::<_, anyhow::Error>(stage.dial(token)?.status)
            };
            ensure!(ask(stage, None)? == 401, "no token");
            ensure!(ask(stage, Some("nonsense"))? == 401, "no token at all");
            let unbound = stage.token(&[&format!("--audience={AUDIENCE}")])?;
            ensure!(ask(stage, Some(&unbound))? == 403, "bound to no pod");
            let elsewhere = stage.pod_token(Gateway::One, "https://kubernetes.default.svc")?;
            ensure!(ask(stage, Some(&elsewhere))? == 401, "another audience");
            let own = stage.pod_token(Gateway::One, AUDIENCE)?;
            ensure!(ask(stage, Some(&own))? == 101, "its own");
            for (versions, status) in [
                ("v999.stream.wsha.dev, v998.stream.wsha.dev".to_owned(), 400),
                (format!("v999.stream.wsha.dev, {}", Protocol::NEWEST), 101),
            ] {
                let answer = stage.dial_speaking(&versions, Some(&own), ANSWER)?;
                ensure!(answer.status == status, "{versions}: {}", answer.status);
            }

            // As issued, signed anew: so the ones below differ in what they say alone.
            let key = stage.signing_key()?;
            ensure!(
                ask(stage, Some(&signed(&own, &key, |_| {})?))? == 101,
                "signed anew"
            );
            let expired = signed(&own, &key, |claims| claims["exp"] = (now() - 60).into())?;
            ensure!(ask(stage, Some(&expired))? == 401, "expired");
            let other_pod = signed(&own, &key, |claims| {
                claims["kubernetes.io"]["pod"]["uid"] =
                    "00000000-0000-0000-0000-000000000000".into();
            })?;
            ensure!(
                ask(stage, Some(&other_pod))? == 401,
                "of a pod that is gone"
            );
            let other_key = KeyPair::generate()?;
            ensure!(
                ask(stage, Some(&signed(&own, &other_key, |_| {})?))? == 401,
                "of another authority"
            );
            Ok(())
        },
    )
}

#[test]
fn a_stream_ends_with_its_token() -> Result<()> {
    on_stage("a_stream_ends_with_its_token", 1, |stage| {
        serving(stage)?;
        let own = stage.pod_token(Gateway::One, AUDIENCE)?;
        let short = signed(&own, &stage.signing_key()?, |claims| {
            claims["exp"] = (now() + 5).into();
        })?;
        let long = stage.dial_for(Some(&own), Duration::from_secs(10))?;
        ensure!(
            long.status == 101 && !long.ended,
            "an hour's token: {long:?}"
        );
        let answer = stage.dial_for(Some(&short), Duration::from_mins(1))?;
        ensure!(
            answer.status == 101 && answer.ended,
            "a token of five seconds: {answer:?}"
        );
        Ok(())
    })
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// `token` with other claims, signed by `key` (RFC 7515, ES256).
fn signed(token: &str, key: &KeyPair, change: impl FnOnce(&mut Value)) -> Result<String> {
    let mut parts = token.split('.');
    let header = parts.next().context("no header")?;
    let claims = BASE64.decode(parts.next().context("no claims")?)?;
    let mut claims: Value = serde_json::from_slice(&claims)?;
    change(&mut claims);
    let signed = format!("{header}.{}", BASE64.encode(claims.to_string()));
    let signature = flat(&key.sign(signed.as_bytes())?).context("not an ECDSA signature")?;
    Ok(format!("{signed}.{}", BASE64.encode(signature)))
}

/// Both numbers of an ECDSA signature in 32 bytes each (RFC 7518 section 3.4), from DER.
fn flat(der: &[u8]) -> Option<[u8; 64]> {
    let mut flat = [0; 64];
    let mut rest = der.get(2..)?;
    for half in flat.chunks_mut(32) {
        let length = usize::from(*rest.get(1)?);
        let number = rest.get(2..2 + length)?;
        let significant = number.iter().position(|byte| *byte != 0).unwrap_or(length);
        let number = number.get(significant..)?;
        half.get_mut(32_usize.checked_sub(number.len())?..)?
            .copy_from_slice(number);
        rest = rest.get(2 + length..)?;
    }
    Some(flat)
}
