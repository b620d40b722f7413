//! From a text frame to a message, so that what one side does not know yet costs no more than
//! itself.

use serde::{Deserialize, de::DeserializeOwned};

use crate::stream::{ResourceName, Revision, ToController, ToNode};

/// What a text frame holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded<M> {
    /// A message.
    Message(M),
    /// A message of a kind that this version does not know: to be skipped.
    UnknownKind(String),
    /// Content of a resource that this version does not understand: to be refused by
    /// [`ToController::Nack`].
    Refused {
        /// The resource.
        name: ResourceName,
        /// Of the content.
        revision: Revision,
        /// What is not understood.
        reason: String,
    },
}

/// A text frame that is no message.
#[derive(Debug, thiserror::Error)]
#[error("a message of kind {kind:?} cannot be read")]
pub struct DecodeError {
    /// Its kind; empty where it says none.
    pub kind: String,
    /// What is wrong with it.
    #[source]
    pub source: serde_json::Error,
}

impl ToNode {
    /// The kinds that this version knows.
    pub const KINDS: &'static [&'static str] = &[
        "welcome",
        "upsert",
        "endpointsDelta",
        "remove",
        "synced",
        "watching",
        "retire",
    ];

    /// Reads a text frame.
    ///
    /// # Errors
    /// If it is no message.
    pub fn decode(text: &str) -> Result<Decoded<Self>, DecodeError> {
        decode(text, Self::KINDS)
    }
}

impl ToController {
    /// The kinds that this version knows.
    pub const KINDS: &'static [&'static str] = &[
        "hello", "ack", "nack", "report", "facts", "trusts", "retired",
    ];

    /// Reads a text frame.
    ///
    /// # Errors
    /// If it is no message.
    pub fn decode(text: &str) -> Result<Decoded<Self>, DecodeError> {
        decode(text, Self::KINDS)
    }
}

/// What can be said of a message that is not understood as a whole.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    kind: String,
    name: Option<ResourceName>,
    revision: Option<Revision>,
}

fn decode<M: DeserializeOwned>(text: &str, kinds: &[&str]) -> Result<Decoded<M>, DecodeError> {
    let source = match serde_json::from_str(text) {
        Ok(message) => return Ok(Decoded::Message(message)),
        Err(source) => source,
    };
    let Ok(outline) = serde_json::from_str::<Outline>(text) else {
        let kind = String::new();
        return Err(DecodeError { kind, source });
    };
    match (outline.kind, outline.name, outline.revision) {
        (kind, ..) if !kind.is_empty() && !kinds.contains(&kind.as_str()) => {
            Ok(Decoded::UnknownKind(kind))
        }
        (_, Some(name), Some(revision)) => Ok(Decoded::Refused {
            name,
            revision,
            reason: source.to_string(),
        }),
        (kind, ..) => Err(DecodeError { kind, source }),
    }
}
