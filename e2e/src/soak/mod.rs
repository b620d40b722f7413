//! A soak: thousands of sessions through both gateways for as long as one likes, while servers, proxies and a whole
//! gateway fail and come back, the pool's spec is edited and its certificate replaced, all drawn from a seed. Clients
//! come with TLS and without, and some share connections of HTTP/2.
//!
//! Every byte is compared, every end of a session is attributed, and nothing may be left over: `crowd` is the
//! clients, `director` does what is done to the rest, `ledger` brings together what clients saw, what proxies
//! recorded and what was done, `vitals` watches memory, and `resting` what is left without sessions.

mod certificates;
mod client;
mod crowd;
mod deed;
mod director;
mod http2;
mod ledger;
mod random;
mod report;
mod resting;
mod servers;
mod spec;
mod stream;
mod takeovers;
mod vitals;
mod wire;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::certificates::Certificates;
use self::crowd::{Gathering, Pace, Tally};
use self::deed::Deeds;
use self::director::Director;
use self::ledger::{Ledger, Records};
use self::random::Random;
pub use self::report::Summary;
use self::resting::{BeforeAndAfter, Resting};
use self::servers::Servers;
use self::spec::Spec;
use self::stream::Way;
use self::takeovers::Takeovers;
use self::vitals::{Memory, Vitals};
use crate::testing::{Cluster, Gateway, Part};

/// What is asked of a soak.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// From which everything is drawn.
    pub seed: u64,
    /// How many clients there are.
    pub sessions: usize,
    /// How long it goes on, at least: each fault and each edit comes once, however long that takes.
    pub time: Duration,
}

impl Options {
    /// Sessions last longer where there is more time, and everything is hurried where there is little.
    fn pace(&self) -> Pace {
        let is_short = self.time < Duration::from_mins(5);
        let [longest, slowest] = if is_short { [20, 2] } else { [120, 6] };
        Pace {
            arrival: Duration::from_secs(if is_short { 2 } else { 10 }),
            shortest: Duration::from_secs(2),
            longest: Duration::from_secs(longest),
            quickest: Duration::from_millis(200),
            slowest: Duration::from_secs(slowest),
        }
    }

    fn pauses(&self) -> [Duration; 2] {
        if self.time < Duration::from_mins(5) {
            [100, 1000].map(Duration::from_millis)
        } else {
            [1, 8].map(Duration::from_secs)
        }
    }

    /// When buffers and caches have their size.
    fn warm_up(&self) -> Duration {
        (self.time / 4).min(Duration::from_mins(5))
    }
}

/// A seed that nobody chose. It is printed, so that a run can be repeated.
pub fn any_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::from(now.unwrap_or_default().subsec_nanos())
}

/// Soaks a lab without gateways at work. The summary says what was wrong, if something was.
pub fn run(cluster: &mut Cluster, options: Options) -> Result<Summary> {
    let (_, allowed) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, allowed, allowed)?;
    eprintln!("soak: seed {}, {} clients", options.seed, options.sessions);
    let random = Random::new(options.seed);
    let mut choices = random.fork(0);
    let servers = Servers::start(&cluster.lab)?;
    let spec = Spec::new(&cluster.lab);
    let certificates = Certificates::new(cluster)?;
    cluster.apply(&spec.manifest())?;
    cluster.start_both()?;
    cluster.wait_home()?;
    for gateway in Gateway::BOTH {
        cluster.wait_sessions(gateway, 0)?;
    }
    let resting = Resting::look(cluster)?;
    let begun = Instant::now();
    let client = cluster.lab.client();
    let crowd = Gathering::start(
        client,
        options.sessions,
        spec.listeners(),
        options.pace(),
        random.fork(1),
        &certificates,
    )?;
    let mut director = Director {
        steady: choices.one_of(&Gateway::BOTH),
        crowd,
        servers,
        spec,
        certificates,
        deeds: Deeds::default(),
        vitals: Vitals::default(),
        takeovers: Takeovers::since(begun),
        random: choices,
        faults: BTreeMap::new(),
        edits: BTreeMap::new(),
        late: Vec::new(),
        pauses: options.pauses(),
        begun,
        cluster,
    };
    director.run(begun + options.time)?;
    director.restore()?;
    let Director {
        cluster,
        crowd,
        mut deeds,
        vitals,
        mut takeovers,
        faults,
        edits,
        late,
        steady,
        // They serve until the last session has ended.
        servers: _servers,
        ..
    } = director;
    let tally = crowd.disperse()?;
    let lasted = begun.elapsed();
    for gateway in Gateway::BOTH {
        cluster.wait_sessions(gateway, 0)?;
    }
    let (descriptors, resting) = resting.compare(cluster)?;
    takeovers.look(cluster);
    let unasked = takeovers.unasked(&mut deeds);
    let records = Records::read(cluster)?;
    let ledger = Ledger::close(&tally, &records, &deeds);
    let mut wrong = counters(cluster, steady, &records)?;
    wrong.extend(left_over(&descriptors));
    wrong.extend(found(&tally, &ledger));
    let memory = vitals.memory(options.warm_up());
    wrong.extend(grown(&memory, options.warm_up()));
    let came = |way| tally.ends.iter().filter(|end| end.way == way).count() as u64;
    Ok(Summary {
        seed: options.seed,
        lasted,
        clients: options.sessions,
        peak: tally.peak,
        sessions: tally.ends.len() as u64,
        over_tls: came(Way::Tls),
        in_streams: came(Way::Http2),
        connections: tally.connections,
        messages: tally.messages,
        bytes: tally.bytes,
        turned_away: tally.turned_away,
        faults,
        edits,
        unasked,
        closes: ledger.closes,
        unattributed: ledger.unattributed,
        lost: ledger.lost + tally.wrong.len() as u64,
        memory,
        resting,
        late,
        descriptors,
        wrong,
    })
}

impl Summary {
    /// Fails if something was not as it must be.
    pub fn verdict(&self) -> Result<()> {
        match self.wrong.as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => bail!("{first}, and {} more of that kind", rest.len()),
        }
    }
}

/// What clients found wrong, and what of their ends does not agree with records and deeds.
fn found(tally: &Tally, ledger: &Ledger) -> Vec<String> {
    let mut wrong = tally.wrong.clone();
    if ledger.unattributed > 0 {
        wrong.push(format!("{} closes without a cause", ledger.unattributed));
    }
    wrong.extend(ledger.told.iter().cloned());
    if ledger.lost > 0 {
        wrong.push(format!("{} messages were lost", ledger.lost));
    }
    wrong
}

/// The processes that have more descriptors than before.
fn left_over(descriptors: &BeforeAndAfter<usize>) -> impl Iterator<Item = String> {
    let more = descriptors
        .iter()
        .filter(|(_, [before, after])| after > before);
    more.map(|(process, _)| format!("{process} has descriptors left over"))
}

/// The processes whose memory is not flat.
fn grown(lifetimes: &[(Gateway, Part, Memory)], warm_up: Duration) -> impl Iterator<Item = String> {
    // A trend over seconds is none.
    let grown = lifetimes
        .iter()
        .filter(move |(_, _, memory)| memory.lasted > warm_up * 2 && !memory.is_flat());
    grown.map(|(gateway, part, memory)| {
        let process = vitals::name(*gateway, *part);
        format!("the memory of {process} grows: {memory:?}")
    })
}

/// Compares the counters of the gateway whose proxy lived all the time with the records that were read.
fn counters(cluster: &Cluster, steady: Gateway, records: &Records) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let causes = records.causes(steady);
    let count = |name: &str, labels: &[(&str, &str)]| cluster.count(steady, name, labels);
    for (cause, recorded) in &causes {
        let counted = count("wsha_proxy_sessions_ended", &[("by", cause)])?;
        if counted != *recorded {
            wrong.push(format!(
                "{cause} counted {counted} times, recorded {recorded} times"
            ));
        }
    }
    let upgraded = count("wsha_proxy_handshakes", &[("result", "upgraded")])?;
    let ended = count("wsha_proxy_sessions_ended", &[])?;
    if upgraded != ended || ended != causes.values().sum::<u64>() {
        wrong.push(format!(
            "{upgraded} sessions began, {ended} ended, by cause {causes:?}"
        ));
    }
    let lost = count("wsha_proxy_access_records_lost", &[])?;
    if lost > 0 {
        wrong.push(format!("{lost} access records were lost"));
    }
    Ok(wrong)
}
