//! Schemas of fields, written by hand where the derived ones would not suit Kubernetes.
//!
//! Kubernetes knows no unsigned formats and warns of them, and does not check `format: ip`.

use schemars::{Schema, SchemaGenerator, json_schema};

/// An address without prefix length, as the rule library of Kubernetes 1.31 checks it.
pub(crate) fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 2,
        "maxLength": 45,
        "x-kubernetes-validations": [{
            "rule": "isIP(self) && ip.isCanonical(self)",
            "message": "must be an IP address in its canonical form, without prefix length",
        }],
    })
}

/// An IPv4 virtual address: version 3 over IPv6 comes with a later release.
pub(crate) fn virtual_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 2,
        "maxLength": 45,
        "x-kubernetes-validations": [{
            "rule": "isIP(self) && ip.isCanonical(self) && ip(self).family() == 4",
            "message": "must be an IPv4 address in its canonical form, without prefix length",
        }],
    })
}

/// A TCP port.
pub(crate) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 65535})
}

/// A port of a Service: its number or its name.
pub(crate) fn service_port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": [{
            "rule": "type(self) == int ? self >= 1 && self <= 65535 : size(self) >= 1 && size(self) <= 63",
            "message": "must be a port number or the name of a port of the Service",
        }],
    })
}

/// A share of new sessions.
pub(crate) fn weight(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 256})
}

/// VRID (RFC 9568 section 5.2.3).
pub(crate) fn virtual_router_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "integer",
        "minimum": 1,
        "maximum": 255,
        "x-kubernetes-validations": [{
            "rule": "self == oldSelf",
            "message": "is immutable once set: remove the address and add it again to change its VRID",
        }],
    })
}

/// Priority of a router that does not own the address (RFC 9568 section 5.2.4).
pub(crate) fn priority(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 254})
}

/// Name of a node or of a Service: a DNS name.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$",
    })
}

/// Name of a listener or an upstream: it stands in metrics and conditions.
pub(crate) fn section_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    })
}

/// Name of a network interface: at most 15 bytes, without slash or space.
pub(crate) fn interface(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 15,
        "pattern": "^[^/: \\t]+$",
    })
}

/// VRRP version.
pub(crate) fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "enum": [2, 3]})
}

/// A code that an endpoint may send in a Close frame (RFC 6455 section 7.4).
pub(crate) fn close_code(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "integer",
        "minimum": 1000,
        "maximum": 4999,
        "x-kubernetes-validations": [{
            "rule": "!(self in [1004, 1005, 1006]) && (self <= 1014 || self >= 3000)",
            "message": "must be a code that may be sent: 1000-1003, 1007-1014 or 3000-4999",
        }],
    })
}

/// Labels that a node must carry.
pub(crate) fn match_labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}
