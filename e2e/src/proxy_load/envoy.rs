//! How Envoy is configured: what may be replaced while it runs, servers and certificate, is in files that it watches.

use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::peer::Task;
use super::tls::{Files, replace};
use crate::ws;

/// By which the certificate is known.
const CERTIFICATE: &str = "bench";

/// Writes the files that it watches to `dir`; its configuration.
pub(super) fn configure(task: &Task, dir: &Path) -> Result<String> {
    let watched = dir.join("envoy-servers.json");
    replace(&watched, &servers(task).to_string())?;
    let mut listeners = vec![listener("in", task.listen, "HTTP1", None)];
    if let Some((listen, files)) = &task.tls {
        let file = dir.join("envoy-certificate.json");
        replace(&file, &certificate(files)?.to_string())?;
        listeners.push(listener("in-tls", *listen, "AUTO", Some(socket(&file))));
    }
    let limits = json!({"max_connections": 1_000_000, "max_pending_requests": 1_000_000,
        "max_requests": 1_000_000});
    let configuration = json!({
        "node": {"id": "bench", "cluster": "bench"},
        "static_resources": {
            "listeners": listeners,
            "clusters": [{
                "name": "app", "type": "EDS", "lb_policy": "ROUND_ROBIN", "connect_timeout": "5s",
                "per_connection_buffer_limit_bytes": 32768, "circuit_breakers": {"thresholds": [limits]},
                "eds_cluster_config": {"eds_config": watching(&watched)},
            }],
        },
    });
    Ok(configuration.to_string())
}

fn listener(name: &str, listen: SocketAddrV4, codec: &str, socket: Option<Value>) -> Value {
    let router = json!({"name": "envoy.filters.http.router", "typed_config":
        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}});
    // A server of HTTP/1.1 refuses a handshake without a key, and for clients of HTTP/2, which send none, Envoy makes
    // none (envoyproxy/envoy#8547).
    let key = json!({"append_action": "ADD_IF_ABSENT",
        "header": {"key": "sec-websocket-key", "value": ws::KEY}});
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "codec_type": codec, "stream_idle_timeout": "0s", "generate_request_id": false,
        "http2_protocol_options": {"allow_connect": true},
        "upgrade_configs": [{"upgrade_type": "websocket"}], "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
            "request_headers_to_add": if codec == "AUTO" { vec![key] } else { Vec::new() },
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}]}]},
    });
    let mut chain = json!({"filters": [{"name": "http", "typed_config": manager}]});
    if let Some(socket) = socket {
        chain["transport_socket"] = socket;
    }
    json!({
        "name": name, "tcp_backlog_size": 4096, "per_connection_buffer_limit_bytes": 32768,
        "address": {"socket_address": {"address": listen.ip(), "port_value": listen.port()}},
        "filter_chains": [chain],
    })
}

/// TLS with the certificate in `file`.
fn socket(file: &Path) -> Value {
    json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [
                {"name": CERTIFICATE, "sds_config": watching(file)}]}}})
}

/// A file that is read anew when it is replaced.
fn watching(file: &Path) -> Value {
    json!({"resource_api_version": "V3", "path_config_source": {"path": file}})
}

fn servers(task: &Task) -> Value {
    let server = |server: &SocketAddr| {
        json!({"endpoint": {"address": {"socket_address":
            {"address": server.ip(), "port_value": server.port()}}}})
    };
    let servers: Vec<_> = task.servers.iter().map(server).collect();
    json!({"resources": [{
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "app", "endpoints": [{"lb_endpoints": servers}],
    }]})
}

/// The certificate itself, so that another one makes another file.
fn certificate(files: &Files) -> Result<Value> {
    let read = |file: &Path| {
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    Ok(json!({"resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": CERTIFICATE, "tls_certificate": {
            "certificate_chain": {"inline_string": read(&files.certificate)?},
            "private_key": {"inline_string": read(&files.key)?}},
    }]}))
}
