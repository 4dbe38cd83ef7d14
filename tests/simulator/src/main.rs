//! `simulate --seed N` replays one run, step by step; `--seeds N` runs many.

#![allow(clippy::disallowed_methods, reason = "the command waits for its threads on its own")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tidelock_simulator::{Mutation, Outcome, Plan, Stats, run};

/// Runs Tidelock's protocol under every fault, in virtual time.
#[derive(Parser)]
#[command(name = "simulate")]
struct Args {
    /// Replays one seed and prints its steps.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs this many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many threads.
    #[arg(long)]
    threads: Option<usize>,
    /// Plants a bug, by its name; `list` prints them.
    #[arg(long)]
    bug: Option<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let bug = match args.bug.as_deref().map(bug_of).transpose() {
        Ok(bug) => bug,
        Err(names) => {
            println!("{names}");
            return ExitCode::from(2);
        }
    };
    match args.seed {
        Some(seed) => replay(seed, bug),
        None => many(&args, bug),
    }
}

fn bug_of(name: &str) -> Result<Mutation, String> {
    let known = Mutation::ALL.iter().find(|bug| format!("{bug:?}") == name);
    let names = Mutation::ALL.map(|bug| format!("{bug:?}"));
    known.copied().ok_or_else(|| names.join("\n"))
}

fn replay(seed: u64, bug: Option<Mutation>) -> ExitCode {
    let plan = Plan::of(seed);
    println!("{plan:#?}");
    let outcome = run(plan, bug, true);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("\ntrace {:016x}", outcome.hash);
    report(&outcome)
}

fn report(outcome: &Outcome) -> ExitCode {
    match &outcome.violation {
        None => {
            println!("seed {}: every invariant held", outcome.seed);
            ExitCode::SUCCESS
        }
        Some(violation) => {
            println!("seed {}: {violation}", outcome.seed);
            ExitCode::FAILURE
        }
    }
}

struct Many {
    next: AtomicU64,
    done: AtomicU64,
    failed: Mutex<Vec<Outcome>>,
    stats: Mutex<Stats>,
    over: AtomicBool,
}

fn many(args: &Args, bug: Option<Mutation>) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let many = Many {
        next: AtomicU64::new(args.from),
        done: AtomicU64::new(0),
        failed: Mutex::default(),
        stats: Mutex::default(),
        over: AtomicBool::new(false),
    };
    let end = args.from + args.seeds;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..args.threads.unwrap_or(cores))
            .map(|_| scope.spawn(|| many.work(end, bug)))
            .collect();
        scope.spawn(|| many.tell(args.seeds, begun));
        for worker in workers {
            let _ = worker.join();
        }
        many.over.store(true, Ordering::Relaxed);
    });
    many.sum_up(begun)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Many {
    fn work(&self, end: u64, bug: Option<Mutation>) {
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let outcome = run(Plan::of(seed), bug, false);
            *lock(&self.stats) += &outcome.stats;
            self.done.fetch_add(1, Ordering::Relaxed);
            if outcome.violation.is_some() {
                report(&outcome);
                lock(&self.failed).push(outcome);
            }
        }
    }

    fn tell(&self, of: u64, begun: Instant) {
        let mut told = Instant::now();
        while !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            if told.elapsed() >= Duration::from_secs(10) {
                told = Instant::now();
                let done = self.done.load(Ordering::Relaxed);
                let rate = done as f64 / begun.elapsed().as_secs_f64();
                let failed = lock(&self.failed).len();
                println!("{done} of {of} seeds, {rate:.0}/s, {failed} failed");
            }
        }
    }

    fn sum_up(&self, begun: Instant) -> ExitCode {
        let done = self.done.load(Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        for (name, count) in lock(&self.stats).table() {
            println!("{name:>32}  {count}");
        }
        println!("{done} seeds in {seconds:.1} s, {:.0}/s", done as f64 / seconds);
        let failed = lock(&self.failed);
        let mut kinds = std::collections::BTreeMap::<_, (u64, u64)>::new();
        for outcome in failed.iter() {
            if let Some(violation) = &outcome.violation {
                let kind = kinds.entry(violation.invariant).or_insert((0, outcome.seed));
                kind.0 += 1;
                kind.1 = kind.1.min(outcome.seed);
            }
        }
        for (invariant, (count, first)) in &kinds {
            println!("{invariant} failed in {count} seeds, the first is {first}");
        }
        if kinds.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
