//! Replays the article for a reader: wsha, and keepalived with nginx beside it, step by step on one machine.

mod side;

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use e2e::lab::Lab;
use e2e::measure::align;
use e2e::subject::{Settings, Subject};
use e2e::{control, tools};

use self::side::{OFF, Outcome, Side};

/// Replays the article "highly available WebSockets with nginx and keepalived" in a lab of network namespaces.
#[derive(Debug, Parser)]
struct Options {
    /// What to show, the first in full.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Subject::Wsha, Subject::Article])]
    subjects: Vec<Subject>,
    /// Program to show as wsha; by default the one built beside this.
    #[arg(long, env = "WSHA_DATAPLANE")]
    wsha_binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    e2e::exit(run(&Options::parse()))
}

type Action = for<'side, 'lab> fn(&'side mut Side<'lab>) -> Result<Outcome>;

/// A step: its row in the table, what it shows, what is done.
struct Step {
    row: &'static str,
    text: &'static str,
    action: Action,
}

const STEPS: [Step; 7] = [
    Step {
        row: "start",
        text: "Two gateways, two virtual addresses: server1 holds 192.168.1.112, server2 holds 192.168.1.110.",
        action: |side| side.show(),
    },
    Step {
        row: "four clients",
        text: "Four clients connect, two to each address. Which of server3, server4 and server5 answers whom?",
        action: |side| side.connect(),
    },
    Step {
        row: "kill -9 of the proxy",
        text: "kill -9 of the proxy on server1 (nginx with its workers; wsha's proxy). 192.168.1.112 moves to server2.",
        action: |side| side.kill_proxy(),
    },
    Step {
        row: "  its return",
        text: "The proxy returns (wsha restarts it; nginx is started by the administrator) and 192.168.1.112 goes home.",
        action: |side| side.proxy_returns(),
    },
    Step {
        row: "power-off of server1",
        text: "server1 loses its power: nothing leaves it any more, not even a farewell.",
        action: |side| side.power_off(),
    },
    Step {
        row: "  its return",
        text: "server1 boots again. Everything returns to how it was.",
        action: |side| side.power_on(),
    },
    Step {
        row: "a fourth backend",
        text: "server6 joins as a fourth backend while the sessions live: an edit of one file for wsha, an edit on both hosts and two reloads for nginx.",
        action: |side| side.add_backend(),
    },
];

fn run(options: &Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo needs root: its hosts are network namespaces (make demo runs it by sudo)");
    }
    let begun = Instant::now();
    println!("Preparing: node's ws, keepalived and nginx, the network.");
    tools::install_backend()?;
    let mut subjects = options.subjects.clone();
    let mut missing = None;
    if subjects.iter().any(|subject| *subject != Subject::Wsha)
        && let Err(error) = tools::install_peers()
    {
        subjects.retain(|subject| *subject == Subject::Wsha);
        missing = Some(format!("No column for keepalived and nginx: {error:#}"));
    }
    let wsha_binary = if subjects.contains(&Subject::Wsha) {
        Some(tools::wsha_binary(options.wsha_binary.as_deref())?)
    } else {
        None
    };
    if subjects.is_empty() {
        bail!("nothing to show. {}", missing.unwrap_or_default());
    }
    let settings = Settings {
        wsha_binary,
        ..Settings::default()
    };
    let raised = control::raise_priority();
    let outcome = replay(&subjects, &settings, begun);
    drop(raised);
    if let Some(missing) = missing {
        println!("{missing}");
    }
    outcome
}

fn replay(subjects: &[Subject], settings: &Settings, begun: Instant) -> Result<()> {
    let labs = subjects
        .iter()
        .map(|_| Lab::new())
        .collect::<Result<Vec<_>>>()?;
    let started = thread::scope(|scope| {
        let starting: Vec<_> = subjects
            .iter()
            .zip(&labs)
            .map(|(subject, lab)| scope.spawn(|| Side::start(lab, *subject, settings.clone())))
            .collect();
        starting.into_iter().map(joined).collect::<Vec<_>>()
    });
    let mut sides = started.into_iter().collect::<Result<Vec<_>>>()?;

    let mut broken = Vec::new();
    let mut rows = vec![vec!["step".to_owned()]];
    rows[0].extend(subjects.iter().map(ToString::to_string));
    for (number, step) in STEPS.iter().enumerate() {
        println!(
            "\n== {}. {}   [{} s]",
            number + 1,
            step.text,
            begun.elapsed().as_secs()
        );
        let outcomes = thread::scope(|scope| {
            let acting: Vec<_> = sides
                .iter_mut()
                .map(|side| scope.spawn(|| (step.action)(side)))
                .collect();
            acting.into_iter().map(joined).collect::<Vec<_>>()
        });
        let mut row = vec![step.row.to_owned()];
        for (position, (side, outcome)) in sides.iter().zip(outcomes).enumerate() {
            let outcome = match outcome {
                Ok(outcome) => outcome,
                Err(error) => bail!(
                    "{}, {}: {error:#}\n{}",
                    side.subject(),
                    step.row.trim(),
                    side.logs()
                ),
            };
            show(side.subject(), &outcome, position == 0);
            row.push(outcome.cell);
            broken.extend(outcome.broken);
        }
        rows.push(row);
    }
    println!("\n== What the clients noticed\n\n{}", align(&rows));
    println!(
        "A client sends each 10 ms and takes an echo as lost after 200 ms; in parentheses by how many ms a timer of the same\n\
         machine woke late during the worst. `make bench-failover` measures finer and often. {} s in all.",
        begun.elapsed().as_secs()
    );
    if !broken.is_empty() {
        bail!("{}", broken.join("; "));
    }
    Ok(())
}

fn joined<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle
        .join()
        .unwrap_or_else(|_| Err(anyhow!("a step's thread panicked")))
}

/// Prints what a step did to one side; the first side with `ip addr` as the article shows it.
fn show(subject: Subject, outcome: &Outcome, in_full: bool) {
    println!("\n-- {subject}");
    for (host, text) in ["server1", "server2"].iter().zip(&outcome.addresses) {
        if text == OFF {
            println!("{host}: {OFF}");
        } else if in_full && !text.is_empty() {
            println!("{host}# ip addr\n{}", text.trim_end());
        } else if !text.is_empty() {
            let words = text.split_whitespace();
            let held = words.filter(|word| word.contains('/') && word.contains('.'));
            println!("{host}: {}", held.collect::<Vec<_>>().join(", "));
        }
    }
    for line in outcome.clients.iter().chain(&outcome.remarks) {
        println!("{line}");
    }
}
