//! Outages that a client sees: wsha beside keepalived and nginx, one probe, one run, one table.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Parser;
use e2e::fault::Fault;
use e2e::measure::{self, Plan, Sample};
use e2e::subject::{Settings, Subject};
use e2e::{control, tools};

/// Measures how long a client is cut off by each fault, for wsha and for keepalived with nginx.
#[derive(Debug, Parser)]
struct Options {
    /// Repetitions of each fault.
    #[arg(long, default_value_t = 20)]
    repeat: u32,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Subject::Wsha, Subject::Article, Subject::Best])]
    subjects: Vec<Subject>,
    /// Which faults.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Fault::ALL)]
    faults: Vec<Fault>,
    /// Intervals between advertisements in ms for wsha and keepalived at its best, one column each.
    #[arg(long, value_delimiter = ',', default_values_t = [100])]
    advert: Vec<u64>,
    /// Labs that share the article's repetitions: its outages last seconds, and its heals too.
    #[arg(long, default_value_t = 3)]
    article_labs: u32,
    /// Program to measure as wsha; by default the one built beside this.
    #[arg(long)]
    wsha_binary: Option<PathBuf>,
    /// File that takes each sample as a line of JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Seed of the random phases.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the benchmark needs root: its lab is made of network namespaces");
    }
    tools::install_backend()?;
    if options
        .subjects
        .iter()
        .any(|subject| *subject != Subject::Wsha)
    {
        tools::install_peers()?;
    }
    let wsha_binary = if options.subjects.contains(&Subject::Wsha) {
        Some(tools::wsha_binary(options.wsha_binary.as_deref())?)
    } else {
        None
    };
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    let raised = control::raise_priority();
    if !raised.is_allowed() {
        eprintln!("note: not allowed to raise the priority of the lab, so expect more noise");
    }
    measure_all(options, wsha_binary.as_ref(), seed)
}

fn measure_all(options: &Options, wsha_binary: Option<&PathBuf>, seed: u64) -> Result<()> {
    let begun = Instant::now();
    let json = match &options.json {
        Some(path) => {
            Some(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
        }
        None => None,
    };
    let results = Results {
        samples: Mutex::new(Vec::new()),
        failures: Mutex::new(0),
        json,
        begun,
    };
    eprintln!("seed {seed}");
    for subject in &options.subjects {
        let once = [options.advert.first().copied().unwrap_or(100)];
        // The article's interval is its own: one column.
        let intervals = if *subject == Subject::Article {
            &once[..]
        } else {
            &options.advert[..]
        };
        for interval in intervals {
            let settings = Settings {
                advertisement: Duration::from_millis(*interval),
                wsha_binary: wsha_binary.cloned(),
                ..Settings::default()
            };
            let labs = if *subject == Subject::Article {
                options.article_labs.clamp(1, options.repeat.max(1))
            } else {
                1
            };
            let plan = |number: u32| Plan {
                subject: *subject,
                settings: settings.clone(),
                faults: options.faults.clone(),
                repeats: options.repeat * number / labs..options.repeat * (number + 1) / labs,
                seed: seed.wrapping_add(u64::from(number).wrapping_mul(0x9e37_79b9)),
            };
            let outcomes = thread::scope(|scope| {
                let runs: Vec<_> = (0..labs)
                    .map(|number| {
                        let plan = plan(number);
                        let results = &results;
                        scope.spawn(move || measure::run(&plan, |sample| results.take(sample)))
                    })
                    .collect();
                runs.into_iter()
                    .map(thread::ScopedJoinHandle::join)
                    .collect::<Vec<_>>()
            });
            for outcome in outcomes {
                outcome.unwrap_or_else(|_| bail!("a lab's thread panicked"))?;
            }
        }
    }
    let samples = results
        .samples
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    println!("\n{}", measure::table(&samples));
    println!(
        "median / p90 / max, and in parentheses by how much a timer beside the probe woke late during that max; n = {}.\n\
         Probe: a message each 5 ms, lost after 12 ms, connect time-out 10 ms, redial after 1 ms: undisturbed it shows 5-6 ms.\n\
         Faults strike server1, which holds the address, at a random phase. {:.0} s in all.",
        options.repeat,
        begun.elapsed().as_secs_f32(),
    );
    let failures = *results
        .failures
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if failures > 0 {
        bail!("{failures} repetitions failed; their reasons are above");
    }
    Ok(())
}

struct Results {
    samples: Mutex<Vec<Sample>>,
    failures: Mutex<u32>,
    json: Option<File>,
    begun: Instant,
}

impl Results {
    fn take(&self, outcome: Result<Sample>) {
        let seconds = self.begun.elapsed().as_secs();
        match outcome {
            Ok(sample) => {
                let back = sample
                    .fail_back
                    .as_ref()
                    .map(|cost| format!(", fail-back {:.0} ms", cost.outage_ms))
                    .unwrap_or_default();
                eprintln!(
                    "{seconds:4} s  {}, {} ms: {} #{}: {:.0} ms ({}){back}",
                    sample.subject,
                    sample.advertisement_ms,
                    sample.fault,
                    sample.repeat + 1,
                    sample.outage.outage_ms,
                    sample.outage.saw,
                );
                if let Some(mut json) = self.json.as_ref()
                    && let Err(error) = serde_json::to_string(&sample)
                        .map_err(Into::into)
                        .and_then(|line| writeln!(json, "{line}"))
                {
                    eprintln!("cannot write the sample: {error}");
                }
                self.samples
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(sample);
            }
            Err(error) => {
                eprintln!("{seconds:4} s  FAILED {error:#}");
                *self.failures.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            }
        }
    }
}
