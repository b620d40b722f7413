//! Full load on every core.

use std::fs::File;
use std::hint;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};

/// What a thread does until it is told to stop.
type Work = fn(&AtomicBool);

/// For each core a thread that computes, one that copies in the kernel, and one that starts programs, until dropped.
#[derive(Debug)]
pub struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// Starts the load, at the priority of the caller.
    pub fn start() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut busy = Self {
            stop: Arc::clone(&stop),
            threads: Vec::new(),
        };
        let kinds: [(&str, Work); 3] = [
            ("compute", compute),
            ("copy", copy),
            ("programs", start_programs),
        ];
        for _ in 0..thread::available_parallelism()?.get() {
            for (name, work) in kinds {
                let stop = Arc::clone(&stop);
                let thread = thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || work(&stop))
                    .context("cannot start the load")?;
                busy.threads.push(thread);
            }
        }
        Ok(busy)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A load that ended early was less load, which the figures show.
            drop(thread.join());
        }
    }
}

fn compute(stop: &AtomicBool) {
    let mut number = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        number = hint::black_box(number.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
    }
}

fn copy(stop: &AtomicBool) {
    let files = File::open("/dev/zero").and_then(|zero| {
        let null = File::options().write(true).open("/dev/null")?;
        Ok((zero, null))
    });
    let Ok((mut zero, mut null)) = files else {
        return compute(stop);
    };
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        zero.read_exact(&mut buffer).ok();
        null.write_all(&buffer).ok();
    }
}

fn start_programs(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut program = Command::new("true");
        program.stdin(Stdio::null()).stdout(Stdio::null());
        if program.status().is_err() {
            return compute(stop);
        }
    }
}
