//! Status: a subresource that keeps what is written, and the columns that show it.

use anyhow::{Context, Result, ensure};
use crds::{
    Committed, ListenerStatus, NodePriority, Retiring, Tally, VirtualIPStatus, WebSocketHAPool,
    WebSocketHAPoolStatus,
};
use e2e::testing::{Api, on_api_server};
use serde_json::json;

use super::{accepted, edited, pool};

/// Status as the controller might write it: one address held, one not, one on its way out.
pub(crate) fn status() -> WebSocketHAPoolStatus {
    let committed = |sequence| Committed {
        sequence,
        additional_addresses: Vec::new(),
        nodes: vec![NodePriority {
            node_name: "server2".to_owned(),
            priority: 250,
        }],
        version: 3,
        advertisement_interval: crds::Duration::from_millis(100),
        mac_address: crds::MacAddress::default(),
        peering: None,
    };
    let virtual_ip = |last: u8| VirtualIPStatus {
        address: format!("192.168.1.{last}"),
        virtual_router_id: Some(last),
        committed: Some(committed(i64::from(last))),
        ..VirtualIPStatus::default()
    };
    WebSocketHAPoolStatus {
        observed_generation: Some(1),
        virtual_ips: vec![
            VirtualIPStatus {
                active_node_name: Some("server2".to_owned()),
                backup_node_names: vec!["server1".to_owned()],
                ..virtual_ip(110)
            },
            virtual_ip(112),
            // Removed from spec.
            VirtualIPStatus {
                committed: Some(Committed {
                    nodes: Vec::new(),
                    ..committed(111)
                }),
                retiring: Some(Retiring {
                    node_names: vec!["server3".to_owned()],
                }),
                ..virtual_ip(111)
            },
        ],
        listeners: vec![ListenerStatus {
            name: "ws".to_owned(),
            conditions: Vec::new(),
        }],
        endpoints: Some(Tally { ready: 3, total: 4 }),
        gateways: Some(Tally { ready: 1, total: 2 }),
        sessions: Some(17),
        ..WebSocketHAPoolStatus::default()
    }
}

/// As the controller writes it.
pub(crate) fn write_status(api: &Api, status: &WebSocketHAPoolStatus) -> Result<()> {
    let object = json!({
        "apiVersion": "wsha.dev/v1alpha1",
        "kind": "WebSocketHAPool",
        "metadata": {"name": "chat"},
        "status": status,
    });
    let words = [
        "apply",
        "--server-side",
        "--subresource=status",
        "--field-manager=wsha-controller",
    ];
    api.kubectl_file(&words, &object.to_string())?
        .success()
        .map(drop)
}

fn read(api: &Api) -> Result<WebSocketHAPool> {
    let text = api
        .kubectl(&["get", "wshap", "chat", "--output=json"])?
        .success()?;
    serde_json::from_str(&text).context("the pool cannot be read")
}

#[test]
fn status_is_a_subresource_that_keeps_all_that_is_written() -> Result<()> {
    on_api_server(
        "status_is_a_subresource_that_keeps_all_that_is_written",
        |api| {
            let mut with_status = pool();
            with_status["status"] = serde_json::to_value(status())?;
            accepted(api, &with_status)?;
            ensure!(
                read(api)?.status.is_none(),
                "status was written through the object"
            );
            write_status(api, &status())?;
            let pool = read(api)?;
            ensure!(
                pool.status == Some(status()),
                "other status: {:?}",
                pool.status
            );
            ensure!(
                pool.metadata.generation == Some(1),
                "writing status is an edit of spec"
            );
            // Left out of spec, as users see it.
            ensure!(pool.spec.vrrp.version == 3 && pool.spec.drain.close_code == 1001);
            Ok(())
        },
    )
}

#[test]
fn columns_tell_what_matters() -> Result<()> {
    on_api_server("columns_tell_what_matters", |api| {
        accepted(api, &pool())?;
        let mut status = status();
        status.summarize();
        write_status(api, &status)?;
        for name in ["wshap", "wsha", "websockethapools"] {
            let table = api.kubectl(&["get", name])?.success()?;
            let mut rows = table
                .lines()
                .map(|row| row.split_whitespace().collect::<Vec<_>>());
            let head = [
                "NAME",
                "VIPS",
                "ACTIVE",
                "GATEWAYS",
                "ENDPOINTS",
                "SESSIONS",
                "AGE",
            ];
            ensure!(rows.next().as_deref() == Some(&head), "{table}");
            let row = rows.next().context("no row")?;
            let expected = [
                "chat",
                "192.168.1.110,192.168.1.112",
                "server2,<none>",
                "1/2",
                "3/4",
                "17",
            ];
            ensure!(row.get(..6) == Some(&expected), "{table}");
        }
        Ok(())
    })
}

/// The rules' cost is bounded by the bounds of lists and texts.
#[test]
fn the_largest_pool_is_accepted_and_edited() -> Result<()> {
    on_api_server("the_largest_pool_is_accepted_and_edited", |api| {
        let name = |index: usize| format!("{index:03}-{}", "n".repeat(249));
        let priorities: Vec<_> = (0..10)
            .map(|index| json!({"nodeName": name(index), "priority": 254 - index}))
            .collect();
        let virtual_ips: Vec<_> = (0..16)
            .map(|index| json!({"address": format!("192.168.100.{}", 100 + index), "virtualRouterID": 100 + index, "nodePriorities": priorities}))
            .collect();
        let listeners: Vec<_> = (0..16)
            .map(|index| json!({"name": format!("l{index}"), "port": 8000 + index}))
            .collect();
        let endpoints: Vec<_> = (0..256)
            .map(|index| json!({"address": format!("2001:db8:1111:2222:3333:4444:5555:{:x}", 0x1000 + index), "port": 8010}))
            .collect();
        let largest = edited(
            &pool(),
            &json!({
                "/virtualIPs": virtual_ips,
                "/listeners": listeners,
                "/upstreams/0/service": null,
                "/upstreams/0/endpoints": endpoints,
            }),
        )?;
        accepted(api, &largest)?;
        let mut full = status();
        let committed = full.virtual_ips[0].clone();
        full.virtual_ips = (0..64)
            .map(|index| VirtualIPStatus {
                address: format!("192.168.100.{}", 100 + index),
                retiring: (index >= 16).then(|| Retiring {
                    node_names: (0..10).map(name).collect(),
                }),
                ..committed.clone()
            })
            .collect();
        full.summarize();
        write_status(api, &full)?;
        accepted(
            api,
            &edited(
                &largest,
                &json!({"/vrrp": {"advertisementInterval": "200ms"}}),
            )?,
        )
    })
}
