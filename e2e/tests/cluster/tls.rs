//! `wss://`: certificates of Secrets, and tickets that are good at every node.

use anyhow::{Result, ensure};
use e2e::testing::{SelfSigned, Session, Trust};

use crate::release::pool;
use crate::stage::Stage;

/// Whom the certificates are for.
const NAME: &str = "chat.example";
const SECRET: &str = "chat-tls";
const PORT: u16 = 8443;

/// Issues a certificate, puts it with its key into the Secret, and gives who trusts it alone.
fn issue(stage: &Stage) -> Result<Trust> {
    let issued = SelfSigned::new(NAME)?;
    stage.apply(&issued.secret(SECRET))?;
    Trust::new(NAME, &issued.chain)
}

pub(crate) fn a_client_by_tls_resumes_at_another_node(stage: &mut Stage) -> Result<()> {
    let [vip1, vip2] = stage.vips();
    let client = stage.client();
    let trust = issue(stage)?;
    let listeners = "listeners: [{name: ws, port: 8020}]";
    let secure = format!(
        "listeners: [{{name: ws, port: 8020}}, \
         {{name: wss, port: {PORT}, tls: {{certificateRefs: [{{name: {SECRET}}}]}}}}]"
    );
    let plain = pool(stage.vips());
    stage.apply(&plain.replace(listeners, &secure))?;
    stage.settle()?;
    let open = |address, trust: &Trust| Session::open_tls(client, address, PORT, trust);
    let wait_served = |stage: &Stage, trust: &Trust| {
        [vip1, vip2].into_iter().try_for_each(|address| {
            stage.wait("a session by TLS", |_| {
                Ok(open(address, trust).ok().map(drop))
            })
        })
    };
    wait_served(stage, &trust.clone().without_tickets())?;
    let mut before = open(vip1, &trust)?;
    let server = before.say("hello")?;
    // Each address is at a node of its own, and both have the keys of the pool's tickets.
    let mut other = open(vip2, &trust)?;
    other.say("hello")?;
    ensure!(
        other.is_resumed(),
        "the other node does not know the ticket"
    );

    let renewed = issue(stage)?.without_tickets();
    wait_served(stage, &renewed)?;
    before.undisturbed()?;
    ensure!(before.say("still there")? == server);
    ensure!(
        open(vip2, &trust)?.is_resumed(),
        "with the certificate, tickets went"
    );

    stage.apply(&plain)?;
    stage.kubectl(&["delete", "secret", SECRET])?;
    stage.settle()
}
