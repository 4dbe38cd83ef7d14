//! What a seed decides before the run begins.

use std::time::Duration;

use crate::dice::Dice;
use crate::store::Fate;

/// How bad things are, in thousandths of all calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weather {
    /// The request never arrives, and the caller is told of an error.
    pub lost: u64,
    /// The request is applied, and the caller is told of an error.
    pub ambiguous: u64,
    /// The caller is told of an error, and the request is applied much later.
    pub late: u64,
    /// The process dies when it sends the request, which never arrives.
    pub crash_before: u64,
    /// The process dies when the request has been applied.
    pub crash_after: u64,
    /// The process dies, and the request is applied much later.
    pub crash_late: u64,
    /// The process dies in the middle of a multipart completion.
    pub cut_completions: u64,
    /// A call takes seconds instead of milliseconds.
    pub slow: u64,
    /// A commit of offsets to the group fails.
    pub commit_fails: u64,
    /// The reader delivers rows again after it was told to go elsewhere.
    pub stale_reads: u64,
}

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed of everything else.
    pub seed: u64,
    /// How many processes, in the same group.
    pub processes: usize,
    /// How many members of the group each process is.
    pub workers: usize,
    /// How many partitions the topic has.
    pub partitions: usize,
    /// How many sinks, each with a folder of its own.
    pub sinks: usize,
    /// Time between checkpoints.
    pub interval: Duration,
    /// A transform drops rows.
    pub filter: bool,
    /// Rows of one set go to several files.
    pub split_files: bool,
    /// Lists of files go beside the record, however short they are.
    pub spill: bool,
    /// Staged objects of more than a few rows are uploaded in parts.
    pub parts: bool,
    /// Reading starts at the end where nothing is recorded.
    pub latest: bool,
    /// After this the group gives the partitions of a silent member away.
    pub session_timeout: Duration,
    /// A revocation waits at most this long.
    pub revoke_timeout: Duration,
    /// How long faults go on.
    pub faults_for: Duration,
    /// What can go wrong meanwhile.
    pub weather: Weather,
    /// Between two blows of fate, in milliseconds.
    pub blow_every: (u64, u64),
    /// What becomes of single calls to the store, counted over all processes
    /// from 1, whatever the weather.
    pub strikes: Vec<(u64, Fate)>,
    /// No blows and no chance in what is written: the same few rows each time.
    pub scripted: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xa5a5_5a5a);
        let rates = [0, 0, 5, 15, 40];
        let rate = |dice: &mut Dice| *dice.pick(&rates);
        let weather = Weather {
            lost: rate(&mut dice),
            ambiguous: rate(&mut dice),
            late: rate(&mut dice),
            crash_before: rate(&mut dice) / 8,
            crash_after: rate(&mut dice) / 8,
            crash_late: rate(&mut dice) / 8,
            cut_completions: *dice.pick(&[0, 150, 500]),
            slow: *dice.pick(&[0, 20, 60, 150]),
            commit_fails: *dice.pick(&[0, 50, 300]),
            stale_reads: *dice.pick(&[0, 0, 0, 100]),
        };
        let processes = *dice.pick(&[3, 3, 3, 4, 5]);
        Self {
            seed,
            processes,
            workers: if processes == 3 { *dice.pick(&[1, 1, 2]) } else { 1 },
            partitions: dice.range(2..=5) as usize,
            sinks: *dice.pick(&[1, 1, 1, 2]),
            interval: dice.millis(150..=1_500),
            filter: dice.chance(250),
            split_files: dice.chance(250),
            spill: dice.chance(150),
            parts: dice.chance(300),
            latest: dice.chance(150),
            session_timeout: dice.millis(800..=4_000),
            revoke_timeout: dice.millis(300..=3_000),
            faults_for: dice.millis(4_000..=9_000),
            weather,
            blow_every: *dice.pick(&[(100, 500), (200, 1_200), (500, 2_500)]),
            strikes: Vec::new(),
            scripted: false,
        }
    }

    /// Two workers, one partition, three checkpoints, and no fault but the
    /// given ones.
    pub fn small_scope(strikes: Vec<(u64, Fate)>) -> Self {
        Self {
            seed: 1,
            processes: 2,
            workers: 1,
            partitions: 1,
            sinks: 1,
            interval: Duration::from_millis(200),
            filter: false,
            split_files: false,
            spill: false,
            parts: false,
            latest: false,
            session_timeout: Duration::from_millis(400),
            revoke_timeout: Duration::from_millis(400),
            faults_for: Duration::from_millis(1_500),
            weather: Weather::default(),
            blow_every: (500, 500),
            strikes,
            scripted: true,
        }
    }
}
