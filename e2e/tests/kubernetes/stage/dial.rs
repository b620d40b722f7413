//! What controllers answer to whoever dials them, and the authorities by which they are known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::testing::Gateway;
use node_api::Protocol;
use rcgen::KeyPair;

use super::Stage;

/// How long an answer may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(3);

/// A client that trusts `authority` alone, and throws the answer away.
fn curl(limit: Duration, authority: &Path) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--output", "/dev/null", "--max-time"])
        .arg(limit.as_secs().to_string())
        .arg("--cacert")
        .arg(authority);
    command
}

/// How curl ends at its time limit.
const CURL_TIMED_OUT: i32 = 28;

/// An answer to whoever dials a controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialled {
    /// Of HTTP.
    pub(crate) status: u16,
    /// The controller ended the connection.
    pub(crate) ended: bool,
}

impl Stage<'_> {
    /// The bundle of authorities that a gateway trusts.
    pub(crate) fn authority_file(&self, gateway: Gateway) -> PathBuf {
        self.cluster.host(gateway).dir().join("authorities.crt")
    }

    /// The bundle that the controllers write.
    pub(crate) fn bundle(&self) -> Result<String> {
        let data = "jsonpath={.data.ca\\.crt}";
        self.kubectl(&["get", "configmap", "wsha-ca", "-n", "wsha", "-o", data])
    }

    /// A value in the Secret of the authorities.
    pub(crate) fn secret(&self, key: &str) -> Result<String> {
        let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        self.kubectl(&["get", "secret", "wsha-ca", "-n", "wsha", "-o", &template])
    }

    /// Sets a value in the Secret of the authorities.
    pub(crate) fn set_secret(&self, key: &str, value: &str) -> Result<()> {
        let patch = serde_json::json!({"stringData": {key: value}});
        self.patch("secret", "wsha-ca", &["-n", "wsha"], &patch)
    }

    /// Whether a client that trusts this bundle and nothing else accepts what every replica serves.
    pub(crate) fn is_served_by(&self, bundle: &str) -> Result<bool> {
        let file = self.control_plane.site().dir().join("trusted.crt");
        fs::write(&file, bundle)?;
        let address = self.control_plane.site().address();
        for number in 0..self.controllers.len() {
            let mut command = curl(ANSWER, &file);
            command.arg(format!("https://{address}:{}/", 8443 + number));
            if !self.cluster.lab.client().output(command)?.status.success() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What signs the tokens of service accounts.
    pub(crate) fn signing_key(&self) -> Result<KeyPair> {
        let file = self.control_plane.site().dir().join("pki/sa.key");
        let key = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        Ok(KeyPair::from_pem(&key)?)
    }

    /// What a controller answers to whoever dials with this token.
    pub(crate) fn dial(&self, token: Option<&str>) -> Result<Dialled> {
        self.dial_for(token, ANSWER)
    }

    /// The same, and whether it ends a stream within `limit`.
    pub(crate) fn dial_for(&self, token: Option<&str>, limit: Duration) -> Result<Dialled> {
        self.dial_speaking(&Protocol::NEWEST.to_string(), token, limit)
    }

    /// The same for whoever offers these versions.
    pub(crate) fn dial_speaking(
        &self,
        versions: &str,
        token: Option<&str>,
        limit: Duration,
    ) -> Result<Dialled> {
        let address = self.control_plane.site().address();
        let protocol = format!("Sec-WebSocket-Protocol: {versions}");
        let mut command = curl(limit, &self.authority_file(Gateway::One));
        command
            .args(["--write-out", "%{http_code}", "--http1.1"])
            .args(["-H", "Connection: Upgrade", "-H", "Upgrade: websocket"])
            .args([
                "-H",
                "Sec-WebSocket-Version: 13",
                "-H",
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            ])
            .args(["-H", &protocol]);
        if let Some(token) = token {
            command
                .arg("-H")
                .arg(format!("Authorization: Bearer {token}"));
        }
        command.arg(format!("https://{address}:8443/v1/stream"));
        let output = self.cluster.lab.client().output(command)?;
        Ok(Dialled {
            status: String::from_utf8(output.stdout)?.parse()?,
            ended: output.status.code() != Some(CURL_TIMED_OUT),
        })
    }
}
