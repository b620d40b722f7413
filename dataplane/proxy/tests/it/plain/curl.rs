//! A real client.

use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{proxied, server};
use crate::{
    support::{read_head, soon},
    tls::support::{HOST, rig},
};

/// What curl sends: more than it sends before it was told to go on (`Expect`).
const LENGTH: usize = 3 << 20;

#[tokio::test]
async fn curl_sends_content_and_asks_again_on_one_connection() {
    let backend = server(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        if head.contains("Expect: 100-continue") {
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            stream.write_all(go_on).await.unwrap();
        }
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
        let length = field("Content-Length: ").unwrap().parse().unwrap();
        let mut content = vec![0; length];
        stream.read_exact(&mut content).await.unwrap();
        let sum: u64 = content.iter().map(|byte| u64::from(*byte)).sum();
        let answer = format!("HTTP/1.1 200 OK\r\n\r\n{length} bytes, {sum}\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let (mut rig, _authority) = rig(&[backend]);
    rig.edit(proxied);
    let port = rig.address.port();
    let content = std::env::temp_dir().join(format!("wsha-plain-{}", std::process::id()));
    std::fs::write(&content, vec![3; LENGTH]).unwrap();
    for version in ["--http1.1", "--http2"] {
        let url = format!("https://{HOST}:{port}/upload");
        let file = format!("@{}", content.display());
        let curl = move || {
            Command::new("curl")
                .args([version, "--insecure", "--silent", "--fail"])
                .args(["--max-time", "10", "--noproxy", "*"])
                .args(["--resolve", &format!("{HOST}:{port}:127.0.0.1")])
                .args(["--write-out", "%{num_connects} new\n"])
                .args(["--data-binary", &file, &url, &url])
                .output()
                .unwrap()
        };
        let output = soon(tokio::task::spawn_blocking(curl)).await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let answer = format!("{LENGTH} bytes, {}\n", 3 * LENGTH);
        let expected = format!("{answer}1 new\n{answer}0 new\n");
        assert_eq!(said, expected, "{version}: {}", output.status);
    }
    std::fs::remove_file(&content).unwrap();
}
