//! Watches the store: every landed version of the record, and every step
//! beside it, is held against the invariants as it happens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use object_store::CopyMode;
use serde::Deserialize;
use tidelock::checkpoint::record::{Files, PendingSet, Record, SetId};
use tidelock_connector::Committable;

use crate::group::MemberId;
use crate::invariants::{self, Invariant};
use crate::log::tp;
use crate::objects::{Objects, Request};
use crate::plan::Plan;
use crate::world::State;

/// The pipeline's name.
pub(crate) const PIPELINE: &str = "p";
/// Where the record lives.
pub(crate) const STATE: &str = "state";
/// The record.
const HEAD: &str = "state/_tidelock/p/head.json";
/// The folder of each sink, which is also its name.
pub(crate) const SINKS: [&str; 2] = ["a", "b"];

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: Invariant,
    /// What was found.
    pub what: String,
}

impl Violation {
    pub(crate) fn new(invariant: Invariant, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Head,
    Spilled,
    Staged,
    /// What readers see: data files, and the footers beside them.
    Visible,
}

fn kind(key: &str) -> Kind {
    if key == HEAD {
        return Kind::Head;
    }
    if key.starts_with(STATE) {
        return Kind::Spilled;
    }
    if key.contains("/_tidelock/") && key.contains("/staging/") {
        return Kind::Staged;
    }
    Kind::Visible
}

/// One file of a set: where it is staged, and what it will be called.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    from: String,
    to: String,
}

#[derive(Deserialize)]
struct Detail {
    moves: Vec<PlainMove>,
}

#[derive(Deserialize)]
struct PlainMove {
    from: String,
    to: String,
}

fn moves(sink: &str, files: &[Committable]) -> Vec<Move> {
    let details = files.iter().filter_map(|file| Detail::deserialize(&file.detail).ok());
    details
        .flat_map(|detail| detail.moves)
        .map(|step| Move {
            from: format!("{sink}/{}", step.from),
            to: format!("{sink}/{}", step.to),
        })
        .collect()
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) record: Record,
    /// The files of every set that some version of the record listed.
    sets: BTreeMap<SetId, Vec<Move>>,
    /// Staged keys that some version listed, and their final keys.
    staged: BTreeMap<String, String>,
    /// Final keys that some version listed.
    listed: BTreeSet<String>,
    /// Every staged key that was ever written.
    written: BTreeSet<String>,
    /// Under which epoch a set landed.
    pub(crate) epochs: BTreeMap<(SetId, i32), u64>,
    /// The epoch that a member must have raised before it may read.
    floor: BTreeMap<(MemberId, i32), u64>,
    pub(crate) violation: Option<Violation>,
}

impl Watcher {
    pub(crate) fn new(_plan: &Plan) -> Self {
        Self {
            record: Record::new(PIPELINE),
            sets: BTreeMap::new(),
            staged: BTreeMap::new(),
            listed: BTreeSet::new(),
            written: BTreeSet::new(),
            epochs: BTreeMap::new(),
            floor: BTreeMap::new(),
            violation: None,
        }
    }

    pub(crate) fn violated(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// The newest epoch of a partition; 0 before the first claim.
    pub(crate) fn epoch(&self, partition: i32) -> u64 {
        self.record.partition(&tp(partition)).map_or(0, |state| state.epoch)
    }

    /// A partition was assigned to a member.
    pub(crate) fn assigned(&mut self, member: MemberId, partition: i32, epoch: u64) {
        self.floor.insert((member, partition), epoch);
    }

    /// I6: a member starts to read; since the assignment, or since it started
    /// the last time, somebody must have claimed the partition.
    pub(crate) fn claimed_before(
        &mut self,
        member: MemberId,
        partition: i32,
        epoch: u64,
    ) -> Option<Violation> {
        let floor = self.floor.insert((member, partition), epoch)?;
        (epoch <= floor).then(|| {
            Violation::new(
                Invariant::I6,
                format!("{member} reads partition {partition} under epoch {epoch}, unclaimed"),
            )
        })
    }

    /// I9: an offset is committed to the group.
    pub(crate) fn committed(&self, partition: i32, offset: i64) -> Option<Violation> {
        invariants::committed_is_behind(&self.record, &tp(partition), offset)
            .map(|what| Violation::new(Invariant::I9, what))
    }
}

/// The committables of a set, from wherever they are.
fn files_of(objects: &Objects, set: &PendingSet) -> Option<Vec<Committable>> {
    match &set.files {
        Files::Inline(files) => Some(files.clone()),
        Files::Spilled { object, .. } => {
            let key = format!("{STATE}/_tidelock/{PIPELINE}/{object}");
            serde_json::from_slice(&objects.get(&key)?.bytes).ok()
        }
    }
}

impl State {
    /// Looks at a request that is about to be applied.
    pub(crate) fn before(&mut self, request: &Request) {
        let violation = match request {
            Request::Delete { key } => self.before_delete(key.as_ref()),
            Request::Put { key, bytes, .. } => self.before_put(key.as_ref(), bytes),
            Request::Complete { key, upload, parts } => {
                let bytes = self.objects.assembled(*upload, *parts);
                self.stats.uploads += u64::from(bytes.is_some());
                bytes.and_then(|bytes| self.before_put(key.as_ref(), &bytes))
            }
            Request::Copy { from, to, mode } => {
                self.before_copy(from.as_ref(), to.as_ref(), *mode == CopyMode::Overwrite)
            }
            _ => None,
        };
        if let Some(violation) = violation {
            self.violated(violation);
        }
    }

    fn before_delete(&mut self, key: &str) -> Option<Violation> {
        self.objects.get(key)?;
        match kind(key) {
            Kind::Visible => {
                return Some(Violation::new(Invariant::R2, format!("{key} is deleted")));
            }
            Kind::Head => return Some(Violation::new(Invariant::S1, "the record is deleted")),
            Kind::Spilled => {
                let object = key.split_once(&format!("/{PIPELINE}/"))?.1;
                let needed = self.watcher.record.pending.iter().any(|set| {
                    matches!(&set.files, Files::Spilled { object: listed, .. } if listed == object)
                });
                return needed.then(|| {
                    Violation::new(Invariant::I8, format!("{key} is needed and deleted"))
                });
            }
            Kind::Staged => self.stats.deleted += 1,
        }
        let to = self.watcher.staged.get(key)?;
        let published = self.objects.get(to).is_some();
        (!published)
            .then(|| Violation::new(Invariant::I8, format!("{key} is deleted, unpublished")))
    }

    fn before_put(&mut self, key: &str, bytes: &[u8]) -> Option<Violation> {
        let again = match kind(key) {
            Kind::Staged => !self.watcher.written.insert(key.to_owned()),
            Kind::Spilled => self.objects.get(key).is_some_and(|found| *found.bytes != *bytes),
            Kind::Visible => true,
            Kind::Head => false,
        };
        again.then(|| Violation::new(Invariant::I7, format!("{key} is written a second time")))
    }

    fn before_copy(&mut self, from: &str, to: &str, overwrites: bool) -> Option<Violation> {
        let source = self.objects.get(from)?;
        if let Some(found) = self.objects.get(to) {
            self.stats.republished += 1;
            let other = overwrites && found.bytes != source.bytes;
            return other.then(|| Violation::new(Invariant::R2, format!("{to} changes")));
        }
        self.stats.files += 1;
        let unlisted = !self.watcher.listed.contains(to);
        unlisted.then(|| Violation::new(Invariant::I1, format!("{to} is visible, and not listed")))
    }

    /// Looks at what a request has done.
    pub(crate) fn after(&mut self, request: &Request) {
        if let Request::Put { key, bytes, .. } = request
            && kind(key.as_ref()) == Kind::Head
        {
            match Record::decode(bytes) {
                Ok(record) => self.landed(record),
                Err(error) => self.violated(Violation::new(Invariant::S1, error.to_string())),
            }
        }
    }

    /// A version of the record has landed.
    fn landed(&mut self, after: Record) {
        let before = std::mem::replace(&mut self.watcher.record, after.clone());
        self.stats.swaps += 1;
        self.note_sets(&before, &after);
        let objects = &self.objects;
        let sets = &self.watcher.sets;
        let is_published = |set: &PendingSet| {
            sets.get(&set.id)
                .is_some_and(|moves| moves.iter().all(|step| objects.get(&step.to).is_some()))
        };
        let found = [
            (Invariant::I2, invariants::cursors_never_go_back(&before, &after)),
            (Invariant::I5, invariants::only_owners_move_cursors(&before, &after)),
            (Invariant::I3, invariants::pending_leaves_published(&before, &after, is_published)),
            (Invariant::I4, invariants::sets_tile(&before, &after)),
            (Invariant::S1, invariants::is_successor(&before, &after)),
        ];
        let found = found.into_iter().find_map(|(i, what)| Some(Violation::new(i, what?)));
        if let Some(violation) = found {
            self.violated(violation);
        }
    }

    /// Takes note of the sets that became pending (I8 where their bytes are
    /// gone already), and of claims.
    fn note_sets(&mut self, before: &Record, after: &Record) {
        for (partition, state) in after.partitions() {
            let epoch = before.partition(&partition).map_or(0, |state| state.epoch);
            if state.epoch > epoch {
                self.stats.claims += 1;
                let number = partition.partition;
                self.step("record", format_args!("{number} is claimed, epoch {}", state.epoch));
            }
        }
        for set in after.pending.iter().filter(|set| !before.is_pending(&set.id)) {
            self.stats.sets += 1;
            let id = &set.id;
            self.step(
                "record",
                format_args!("{}/{}/{} is pending", id.sink, id.incarnation, id.checkpoint),
            );
            let Some(files) = files_of(&self.objects, set) else {
                let what = format!("the list of files of {}/{} is gone", id.sink, id.checkpoint);
                self.violated(Violation::new(Invariant::I8, what));
                continue;
            };
            let moves = moves(&id.sink, &files);
            for Move { from, to } in &moves {
                if self.objects.get(from).is_none() && self.objects.get(to).is_none() {
                    let what = format!("{from} is listed, and gone already");
                    self.violated(Violation::new(Invariant::I8, what));
                }
                self.watcher.staged.insert(from.clone(), to.clone());
                if !self.watcher.listed.insert(to.clone()) {
                    let what = format!("{to} is listed by a second set");
                    self.violated(Violation::new(Invariant::I7, what));
                }
            }
            for partition in set.partitions.keys() {
                let epoch = before.partition(partition).map_or(0, |state| state.epoch);
                self.watcher.epochs.insert((id.clone(), partition.partition), epoch);
            }
            self.watcher.sets.insert(id.clone(), moves);
        }
    }
}
