//! Names for content: equal content has an equal name, on every replica and in every release.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::stream::Revision;

/// Bytes of the hash that are kept: enough that two contents never meet by chance.
const KEPT: usize = 16;

impl Revision {
    /// The revision of `content`: SHA-256 of its JSON without blanks and with the members of objects
    /// in the order of their names, cut to 128 bits.
    ///
    /// # Errors
    /// If `content` has no JSON form, which none of the types here is without.
    pub fn of(content: &impl Serialize) -> Result<Self, serde_json::Error> {
        let mut hash = Sha256::new();
        feed(&mut hash, &serde_json::to_value(content)?);
        Ok(Self(hexadecimal(&hash.finalize(), KEPT)))
    }
}

/// The name of a certificate, of its DER form, as in [`crate::stream::Hello::authorities`].
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    let hash = Sha256::digest(certificate);
    hexadecimal(&hash, hash.len())
}

fn hexadecimal(bytes: &[u8], kept: usize) -> String {
    let mut text = String::with_capacity(2 * kept);
    for byte in bytes.iter().take(kept) {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

fn feed(hash: &mut Sha256, value: &Value) {
    match value {
        Value::Array(items) => {
            hash.update("[");
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    hash.update(",");
                }
                feed(hash, item);
            }
            hash.update("]");
        }
        Value::Object(members) => {
            // Whether the map keeps them sorted is a feature that any crate may switch.
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            hash.update("{");
            for (at, (name, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    hash.update(",");
                }
                hash.update(Value::String(name.clone()).to_string());
                hash.update(":");
                feed(hash, value);
            }
            hash.update("}");
        }
        scalar => hash.update(scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_the_same_in_every_release() {
        // printf '{"a":[1,null,"x\\"y"],"b":{"c":true}}' | sha256sum
        let content = json!({"b": {"c": true}, "a": [1, null, "x\"y"]});
        assert_eq!(
            Revision::of(&content).unwrap().0,
            "315f4a4213c345b6384bb5a0f8ee7ae6"
        );
    }

    #[test]
    fn a_certificate_is_named_by_its_sha_256() {
        // printf abc | sha256sum
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint(b"abc"), expected);
    }

    #[test]
    fn other_content_has_another_one() {
        let all = [
            json!([]),
            json!([[]]),
            json!([1, 2]),
            json!([12]),
            json!(["1", 2]),
            json!({"a": 1}),
            json!({"a": "1"}),
            json!({"a": 1, "b": 2}),
            json!({"a": {"b": 2}}),
        ];
        let names: std::collections::BTreeSet<_> =
            all.iter().map(|one| Revision::of(one).unwrap()).collect();
        assert_eq!(names.len(), all.len());
    }
}
