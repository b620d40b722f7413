//! Endpoints in the zone of this host.

use std::time::Duration;

use proxy::{HealthCheck, Probe};

use super::{Mode, Server, next};
use crate::support::Rig;

#[tokio::test]
async fn those_near_serve_alone_until_they_are_too_few() {
    let (a, b, c) = (
        Server::new("a").await,
        Server::new("b").await,
        Server::new("c").await,
    );
    let rig = Rig::with(&[a.address, b.address, c.address], |pool| {
        pool.upstreams[0].endpoints[0].is_near = true;
        pool.upstreams[0].min_near_percent = Some(30);
        pool.upstreams[0].health.check = Some(HealthCheck {
            probe: Probe::Http {
                path: "/".to_owned(),
                host: None,
                expected_statuses: vec![200],
            },
            port: None,
            interval: Duration::from_millis(40),
            timeout: Duration::from_secs(5),
            failure_threshold: 2,
            success_threshold: 2,
        });
    });
    for _ in 0..4 {
        assert_eq!(next(&rig).await, "a");
    }
    a.be_to_checks(Mode::Status(500));
    rig.until("out", |s| !s.endpoints[0].usable).await;
    let mut names = [next(&rig).await, next(&rig).await];
    names.sort();
    assert_eq!(names, ["b", "c"], "elsewhere rather than nowhere");
    a.be_to_checks(Mode::Well);
    rig.until("back", |s| s.endpoints[0].usable).await;
    for _ in 0..4 {
        assert_eq!(next(&rig).await, "a");
    }
}
