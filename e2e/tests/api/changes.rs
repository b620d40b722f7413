//! What makes two Actives when nodes learn it one by one cannot change under a living address.

use anyhow::Result;
use e2e::testing::on_api_server;
use serde_json::json;

use super::refusals::refused;
use super::status::{status, write_status};
use super::{accepted, edited, may_become, pool};

#[test]
fn what_makes_two_actives_cannot_change_under_a_living_address() -> Result<()> {
    on_api_server(
        "what_makes_two_actives_cannot_change_under_a_living_address",
        |api| {
            let more = json!(["192.168.1.120", "192.168.1.121"]);
            let set = edited(
                &pool(),
                &json!({
                    "/virtualIPs/0/virtualRouterID": 51,
                    "/virtualIPs/1/additionalAddresses": more,
                }),
            )?;
            accepted(api, &set)?;
            refused(api, &set, "living")?;
            // What nodes hear of from each other, and what concerns none but new addresses.
            may_become(
                api,
                &set,
                &[
                    json!({"/vrrp": {"advertisementInterval": "1s"}}),
                    json!({"/virtualIPs/1/address": "192.168.1.113"}),
                    json!({
                        "/listeners/0/trustedProxies": ["192.0.2.0/24", "::/0", "2001:db8::1/128"],
                        "/listeners/0/proxyProtocol": {"mode": "Required"},
                        "/listeners/0/plainRequests": {"mode": "Proxied", "timeout": "90s"},
                        "/upstreams/0/proxyProtocol": {"version": 2},
                        "/listeners/0/tls": {"certificateRefs": [{"name": "a"}, {"name": "b"}]},
                        "/upstreams/0/tls": {
                            "hostname": "chat.example",
                            "caCertificateRef": {"name": "ca"},
                            "clientCertificateRef": {"name": "own"},
                        },
                        "/accessLog": {"mode": "Enabled"},
                    }),
                    // They are a set.
                    json!({"/virtualIPs/1/additionalAddresses": ["192.168.1.121", "192.168.1.120"]}),
                    json!({"/virtualIPs/0/additionalAddresses": []}),
                    json!({"/virtualIPs/0": {"address": "2001:db8::110", "additionalAddresses": ["fe80::110"]}}),
                    json!({"/virtualIPs": [{"address": "192.168.1.113", "virtualRouterID": 7}], "/vrrp": {"version": 2}}),
                    json!({"/virtualIPs": [{"address": "192.168.1.113"}], "/vrrp": {"macAddress": {"mode": "VirtualRouter"}}}),
                    json!({"/vrrp": {"macAddress": {"mode": "Interface"}}}),
                    // Nothing is committed: no node has been told anything.
                    json!({"/virtualIPs/1/virtualRouterID": 7}),
                ],
            )
        },
    )
}

#[test]
fn with_version_2_the_interval_cannot_change_either() -> Result<()> {
    on_api_server("with_version_2_the_interval_cannot_change_either", |api| {
        let second = edited(&pool(), &json!({"/vrrp": {"version": 2}}))?;
        accepted(api, &second)?;
        refused(api, &second, "version 2")?;
        may_become(
            api,
            &second,
            &[
                // What it was when it was left out.
                json!({"/vrrp": {"version": 2, "advertisementInterval": "1000ms"}}),
                json!({"/vrrp": {"version": 2, "preemption": {"mode": "Disabled"}}}),
                json!({"/virtualIPs": [{"address": "192.168.1.113"}], "/vrrp": {"version": 2, "advertisementInterval": "2s"}}),
                json!({"/virtualIPs": [{"address": "192.168.1.113"}], "/vrrp": {
                    "version": 2,
                    "authentication": {"mode": "SimplePassword", "password": "geheim"},
                    "peering": {"mode": "Unicast", "addresses": ["192.168.1.14", "192.168.1.15"]},
                }}),
            ],
        )
    })
}

#[test]
fn a_vrid_that_nodes_use_may_be_written_down_and_no_other() -> Result<()> {
    on_api_server(
        "a_vrid_that_nodes_use_may_be_written_down_and_no_other",
        |api| {
            accepted(api, &pool())?;
            write_status(api, &status())?;
            refused(api, &pool(), "committed")?;
            may_become(
                api,
                &pool(),
                &[
                    json!({"/virtualIPs/0/virtualRouterID": 110}),
                    json!({"/virtualIPs/0": {"address": "192.168.1.111", "virtualRouterID": 111}}),
                    json!({"/virtualIPs/0": {"address": "192.168.1.113", "virtualRouterID": 51}}),
                ],
            )?;
            // The controller may write what it must, whatever stands in spec.
            accepted(
                api,
                &edited(&pool(), &json!({"/virtualIPs/0/virtualRouterID": 110}))?,
            )?;
            let mut other = status();
            other.virtual_ips[0].virtual_router_id = Some(9);
            write_status(api, &other)
        },
    )
}
