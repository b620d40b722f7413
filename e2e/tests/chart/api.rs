//! The objects as an API server takes them: no field that it does not know, no value that it refuses.

use anyhow::{Result, ensure};
use e2e::testing::on_api_server;

use crate::{ALL, render};

#[test]
fn the_api_server_takes_every_object() -> Result<()> {
    const TEST: &str = "the_api_server_takes_every_object";
    on_api_server(TEST, |api| {
        let namespace = r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "net",
            "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}}"#;
        let apply = ["apply", "--server-side"];
        let control_plane = api.control_plane();
        control_plane.kubectl_file(&apply, namespace)?.success()?;
        for name in ["shop", "chat"] {
            let words = ["create", "namespace", name];
            control_plane.kubectl(&words)?.success()?;
        }
        for sets in [&[][..], &ALL] {
            let Some(objects) = render(TEST, sets)? else {
                return Ok(());
            };
            // Those of the Prometheus operator are not known here.
            let known = |object: &serde_json::Value| {
                let group = object["apiVersion"].as_str().unwrap_or_default();
                !group.starts_with("monitoring.coreos.com/")
            };
            // A pod alone is refused without its account.
            let accounts = objects.list(|object| object["kind"] == "ServiceAccount");
            control_plane
                .kubectl_file(&apply, &accounts.to_string())?
                .success()?;
            let words = [
                "apply",
                "--server-side",
                "--force-conflicts",
                "--dry-run=server",
                "--validate=strict",
            ];
            let answer = control_plane.kubectl_file(&words, &objects.list(known).to_string())?;
            ensure!(answer.ok && answer.stderr.is_empty(), "{}", answer.stderr);
        }
        Ok(())
    })
}
