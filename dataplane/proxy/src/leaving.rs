//! A worker's part in a planned stop: listeners closed, clients told, acknowledgements waited for.

use std::{
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{task::yield_now, time::sleep};

use crate::{
    proxy::LeaveReport,
    session::{Control, End, Farewell},
    stats::Ended,
    worker::Worker,
};

/// How long it goes on without an acknowledgement.
const LEAVE_PATIENCE: Duration = Duration::from_millis(5);

/// How long it asks the kernel without a pause: on a LAN all is acknowledged by then.
const LEAVE_EAGER: Duration = Duration::from_millis(1);

impl Worker {
    pub(crate) async fn leave(
        self: &Rc<Self>,
        addresses: &[IpAddr],
        deadline: Instant,
    ) -> LeaveReport {
        let begun = Instant::now();
        self.close_listeners(|address| addresses.contains(&address.ip()));
        let mut waiting: Vec<_> = {
            let sessions = self.sessions.borrow();
            let of_addresses =
                |control: &&Rc<Control>| addresses.contains(&control.gate.address.ip());
            sessions.values().filter(of_addresses).cloned().collect()
        };
        let sessions = waiting.len();
        let mut requests = self.end_requests(addresses);
        for control in &waiting {
            let code = control.pool.borrow().drain.close_code;
            control.end(End {
                by: Ended::Left,
                code,
                reason: "gateway is going away",
            });
        }
        let mut progress = begun;
        let mut last = (usize::MAX, u64::MAX);
        loop {
            yield_now().await;
            let mut open = 0;
            waiting.retain(|control| match control.farewell.get() {
                Farewell::Over | Farewell::Sent(0) => false,
                Farewell::Waiting => true,
                Farewell::Sent(bytes) => {
                    open += bytes;
                    true
                }
            });
            // Those that are over are in no book any more.
            requests.retain(|told| Rc::strong_count(told) > 1);
            let now = Instant::now();
            let left = waiting.len() + requests.len();
            if (left, open) != last {
                last = (left, open);
                progress = now;
            }
            if left == 0 || now >= deadline || now >= progress + LEAVE_PATIENCE {
                break;
            }
            if now >= begun + LEAVE_EAGER {
                sleep(Duration::from_millis(1)).await;
            }
            for control in &waiting {
                control.wake();
            }
        }
        LeaveReport {
            sessions,
            acknowledged: sessions - waiting.len(),
            elapsed: begun.elapsed(),
        }
    }
}
