//! Faults in the lab, repeated, in one table.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use e2e::fault::Fault;
use e2e::measure::{self, ENOUGH, Plan, Report, Sample, Turns};
use e2e::subject::{Settings, Subject};
use e2e::{machine, tools};

use crate::page::Page;

/// Settings of the run.
#[derive(Debug, Args)]
pub(crate) struct Options {
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
    /// Labs that share the article's repetitions, whose outages last seconds: with more than one a run is shorter,
    /// and the article is measured in its own company.
    #[arg(long, default_value_t = 1)]
    article_labs: u32,
    /// Measures all subjects at the same time: several times shorter, the same noise for all, and more of it.
    #[arg(long)]
    at_once: bool,
    /// Program to measure as wsha; by default the one built beside this.
    #[arg(long, env = "WSHA_DATAPLANE")]
    wsha_binary: Option<PathBuf>,
    /// File that takes the tables as Markdown, with machine, date and configuration.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// File that takes each sample as a line of JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Seed of the random phases.
    #[arg(long)]
    seed: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut subjects = options.subjects.iter();
    crate::prepare_lab(subjects.any(|subject| *subject != Subject::Wsha))?;
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
    let _raised = crate::raise_priority();
    measure_all(options, wsha_binary.as_ref(), seed)
}

/// The plans of each subject and interval: one, or as many as labs share its repetitions.
fn plans(options: &Options, wsha_binary: Option<&PathBuf>, seed: u64) -> Vec<Vec<Plan>> {
    let mut columns = Vec::new();
    for subject in &options.subjects {
        // The article's interval is its own: one column.
        let intervals = match subject {
            Subject::Article => options.advert.get(..1).unwrap_or_default(),
            _ => &options.advert[..],
        };
        columns.extend(intervals.iter().map(|interval| (*subject, *interval)));
    }
    let plans = |(subject, interval)| {
        let labs = match subject {
            Subject::Article => options.article_labs.clamp(1, options.repeat.max(1)),
            _ => 1,
        };
        let plan = |number: u32| Plan {
            subject,
            settings: Settings {
                advertisement: Duration::from_millis(interval),
                wsha_binary: wsha_binary.cloned(),
                ..Settings::default()
            },
            faults: options.faults.clone(),
            repeats: options.repeat * number / labs..options.repeat * (number + 1) / labs,
            seed: seed.wrapping_add(u64::from(number).wrapping_mul(0x9e37_79b9)),
        };
        (0..labs).map(plan).collect()
    };
    columns.into_iter().map(plans).collect()
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
        failures: Mutex::new(Vec::new()),
        configurations: Mutex::new(BTreeMap::new()),
        json,
        begun,
    };
    eprintln!("seed {seed}");
    let plans = plans(options, wsha_binary, seed);
    let sizes: Vec<usize> = plans.iter().map(Vec::len).collect();
    let groups = if options.at_once {
        vec![sizes.iter().sum()]
    } else {
        sizes.clone()
    };
    let (turns, places) = Turns::among(&groups);
    thread::scope(|scope| {
        for (plan, turn) in plans.iter().flatten().zip(places.into_iter().flatten()) {
            let results = &results;
            scope.spawn(move || {
                let ended = measure::run(plan, turn, |report| results.take(report));
                // The others go on: what they measure is shown.
                ended.unwrap_or_else(|error| results.take(Report::Failure(plan.subject, error)));
            });
        }
        turns.deal();
    });
    let samples = results
        .samples
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let failures = results
        .failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let configurations = results
        .configurations
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let machine = machine::describe();
    let footer = footer(options, &sizes, begun.elapsed());
    println!("\n{machine}\n{}", machine::peers());
    for (name, text) in &configurations {
        println!("\n--- {name}\n{text}");
    }
    println!(
        "\n{}",
        measure::align(&measure::rows(&samples, options.repeat as usize))
    );
    println!("{}", measure::align(&measure::heals(&samples)));
    println!("{footer}");
    let findings = measure::findings(&samples);
    for finding in &findings {
        println!("{finding}");
    }
    if options.repeat < ENOUGH {
        println!("Fewer than {ENOUGH} repetitions are too few to judge by.");
    }
    if let Some(path) = &options.markdown {
        let page = Page {
            intervals: &options.advert,
            repeat: options.repeat as usize,
            samples: &samples,
            findings: &findings,
            footer: &footer,
            configurations: &configurations,
        };
        fs::write(path, page.text()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let missed = findings.iter().filter(|finding| finding.missed).count();
    let (own, others): (Vec<_>, Vec<_>) = failures
        .into_iter()
        .partition(|subject| *subject == Subject::Wsha);
    if !others.is_empty() {
        println!(
            "note: {} repetitions of keepalived and nginx did not end as they should and were made again",
            others.len()
        );
    }
    if !own.is_empty() {
        bail!(
            "{} repetitions failed; their reasons are above the table",
            own.len()
        );
    }
    if missed > 0 && options.repeat >= ENOUGH {
        bail!("wsha does not reach what it must: {missed} findings above");
    }
    Ok(())
}

fn footer(options: &Options, sizes: &[usize], took: Duration) -> String {
    let article = sizes.iter().max().copied().unwrap_or_default();
    let labs = if options.at_once {
        let all: usize = sizes.iter().sum();
        format!("All subjects are measured at once, in {all} labs")
    } else if article > 1 {
        format!(
            "Subjects take turns with each repetition, one lab at a time, the article's {article} at once"
        )
    } else {
        "Subjects take turns with each repetition, one lab at a time".to_owned()
    };
    format!(
        "median / p90 / max, and in parentheses by how much a real-time timer beside the probe woke late during that max; n = {} where \
         no other number stands.\n\
         stuck: not over by itself within 20 s, or 8 s after a heal; the figure is a lower limit.\n\
         Probe: a message each 5 ms, lost after 12 ms, connect time-out 10 ms, redial after 1 ms: undisturbed it shows 5-6 ms.\n\
         Faults strike server1, which holds the address, at a random phase; those that the other learns by silence \
         evenly over the interval.\n\
         {labs}.\n\
         best: VRRPv3, wsha's interval and priorities (250, 244), process events, real-time priority; article: VRRPv2, 1 s, \
         priorities 100 and 50, a script each 2 s.\n\
         proxy killed: wsha returns by itself once its proxy has accepted for 3 s; nginx is started by hand. {:.0} s in all.",
        options.repeat,
        took.as_secs_f32(),
    )
}

struct Results {
    samples: Mutex<Vec<Sample>>,
    /// Whose repetitions failed.
    failures: Mutex<Vec<Subject>>,
    /// How each subject is set up, by its name and interval.
    configurations: Mutex<BTreeMap<String, String>>,
    json: Option<File>,
    begun: Instant,
}

impl Results {
    fn take(&self, report: Report) {
        let seconds = self.begun.elapsed().as_secs();
        match report {
            Report::Sample(sample) => {
                let gone = sample
                    .vacated
                    .as_ref()
                    .map(|cost| format!(", given up after {:.1} ms", cost.outage_ms))
                    .unwrap_or_default();
                let back = sample
                    .fail_back
                    .as_ref()
                    .map(|cost| format!(", fail-back {:.0} ms", cost.outage_ms))
                    .unwrap_or_default();
                eprintln!(
                    "{seconds:4} s  {}, {} ms: {} #{}: {:.0} ms ({}){gone}{back}",
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
            Report::Configuration(name, text) => {
                let mut all = self
                    .configurations
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                all.insert(name, text);
            }
            Report::Failure(subject, error) => {
                eprintln!("{seconds:4} s  FAILED {error:#}");
                self.failures
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(subject);
            }
        }
    }
}
