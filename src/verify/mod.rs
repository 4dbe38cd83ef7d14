//! Proves from the files themselves that every offset is there exactly once.
//!
//! ```text
//! record ──▶ list data files ──▶ footers, 32 at once ──▶ commit sets ──▶ tiles ──▶ verdict
//! (before)   of every sink       (rows, with `deep`)     add up?         gaps?     (record after)
//! ```
//!
//! # What is proved
//! Every file says which commit set it belongs to; the last file of a set says
//! which offsets the set accounts for and which files it has. So:
//!
//! * the sets of a sink tile each partition from where the record says that
//!   the sink began up to where it says that offsets are in files: nothing
//!   missing, nothing twice, nothing that the record does not know;
//! * each set has exactly its files, under their own names, with their rows.
//!
//! Together: every offset is in exactly one set, and every set is whole.
//! Without the record only what lies between files can be proved.
//!
//! # While a pipeline runs
//! The record is read *before* the files are listed and again *after*. What the
//! first state calls filed and no longer pending was visible before the listing
//! began; what the second state does not know cannot have been seen. In between
//! anything may be half there, and is let pass. Whatever looks wrong all the
//! same is looked at again from the start, and counts only if it is still
//! wrong; so a running pipeline is never the problem.
//!
//! # What it costs
//! One request per file (two for a footer above 64 KiB), and with
//! [`deep`](VerifyOptions::deep) the coordinates of all rows. Memory does not
//! grow with the number of files: a few words per commit set, a range per
//! partition and claim, a bit per offset for a deep look. Only a second look,
//! when something is wrong, keeps names.

mod copies;
mod details;
mod findings;
mod human;
mod judge;
mod pending;
mod read;
mod report;
mod rows;
mod scan;
mod sets;
#[cfg(test)]
mod tests;
mod tiles;
mod verdict;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tidelock_connector::{Error, ErrorKind, Result};
use tidelock_file::Store;

use self::findings::Findings;
use self::judge::Known;
use self::read::Reader;
use self::report::Context;
use self::scan::Scan;
pub use self::verdict::{
    AllWatermarks, PartitionVerdict, Problem, ProblemKind, ProblemOffsets, RecordSeen, SinkVerdict,
    Totals, Verdict, Watermarks,
};
use crate::checkpoint::record::Record;
use crate::checkpoint::store::RecordStore;

/// How often is looked at most, before what looks different every time is let
/// pass: two looks in a row must agree that something is wrong.
const LOOKS: usize = 5;
/// How many problems a verdict holds.
const PROBLEMS: usize = 1_000;
/// How many files are read at once unless it is said.
const PARALLEL: usize = 32;

/// What to verify.
#[derive(Clone)]
pub struct VerifyOptions {
    pipeline: String,
    record: Arc<dyn RecordStore>,
    sinks: Vec<SinkToVerify>,
    watermarks: Option<AllWatermarks>,
    deep: bool,
    parallel: usize,
}

/// A file sink.
#[derive(Clone)]
struct SinkToVerify {
    name: String,
    store: Store,
    topics: Option<BTreeSet<String>>,
}

impl SinkToVerify {
    fn takes(&self, topic: &str) -> bool {
        self.topics.as_ref().is_none_or(|topics| topics.contains(topic))
    }
}

impl VerifyOptions {
    /// Verifies `pipeline`, whose record is in `record`; the record may be
    /// absent.
    pub fn new(pipeline: impl Into<String>, record: Arc<dyn RecordStore>) -> Self {
        Self {
            pipeline: pipeline.into(),
            record,
            sinks: Vec::new(),
            watermarks: None,
            deep: false,
            parallel: PARALLEL,
        }
    }

    /// Adds a file sink; `topics` are those that it takes, if not all.
    #[must_use]
    pub fn sink(
        mut self,
        name: impl Into<String>,
        store: Store,
        topics: Option<BTreeSet<String>>,
    ) -> Self {
        self.sinks.push(SinkToVerify { name: name.into(), store, topics });
        self
    }

    /// Says where the partitions begin and end in the log: shows the lag, and
    /// which gaps can still be filled.
    #[must_use]
    pub fn watermarks(mut self, watermarks: AllWatermarks) -> Self {
        self.watermarks = Some(watermarks);
        self
    }

    /// Reads the rows, too: their number, and the offset of each where the
    /// columns `_topic`, `_partition` and `_offset` were kept.
    #[must_use]
    pub fn deep(mut self, deep: bool) -> Self {
        self.deep = deep;
        self
    }

    /// Sets how many files are read at once; 32 unless it is said.
    #[must_use]
    pub fn parallelism(mut self, files: usize) -> Self {
        self.parallel = files.max(1);
        self
    }

    async fn read_record(&self) -> Result<Option<Record>> {
        let Some((bytes, _)) = self.record.read().await? else { return Ok(None) };
        let record = Record::decode(&bytes)?;
        if record.pipeline != self.pipeline {
            let message = format!("this is the record of pipeline {:?}", record.pipeline);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Ok(Some(record))
    }
}

impl fmt::Debug for VerifyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sinks: Vec<_> = self.sinks.iter().map(|sink| &sink.name).collect();
        f.debug_struct("VerifyOptions")
            .field("pipeline", &self.pipeline)
            .field("sinks", &sinks)
            .field("deep", &self.deep)
            .finish_non_exhaustive()
    }
}

/// Looks at every file of every sink, and proves or names what is wrong.
///
/// # Errors
/// Only what keeps the question from being answered: a store that does not
/// answer, a record or a footer that a newer version wrote. What is wrong with
/// the files stands in the verdict.
pub async fn verify(options: &VerifyOptions) -> Result<Verdict> {
    let mut earlier: Option<Vec<Findings>> = None;
    let mut looks = 0;
    loop {
        let mut look = Look::at(options, earlier.as_deref()).await?;
        looks += 1;
        let nothing = || options.sinks.iter().map(|_| Findings::default()).collect();
        let before = earlier.take().unwrap_or_else(nothing);
        let confirmed: Vec<Findings> = std::iter::zip(&look.findings, &before)
            .map(|(now, before)| now.clone().confirmed_by(before))
            .collect();
        let settled = look.findings.iter().all(Findings::is_empty);
        let wrong = confirmed.iter().any(|findings| !findings.is_empty());
        if settled || wrong || looks == LOOKS {
            return look.verdict(options, &confirmed).await;
        }
        tracing::debug!(looks, "something looks wrong, looking again");
        earlier = Some(std::mem::take(&mut look.findings));
    }
}

/// One look at everything.
struct Look {
    record: Option<Record>,
    scans: Vec<Scan>,
    findings: Vec<Findings>,
    sinks: Vec<SinkVerdict>,
}

impl Look {
    async fn at(options: &VerifyOptions, earlier: Option<&[Findings]>) -> Result<Self> {
        let before = options.read_record().await?;
        let mut scans = Vec::with_capacity(options.sinks.len());
        for (index, sink) in options.sinks.iter().enumerate() {
            let reader =
                Reader::open(&sink.store, &options.pipeline, &sink.name, options.deep).await?;
            let (reader, known) = (Arc::new(reader), earlier.and_then(|all| all.get(index)));
            let mut scan = scan::scan(&reader, options.parallel, before.as_ref(), known).await?;
            copies::find(&reader, &mut scan).await?;
            scans.push(scan);
        }
        let after = options.read_record().await?;
        let mut look = Self { record: None, scans, findings: Vec::new(), sinks: Vec::new() };
        for (sink, scan) in std::iter::zip(&options.sinks, &mut look.scans) {
            let unseen = pending::unseen(before.as_ref(), &sink.name, scan).cloned().collect();
            let (store, parallel) = (&sink.store, options.parallel);
            let pending =
                pending::look(store, &options.record, after.as_ref(), parallel, unseen).await?;
            let known = Known {
                sink,
                before: before.as_ref(),
                after: after.as_ref(),
                watermarks: options.watermarks.as_ref(),
            };
            let (findings, verdict) = judge::judge(known, scan, &pending);
            look.findings.push(findings);
            look.sinks.push(verdict);
        }
        look.record = after;
        Ok(look)
    }

    async fn verdict(self, options: &VerifyOptions, confirmed: &[Findings]) -> Result<Verdict> {
        let (mut problems, mut unexplained) = (Vec::new(), 0);
        let mut sinks = self.sinks;
        for (index, findings) in confirmed.iter().enumerate() {
            let sink = &options.sinks[index];
            let context = Context {
                sink: &sink.name,
                store: &sink.store,
                has_record: self.record.is_some(),
                asked_broker: options.watermarks.is_some(),
            };
            let (found, more) =
                report::report(context, findings, &self.scans[index].details).await?;
            judge::note(&mut sinks[index], findings, &found);
            problems.extend(found);
            unexplained += more;
        }
        let mut totals = Totals::default();
        for sink in &sinks {
            totals.add(&sink.totals);
        }
        let ok = confirmed.iter().all(Findings::is_empty);
        unexplained += problems.len().saturating_sub(PROBLEMS) as u64;
        problems.truncate(PROBLEMS);
        Ok(Verdict {
            pipeline: options.pipeline.clone(),
            ok,
            record: self.record.map(|record| RecordSeen { sequence: record.sequence }),
            deep: options.deep,
            totals,
            sinks,
            problems,
            problems_not_shown: unexplained,
        })
    }
}
