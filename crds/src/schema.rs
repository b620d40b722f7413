//! Schemas of fields, written by hand where the derived ones would not suit Kubernetes.
//!
//! Kubernetes knows no unsigned formats and warns of them, and does not check `format: ip`.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// What holds for every address, and `which` of them is meant. A malformed one breaks the first rule
/// only, so that one sentence says what is wrong.
fn checked(which: &Value) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 2,
        "maxLength": 45,
        "x-kubernetes-validations": [{
            "rule": "isIP(self) && ip.isCanonical(self)",
            "message": "must be an IP address in its canonical form, without prefix length",
        }, which],
    })
}

/// An address of a server or a virtual one, without prefix length, as the rule library of Kubernetes
/// 1.31 checks it.
pub(crate) fn address(_: &mut SchemaGenerator) -> Schema {
    checked(&json!({
        "rule": "!isIP(self) || ip(self).isGlobalUnicast()",
        "message": "must be the address of a host on a network: not loopback, link-local, multicast, broadcast or unspecified",
    }))
}

/// Further addresses of a virtual router. One of IPv6 may be link-local: RFC 9568 section 5.2.9 asks
/// for such a one.
pub(crate) fn additional_addresses(_: &mut SchemaGenerator) -> Schema {
    addresses(15)
}

/// Routers of a virtual router, ten of each family. With IPv6 they may be link-local: RFC 9568 section
/// 5.1.2.1 has advertisements sent from there.
pub(crate) fn peer_addresses(_: &mut SchemaGenerator) -> Schema {
    addresses(20)
}

fn addresses(most: u8) -> Schema {
    let mut address = checked(&json!({
        "rule": "!isIP(self) || ip(self).isGlobalUnicast() || (ip(self).family() == 6 && ip(self).isLinkLocalUnicast())",
        "message": "must be the address of a host on a network: not loopback, multicast, broadcast or unspecified, and link-local with IPv6 only",
    }));
    address.insert("description".to_owned(), json!("An address."));
    json_schema!({"type": "array", "maxItems": most, "items": address})
}

/// Routers of a virtual router, in status: while the list changes, also those of before.
pub(crate) fn observed_peers(generator: &mut SchemaGenerator) -> Schema {
    let mut address = observed_address(generator);
    address.insert("description".to_owned(), json!("An address."));
    json_schema!({"type": "array", "maxItems": 32, "items": address})
}

/// A password. The format keeps it out of messages about files.
pub(crate) fn password(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "password",
        "maxLength": 64,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^[ -~]{1,8}$')",
            "message": "must be 1 to 8 printable ASCII characters",
        }],
    })
}

/// Further addresses in status.
pub(crate) fn observed_addresses(generator: &mut SchemaGenerator) -> Schema {
    let mut address = observed_address(generator);
    address.insert("description".to_owned(), json!("An address."));
    json_schema!({"type": "array", "maxItems": 15, "items": address})
}

/// A TCP port.
pub(crate) fn port(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 65535})
}

/// Origins of web pages as RFC 6454 section 6.2 writes them, but that `*.` may stand for names.
pub(crate) fn origins(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {
            "description": "An origin.",
            "type": "string",
            "minLength": 1,
            "maxLength": 262,
            "x-kubernetes-validations": [{
                "rule": r"self.matches('^[a-z][a-z0-9+.-]*://([*][.])?([a-z0-9_-]+([.][a-z0-9_-]+)*|\\[[0-9a-f:.]+\\])(:[1-9][0-9]{0,4})?$')",
                "message": "must be scheme://host or scheme://host:port in lower case, as browsers send it: no path, and *. at most at the start of the host",
            }, {
                "rule": "!self.startsWith('https://') || !self.endsWith(':443')",
                "message": "must be without :443, which browsers leave out with https",
            }, {
                "rule": "!self.startsWith('http://') || !self.endsWith(':80')",
                "message": "must be without :80, which browsers leave out with http",
            }],
        },
    })
}

/// Networks, each in its canonical form.
pub(crate) fn networks(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": {
            "description": "A network.",
            "type": "string",
            "minLength": 4,
            "maxLength": 49,
            "x-kubernetes-validations": [{
                "rule": "isCIDR(self) && string(cidr(self).masked()) == self",
                "message": "must be a network in its canonical form, as 192.0.2.0/24 or 2001:db8::/32: no bits set beyond the prefix length",
            }],
        },
    })
}

/// Version of a header of the PROXY protocol.
pub(crate) fn proxy_protocol_version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "enum": [1, 2]})
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

/// Live sessions.
pub(crate) fn session_limit(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 1_000_000})
}

/// A part of a whole that is not nothing.
pub(crate) fn percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 100})
}

/// A part of a whole, which may be nothing.
pub(crate) fn share(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0, "maximum": 100})
}

/// How often something may happen in a second, which may be never.
pub(crate) fn retries(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0, "maximum": 1_000_000})
}

/// A zone: the value of a label.
pub(crate) fn zone(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "pattern": "^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$",
    })
}

/// How often something may happen in a second.
pub(crate) fn rate(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 1_000_000})
}

/// Bytes of a frame: control frames have up to 125 (RFC 6455 section 5.5).
pub(crate) fn frame_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 125, "maximum": 9_007_199_254_740_991_i64})
}

/// Bytes of a message.
pub(crate) fn message_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 9_007_199_254_740_991_i64})
}

/// Bytes that may wait for who reads slowly: what is read at once waits at any time.
pub(crate) fn buffered_bytes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 65_536, "maximum": 9_007_199_254_740_991_i64})
}

/// A bounded load: below 101 not all clients would find a server.
pub(crate) fn load_percent(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 101, "maximum": 1000})
}

/// Name of a header, a cookie or a query parameter (RFC 9110 section 5.6.2).
pub(crate) fn token(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 64,
        "pattern": "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$",
    })
}

/// VRID (RFC 9568 section 5.2.3). That it is not removed either is a rule of the whole address.
pub(crate) fn virtual_router_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "integer",
        "minimum": 1,
        "maximum": 255,
        "x-kubernetes-validations": [{
            "rule": "self == oldSelf",
            "message": "is immutable once set: to change it, remove the address, wait until status no longer lists it, and add it again",
        }],
    })
}

/// Priority of a router (RFC 9568 section 5.2.4).
pub(crate) fn priority(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 255})
}

/// By how much a priority is lowered.
pub(crate) fn priority_weight(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 253})
}

/// Answers in a row.
pub(crate) fn threshold(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 100})
}

/// Fewer than this many endpoints are too few; one is what a priority without any is for.
pub(crate) fn least_endpoints(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 10_000})
}

/// Hosts as the Gateway API writes them: RFC 1123 section 2.1, or below a domain.
pub(crate) fn hostnames(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "items": {
            "description": "A host.",
            "type": "string",
            "minLength": 1,
            "maxLength": 253,
            "pattern": r"^([*][.])?[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        },
    })
}

/// The beginning of a path, of unreserved characters (RFC 3986 section 2.3): what is percent-encoded,
/// and parameters, servers read in different ways. It has one form, without a slash at its end.
pub(crate) fn path_prefix(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "x-kubernetes-validations": [{
            "rule": r"self.matches('^/$|^(/[A-Za-z0-9._~-]+)+$')",
            "message": "must be / or begin with it and not end with it: elements of letters, digits, -, ., _ and ~ behind a / each",
        }, {
            "rule": r"!self.matches('/[.][.]?(/|$)')",
            "message": "must have no element . or ..: user agents take them away",
        }],
    })
}

/// Path and query of a request (RFC 9112 section 3.2.1).
pub(crate) fn request_target(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 1024,
        "pattern": "^/[!-~]*$",
    })
}

/// Final statuses of answers (RFC 9110 section 15).
pub(crate) fn statuses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 16, "items": {
        "description": "A status.",
        "type": "integer",
        "minimum": 200,
        "maximum": 599,
    }})
}

/// Name of a file in a directory, not of one elsewhere and no hidden one.
pub(crate) fn file_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 64,
        "pattern": "^[A-Za-z0-9][-._A-Za-z0-9]*$",
    })
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

/// Name of a host in lower case, which TLS can ask for (RFC 6066 section 3: no address).
pub(crate) fn hostname(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "x-kubernetes-validations": [{
            "rule": "!isIP(self) && self.split('.').all(label, size(label) <= 63)",
            "message": "must be the name of a host, no address, and 63 characters at most between dots",
        }],
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

/// VRID in status: what was immutable in spec may differ once the address was gone for a while.
pub(crate) fn observed_virtual_router_id(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1, "maximum": 255})
}

/// A number of things or of a change; up to where every reader of JSON is exact.
pub(crate) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991_i64})
}

/// An address as the controller writes it.
pub(crate) fn observed_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 2, "maxLength": 45})
}

/// Names of nodes.
pub(crate) fn node_names<const MOST: usize>(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": MOST, "items": {
        "description": "Name of a node.",
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "pattern": object_name(generator).get("pattern"),
    }})
}

/// A moment; the one format that Kubernetes knows and checks.
pub(crate) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// Conditions in Kubernetes' own form, with its bounds.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "items": {
            "type": "object",
            "description": "One aspect of the current state.",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {
                    "description": "Which aspect.",
                    "type": "string", "minLength": 1, "maxLength": 316,
                },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string", "enum": ["True", "False", "Unknown"],
                },
                "reason": {
                    "description": "Why, in one word for programs.",
                    "type": "string", "minLength": 1, "maxLength": 1024,
                },
                "message": {
                    "description": "Why, and what to do, in a sentence.",
                    "type": "string", "maxLength": 32768,
                },
                "lastTransitionTime": {
                    "description": "When status last changed.",
                    "type": "string", "format": "date-time",
                },
                "observedGeneration": {
                    "description": "The metadata.generation that this condition speaks of.",
                    "type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991_i64,
                },
            },
        },
    })
}
