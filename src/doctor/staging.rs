//! Staging and publishing, through the very code that publishes files.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::TryStreamExt;
use tidelock_connector::{Error, Result};
use tidelock_store::{Beneath, Published, Store};

use super::basics::{put_with_token, token_of};
use super::{Exam, Finding, Trial, tried};

/// The size of what is published: large enough that a cut can hit its middle.
const BYTES: usize = 1 << 20;
/// How often publishing is cut.
const CUTS: u32 = 12;

pub(super) async fn examine(exam: &mut Exam<'_>) {
    let store = exam.store;
    let check = tried(Trial::Copy, copy(store, &exam.path("copied"))).await;
    exam.checks.push(check);
    let mut took = Duration::ZERO;
    let folder = exam.path("twice");
    let check = tried(Trial::PublishTwice, publish_twice(store, &folder, &mut took)).await;
    exam.checks.push(check);
    let check = tried(Trial::PublishCut, publish_cut(store, &exam.path("cut"), took)).await;
    exam.checks.push(check);
    let check = tried(Trial::PublishMissing, missing(store, &exam.path("missing"))).await;
    exam.checks.push(check);
}

/// Bytes that differ from case to case.
fn content(case: u32) -> Bytes {
    let mut bytes = vec![0; BYTES];
    let mut state = u64::from(case).wrapping_add(0x9e37_79b9_7f4a_7c15);
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    bytes.into()
}

async fn stage(store: &Store, path: &str, bytes: Bytes) -> Result<()> {
    let mut writer = store.stage(path).await?;
    writer.write(bytes).await?;
    writer.finish().await.map(drop)
}

/// Whether `path` holds exactly these bytes, and is listed.
async fn is_visible(store: &Store, path: &str, bytes: &Bytes) -> Result<bool> {
    let listed: Vec<_> = store.list(parent(path)).try_collect().await?;
    let listed = listed.iter().any(|e| e.path == path && e.size == bytes.len() as u64);
    Ok(listed && store.get(path).await?.as_ref() == Some(bytes))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// One copy, with everything that belongs to the object.
async fn copy(store: &Store, folder: &str) -> Result<Finding> {
    let (from, to) = (format!("{folder}/staged/0.staged"), format!("{folder}/final/0.bin"));
    let bytes = content(0);
    let client = match store.beneath() {
        Beneath::Object { store, .. } => Some(store),
        _ => None,
    };
    let token = "published-by-copy";
    let with_token = match &client {
        Some(client) => put_with_token(store, client.as_ref(), &from, bytes.clone(), token).await?,
        None => false,
    };
    if !with_token {
        stage(store, &from, bytes.clone()).await?;
    }
    if store.size(&to).await?.is_some() {
        return Ok(Finding::bad("staged bytes are visible before they are published"));
    }
    let published = store.publish(&from, &to, bytes.len() as u64).await?;
    if !is_visible(store, &to, &bytes).await? {
        return Ok(Finding::bad(format!(
            "publishing said {published:?}, and the bytes are not there"
        )));
    }
    let Some(client) = client.filter(|_| with_token) else {
        let how = if store.get(&from).await?.is_none() { "renamed" } else { "copied" };
        return Ok(Finding::good(format!("{how}, and every byte is there")));
    };
    Ok(match token_of(store, client.as_ref(), &to).await? {
        Some(found) if found == token => Finding::good("size, bytes and metadata are copied"),
        // Publishing goes by key and size alone.
        _ => Finding::good("size and bytes are copied, metadata are not (they are not needed)"),
    })
}

async fn publish_twice(store: &Store, folder: &str, took: &mut Duration) -> Result<Finding> {
    let (from, to) = (format!("{folder}/staged/0.staged"), format!("{folder}/final/0.bin"));
    let bytes = content(1);
    stage(store, &from, bytes.clone()).await?;
    let began = Instant::now();
    let first = store.publish(&from, &to, bytes.len() as u64).await?;
    *took = began.elapsed();
    let second = store.publish(&from, &to, bytes.len() as u64).await?;
    if first == Published::Missing || second == Published::Missing {
        return Ok(Finding::bad(format!(
            "the first publish said {first:?}, the second {second:?}"
        )));
    }
    if !is_visible(store, &to, &bytes).await? {
        return Ok(Finding::bad("published twice, and the bytes are not there"));
    }
    // Whoever publishes third finds the staged bytes deleted.
    store.delete(std::slice::from_ref(&from)).await?;
    let third = store.publish(&from, &to, bytes.len() as u64).await?;
    Ok(match third {
        Published::Missing => Finding::bad("published, and then called missing"),
        _ if is_visible(store, &to, &bytes).await? => {
            Finding::good("twice is like once, also after the staged bytes are deleted")
        }
        _ => Finding::bad("publishing again damaged what was visible"),
    })
}

/// Cuts the connection at moments between *not sent* and *answered*, and
/// publishes again as another process would.
async fn publish_cut(store: &Store, folder: &str, took: Duration) -> Result<Finding> {
    let mut cut = 0;
    for case in 0..CUTS {
        let from = format!("{folder}/staged/{case}.staged");
        let to = format!("{folder}/final/{case}.bin");
        let bytes = content(2 + case);
        stage(store, &from, bytes.clone()).await?;
        let size = bytes.len() as u64;
        let wait = took.mul_f64(f64::from(case) * 1.1 / f64::from(CUTS));
        let answer = tokio::time::timeout(wait, store.publish(&from, &to, size)).await;
        cut += u32::from(answer.is_err());
        let again = publish_patiently(store, &from, &to, size).await?;
        if again == Published::Missing || !is_visible(store, &to, &bytes).await? {
            return Ok(Finding::bad(format!(
                "after a cut at {wait:?} the second try said {again:?}, and the bytes are not there"
            )));
        }
        store.delete(&[from, to]).await?;
    }
    Ok(Finding::good(format!("cut {cut} times; the second try always published")))
}

async fn publish_patiently(store: &Store, from: &str, to: &str, size: u64) -> Result<Published> {
    let mut tries = 0;
    loop {
        match store.publish(from, to, size).await {
            Err(error) if error.is_retryable() && tries < 5 => tries += 1,
            answer => return answer,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn missing(store: &Store, folder: &str) -> Result<Finding> {
    let (from, to) = (format!("{folder}/staged/0.staged"), format!("{folder}/final/0.bin"));
    let answer: Result<_, Error> = store.publish(&from, &to, 1).await;
    Ok(match answer {
        Ok(Published::Missing) => Finding::good("what is lost is called missing"),
        Ok(other) => Finding::bad(format!("what is not there was called {other:?}")),
        Err(error) => Finding::bad(error.to_string()),
    })
}
