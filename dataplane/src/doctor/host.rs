//! What the host grants.

use std::thread;

use super::Finding;
use crate::sys::{
    kernel, realtime,
    users::{self, Capability},
};

/// What the machine thread of vrrp has is more; whether it is to be had at all is the question.
const LEAST_PRIORITY: i32 = 1;

/// Everything but [`locked_memory`].
pub(super) fn check() -> Vec<Finding> {
    vec![kernel(), rights(), real_time()]
}

fn kernel() -> Finding {
    let release = kernel::release().unwrap_or_default();
    match kernel::marks_addresses() {
        Ok(true) => Finding::fine("kernel", format!("Linux {release}")),
        Ok(false) => Finding::problem(
            "kernel",
            format!("Linux {release} cannot mark addresses as ours"),
            "use Linux 5.18 or later",
        ),
        Err(error) => Finding::unknown("kernel", format!("its release cannot be read ({error})")),
    }
}

fn rights() -> Finding {
    match users::missing(&[users::NET_ADMIN, users::NET_RAW]) {
        Ok(missing) if missing.is_empty() => {
            Finding::fine("rights", "addresses may be set and raw sockets opened")
        }
        Ok(missing) => {
            let names: Vec<_> = missing.into_iter().map(Capability::name).collect();
            Finding::problem(
                "rights",
                format!("{} is missing", names.join(", ")),
                "run this as root, in the container of the agent where there is one",
            )
        }
        Err(error) => Finding::unknown("rights", format!("/proc cannot be read ({error})")),
    }
}

fn real_time() -> Finding {
    let subject = "real-time priority";
    // A thread of its own has it to its end.
    let asked = thread::spawn(|| realtime::real_time(LEAST_PRIORITY)).join();
    match asked {
        Ok(Ok(())) => Finding::fine(subject, "granted"),
        Ok(Err(error)) => Finding::problem(
            subject,
            format!(
                "not granted ({error}), so VRRP runs at nice -20 at best, and a busy host may lose \
                 its addresses"
            ),
            "give CAP_SYS_NICE; where the control group has no real-time budget (cgroup v1, \
             cpu.rt_runtime_us is 0), give it one",
        ),
        Err(_) => Finding::unknown(subject, "the check failed"),
    }
}

/// Whether memory may be locked; locks that of this process.
pub(super) fn locked_memory() -> Finding {
    match realtime::lock_memory() {
        Ok(()) => Finding::fine("locked memory", "granted"),
        Err(error) => Finding::problem(
            "locked memory",
            format!("not granted ({error}), so a host short of memory may lose its addresses"),
            "give CAP_IPC_LOCK",
        ),
    }
}
