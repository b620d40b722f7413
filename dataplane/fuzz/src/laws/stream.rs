//! What must hold for any text given as a message of the control stream.

use std::fmt::Debug;

use node_api::{
    DecodeError, Decoded, Endpoint, Pool, Secret, TicketKeys,
    stream::{ResourceName, ToController, ToNode},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A message to a node, and the content that it carries.
pub fn to_node(bytes: &[u8]) {
    let Some(message) = message(bytes, ToNode::decode) else {
        return;
    };
    if let ToNode::Upsert { name, body, .. } = message {
        match name {
            ResourceName::Pool(_) => content::<Pool>(body),
            ResourceName::Endpoints { .. } => content::<Vec<Endpoint>>(body),
            ResourceName::Secret(_) => content::<Secret>(body),
            ResourceName::TicketKeys(_) => content::<TicketKeys>(body),
            ResourceName::Other(_) => {}
        }
    }
}

/// A message to a controller.
pub fn to_controller(bytes: &[u8]) {
    message(bytes, ToController::decode);
}

/// What is understood is understood alike when it is written again.
fn message<M: Serialize + PartialEq + Debug>(
    bytes: &[u8],
    decode: fn(&str) -> Result<Decoded<M>, DecodeError>,
) -> Option<M> {
    let text = std::str::from_utf8(bytes).ok()?;
    match decode(text) {
        Ok(Decoded::Message(message)) => {
            let value = serde_json::to_value(&message).unwrap();
            if !has_fraction(&value) {
                match decode(&value.to_string()) {
                    Ok(Decoded::Message(again)) => assert_eq!(again, message),
                    other => panic!("{message:?} is read as {other:?}"),
                }
            }
            Some(message)
        }
        Ok(Decoded::UnknownKind(kind)) => {
            assert!(!kind.is_empty());
            None
        }
        Ok(Decoded::Refused { reason, .. }) => {
            assert!(!reason.is_empty());
            None
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

fn content<T: DeserializeOwned + Serialize + PartialEq + Debug>(body: Value) {
    if let Ok(content) = serde_json::from_value::<T>(body) {
        let value = serde_json::to_value(&content).unwrap();
        let again = serde_json::from_value::<T>(value).unwrap();
        assert_eq!(again, content);
    }
}

/// Content of a later version may hold numbers that JSON does not carry to the last bit.
fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(list) => list.iter().any(has_fraction),
        Value::Object(fields) => fields.values().any(has_fraction),
        _ => false,
    }
}
