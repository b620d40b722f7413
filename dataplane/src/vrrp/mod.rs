//! The vrrp process: owns the virtual addresses and nothing else (DESIGN sections 3 and 4).
//!
//! * [`control`], on the main thread, talks to agent and proxy and decides who takes part.
//! * [`machine`] drives the state machines: real-time priority, never waits for anybody.
//! * [`host`] makes the netlink requests: leases, interfaces.
//! * [`carrier`] asks drivers for the state of links, over and over.
//! * [`isolation`] asks whether the network is there at all.
//! * [`neighbours`] looks for others who answer for the addresses.
//! * [`orphans`] ends what earlier sessions left of the addresses.
//! * Small threads read the two sockets, write to the agent, and wait for the end of the proxy.

mod asking;
mod carrier;
mod control;
mod host;
mod inbox;
mod isolation;
mod machine;
mod messages;
mod neighbours;
mod orphans;
mod outbox;
mod rehearsal;
mod residence;
mod world;

use std::{
    io,
    net::IpAddr,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use control::Control;
use host::Host;
use inbox::{Event, Sender};
use machine::{Bell, Inputs, Machine, io::Outputs};
use outbox::Outbox;
use world::World;

use crate::{
    cli::VrrpArgs,
    ipc::{AGENT_SOCKET, Hello, ToVrrp},
    sys::{
        channel::Channel,
        memory::Shared,
        netlink::Requests,
        packet::FrameSocket,
        pages::{MOST_ROUTERS, RouterTable},
        realtime,
        ring::ring,
        signals,
        users::{self, Capability},
        wait::Wake,
    },
};

/// Commands, answers and news under way between two threads: several for each virtual router.
const QUEUE: usize = MOST_ROUTERS * 8;
/// The agent may be stopped for as long as it likes; a thread of its own waits for it.
const AGENT_PATIENCE: Duration = Duration::from_hours(24);
/// Stack of each thread: none of them goes deep.
const STACK: usize = 256 * 1024;
/// Above ordinary real-time programs, below the kernel's own threads.
const MACHINE_PRIORITY: i32 = 50;
/// A takeover waits for the netlink thread.
const HOST_PRIORITY: i32 = 40;

/// Exit status after a panic, that of Rust.
const PANICKED: i32 = 101;

/// Runs the process until it has stopped in order.
pub fn run(args: &VrrpArgs) -> anyhow::Result<()> {
    end_at_a_panic();
    realtime::share_heap();
    signals::ignore_stop().context("cannot ignore SIGTERM and SIGINT")?;
    check_rights()?;
    let path = args.run_dir.join(AGENT_SOCKET);
    let (channel, table) = greet(&path)?;
    // Pages are held through their mapping to the end of the process.
    let table = Shared::<RouterTable>::from_fd(table)?.leak();
    serve(&channel, table)
}

/// A process of which one thread is missing is of no use, and would look alive: its end is noticed
/// at once, and the agent starts another one. At once means without unwinding and without a core
/// dump, which would delay every sign of it.
fn end_at_a_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        tracing::error!("{panic}");
        realtime::exit_now(PANICKED)
    }));
}

/// Removes those of `addresses` that a vrrp process of this product holds, whatever interface they
/// are on, and returns what was removed. For an agent whose vrrp is gone for good, or hung too long
/// to go on where it stopped; a vrrp that runs would put them back.
///
/// # Errors
/// What rtnetlink says.
pub fn remove_addresses(addresses: &[IpAddr]) -> io::Result<Vec<IpAddr>> {
    let mut requests = Requests::open()?;
    let world = World::of(requests.dump()?);
    let mut removed = Vec::new();
    for (index, address) in world
        .own()
        .filter(|(_, address)| addresses.contains(address))
    {
        if world.is_on(index) {
            requests.switch_link(index, false)?;
        }
        requests.remove(index, address)?;
        removed.push(address);
    }
    Ok(removed)
}

/// Says what is missing before anything fails for lack of it.
fn check_rights() -> anyhow::Result<()> {
    let missing = users::missing(&[users::NET_ADMIN, users::NET_RAW])
        .with_context(|| format!("cannot read {}: mount /proc", users::STATUS))?;
    let names: Vec<_> = missing.into_iter().map(Capability::name).collect();
    ensure!(
        names.is_empty(),
        "{} is missing: run as root, or give the program this capability",
        names.join(", ")
    );
    Ok(())
}

/// Connects to the agent, which answers with the router table.
fn greet(path: &Path) -> anyhow::Result<(Channel, OwnedFd)> {
    let socket = UnixStream::connect(path)
        .with_context(|| format!("cannot connect to the agent at {}", path.display()))?;
    let channel = Channel::new(socket, AGENT_PATIENCE)?;
    channel.send(&Hello::Vrrp, &[])?;
    match channel.receive::<ToVrrp>()? {
        Some((ToVrrp::Table, fds)) => {
            let table = fds.into_iter().next().context("the table is missing")?;
            Ok((channel, table))
        }
        Some((other, _)) => bail!("the agent began with {other:?} instead of the router table"),
        None => bail!("the agent closed the connection"),
    }
}

/// Starts the threads and runs control on this one.
fn serve(channel: &Channel, table: &'static RouterTable) -> anyhow::Result<()> {
    let wake = Arc::new(Wake::new()?);
    let host_wake = Arc::new(Wake::new()?);
    let bell = Arc::new(Bell::new()?);
    let (sender, events) = Sender::new(Arc::clone(&wake));
    let (to_machine, commands) = ring(QUEUE);
    let (from_machine, machine_news) = ring(QUEUE);
    let (lease_commands, lease_orders) = ring(QUEUE);
    let (lease_answers, answers) = ring(QUEUE);
    let (to_host, host_orders) = mpsc::channel();
    let (to_orphans, regained) = mpsc::channel();

    let frames = FrameSocket::open().context("cannot open a packet socket")?;
    let machine = Machine::new(
        Inputs {
            commands,
            answers,
            bell: Arc::clone(&bell),
        },
        Outputs {
            leases: lease_commands,
            leases_wake: Arc::clone(&host_wake),
            control: from_machine,
            control_wake: Arc::clone(&wake),
        },
        frames,
        &table.machine_beat,
        MOST_ROUTERS,
    );
    let warning = start_machine(machine)?;
    if let Some(warning) = &warning {
        tracing::warn!("{warning}");
    }
    let host = Host::open(
        host::Ends {
            commands: lease_orders,
            answers: lease_answers,
            bell: Arc::clone(&bell),
            orders: host_orders,
            wake: Arc::clone(&host_wake),
            control: sender.clone(),
            regained: to_orphans,
        },
        &table.netlink_beat,
    )
    .context("cannot talk to the kernel over rtnetlink")?;
    let host_thread = start("netlink", move || {
        // Reported by the machine thread, which needs it more.
        drop(realtime::real_time_or_favoured(HOST_PRIORITY));
        host.run();
    })?;
    let (carrier, carrier_orders) = mpsc::channel();
    let watch = carrier::Watch::new(carrier_orders, Arc::clone(&bell), Arc::clone(&wake))
        .context("cannot open a socket to ask drivers for their links")?;
    start("carrier", move || {
        // As above.
        drop(realtime::real_time_or_favoured(HOST_PRIORITY));
        watch.run();
    })?;
    start("orphans", move || orphans::run(&regained))?;
    let (neighbours, orders) = asking::orders()?;
    let looking = neighbours::Watch::new(orders, sender.clone());
    start("neighbours", move || looking.run())?;
    let (isolation, orders) = asking::orders()?;
    let watching = isolation::Watch::new(orders, sender.clone())
        .context("cannot open a socket to ask for default routes")?;
    start("isolation", move || watching.run())?;
    read_agent(channel.try_clone()?, sender.clone())?;
    let ends = control::Ends {
        wake,
        events,
        sender,
        machine: to_machine,
        machine_news,
        bell,
        host: to_host,
        host_wake,
        host_thread,
        carrier,
        neighbours,
        isolation,
        outbox: Outbox::start(channel.try_clone()?)?,
    };
    Control::new(ends, table, warning).run()
}

/// Starts the machine thread; returns what it has to do without.
fn start_machine(machine: Machine) -> anyhow::Result<Option<String>> {
    let (report, outcome) = mpsc::channel();
    start("machine", move || {
        // The receiver waits for exactly this.
        drop(report.send(realtime::real_time_or_favoured(MACHINE_PRIORITY)));
        // The depth of this thread's stack; what else it uses comes in with `residence`.
        rehearsal::rehearse();
        if let Err(error) = machine.run() {
            // Without this thread the process is of no use; the agent starts another one.
            tracing::error!(%error, "the machine thread cannot wait for its sockets");
            std::process::exit(1);
        }
    })?;
    Ok(match outcome.recv()? {
        Ok(()) => None,
        Err(realtime::Refused { error, is_favoured }) => Some(format!(
            "the vrrp process has no real-time priority ({error}){}: give it CAP_SYS_NICE, and its \
             control group a real-time budget (cgroup v1: cpu.rt_runtime_us), or a busy host may \
             lose its addresses",
            if is_favoured {
                " and runs at nice -20 instead"
            } else {
                ""
            }
        )),
    })
}

fn start(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> anyhow::Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(body)
        .with_context(|| format!("cannot start the {name} thread"))
}

/// Reads what the agent says; its end is an order to leave.
fn read_agent(channel: Channel, sender: Sender) -> io::Result<()> {
    control::spawn("agent-read", move || {
        loop {
            match channel.receive::<ToVrrp>() {
                Ok(Some((message, fds))) => sender.send(Event::Agent(message, fds)),
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "cannot understand the agent");
                    break;
                }
            }
        }
        sender.send(Event::AgentGone);
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the process that the test below starts.
    const DOOMED: &str = "WSHA_TEST_DOOMED";

    /// Not a test of its own: the one below runs it as a process that ends.
    #[test]
    fn panics_on_a_thread() {
        if std::env::var_os(DOOMED).is_none() {
            return;
        }
        end_at_a_panic();
        drop(thread::spawn(|| panic!("of a thread")));
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_panic_of_any_thread_ends_the_process() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "vrrp::tests::panics_on_a_thread"])
            .env(DOOMED, "1")
            .status();
        assert_eq!(status.unwrap().code(), Some(PANICKED));
    }
}
