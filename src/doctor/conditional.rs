//! Compare-and-swap, through the very code that writes pipelines' records.
//!
//! Every error of a conditional write is ambiguous: the store may have applied
//! it. The races therefore judge by what is there afterwards, and count errors
//! beside that.

use bytes::Bytes;
use futures::future::join_all;
use tidelock_connector::{ErrorKind, Result};
use tidelock_store::{Store, Version};

use super::{Exam, Finding, Trial, tried};

/// Writers of one race.
const WRITERS: usize = 20;
/// Races of each kind.
const ROUNDS: usize = 3;

pub(super) async fn examine(exam: &mut Exam<'_>) {
    let store = exam.store;
    let check = tried(Trial::CreateTwice, create_twice(store, &exam.path("create.json"))).await;
    exam.checks.push(check);
    let check = tried(Trial::Update, update(store, &exam.path("update.json"))).await;
    exam.checks.push(check);
    let check = tried(Trial::RacingCreates, races(store, &exam.path("created"), false)).await;
    exam.checks.push(check);
    let check = tried(Trial::RacingUpdates, races(store, &exam.path("updated"), true)).await;
    exam.checks.push(check);
}

fn numbered(number: usize) -> Bytes {
    format!("{{\"writer\": {number}}}").into()
}

/// Whether a write was refused for its condition.
fn refused(written: Result<Version>) -> Result<bool> {
    match written {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::Fenced => Ok(true),
        Err(error) => Err(error),
    }
}

async fn create_twice(store: &Store, path: &str) -> Result<Finding> {
    let object = store.versioned(path);
    object.write(numbered(1), None).await?;
    if !refused(object.write(numbered(2), None).await)? {
        return Ok(Finding::bad("the second create was accepted: the condition is ignored"));
    }
    Ok(match object.read().await? {
        Some((found, _)) if found == numbered(1) => Finding::good("the second create is refused"),
        _ => Finding::bad("the second create was refused, and written all the same"),
    })
}

async fn update(store: &Store, path: &str) -> Result<Finding> {
    let object = store.versioned(path);
    let first = object.write(numbered(1), None).await?;
    let second = match object.write(numbered(2), Some(&first)).await {
        Ok(version) => version,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return Ok(Finding::bad(format!("updates are not possible: {error}")));
        }
        Err(error) if error.kind() == ErrorKind::Fenced => {
            return Ok(Finding::bad("an update of the newest version was refused"));
        }
        Err(error) => return Err(error),
    };
    if !refused(object.write(numbered(3), Some(&first)).await)? {
        return Ok(Finding::bad(
            "an update of a stale version was accepted: the condition is ignored",
        ));
    }
    Ok(match object.read().await? {
        Some((found, version)) if found == numbered(2) && version == second => {
            Finding::good("the right version is updated, a stale one is refused")
        }
        Some(_) => Finding::bad("what is read is not the version that was written last"),
        None => Finding::bad("the object is gone after its update"),
    })
}

async fn races(store: &Store, folder: &str, updates: bool) -> Result<Finding> {
    let mut errors = 0;
    for round in 0..ROUNDS {
        let race = race(store, &format!("{folder}/{round}.json"), updates).await?;
        if race.winners > 1 {
            return Ok(Finding::bad(format!(
                "{} of {WRITERS} writers were told that they had won",
                race.winners
            )));
        }
        if !race.is_winners {
            return Ok(Finding::bad("what is read is not what the winner wrote"));
        }
        errors += race.errors;
    }
    let errors = match errors {
        0 => String::new(),
        count => format!("; {count} other errors"),
    };
    Ok(Finding::good(format!("one of {WRITERS} writers wins, {ROUNDS} times of {ROUNDS}{errors}")))
}

struct Race {
    winners: usize,
    /// Neither won nor told that the condition failed.
    errors: usize,
    /// Whether the object is what the winner wrote; with no winner, whether a
    /// writer that got an error did.
    is_winners: bool,
}

async fn race(store: &Store, path: &str, updates: bool) -> Result<Race> {
    let object = store.versioned(path);
    let base = match updates {
        true => Some(object.write(numbered(WRITERS), None).await?),
        false => None,
    };
    let writes = (0..WRITERS).map(|n| object.write(numbered(n), base.as_ref()));
    let written = join_all(writes).await;
    let found = object.read().await?.map(|(bytes, _)| bytes);
    let wrote = |n: usize| found.as_ref() == Some(&numbered(n));
    let won: Vec<usize> = (0..WRITERS).filter(|n| written[*n].is_ok()).collect();
    let is_winners = match won.as_slice() {
        [] => (0..WRITERS).any(wrote),
        won => won.iter().any(|n| wrote(*n)),
    };
    let is_error =
        |w: &&Result<Version>| w.as_ref().is_err_and(|error| error.kind() != ErrorKind::Fenced);
    Ok(Race { winners: won.len(), errors: written.iter().filter(is_error).count(), is_winners })
}
