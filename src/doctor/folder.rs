//! What a local file system must do: link without replacing, and sync.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tidelock_connector::{Error, ErrorKind, Result};

use super::{Exam, Finding, Trial, tried};

/// How often a file and its folder are synced.
const SYNCS: u32 = 8;
/// No disk is that fast.
const TOO_FAST: Duration = Duration::from_micros(20);

pub(super) async fn examine(exam: &mut Exam<'_>, root: &Path) {
    let folder = root.join(exam.path("folder"));
    let check = tried(Trial::Link, blocking(folder.clone(), link)).await;
    exam.checks.push(check);
    let check = tried(Trial::Sync, blocking(folder, sync)).await;
    exam.checks.push(check);
}

/// Removes the folder of the examination with what is in it, and those above
/// it that are empty then.
pub(super) async fn remove(root: &Path, folder: &str) -> Result<()> {
    let root = root.to_owned();
    blocking(root.join(folder), move |folder| {
        fs::remove_dir_all(folder)?;
        let above = folder.ancestors().skip(1).take_while(|above| **above != root);
        // Whatever is not empty stays: it is not ours.
        above.take_while(|above| fs::remove_dir(above).is_ok()).for_each(drop);
        Ok(())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    folder: PathBuf,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let shown = folder.display().to_string();
    let done = tokio::task::spawn_blocking(move || {
        fs::create_dir_all(&folder)?;
        work(&folder)
    });
    let done = done.await.map_err(io::Error::other).and_then(|finding| finding);
    done.map_err(|e| Error::new(ErrorKind::Unavailable, "the file system").object(shown).source(e))
}

/// A version of the record is linked under its number, which fails when the
/// number is taken: that is all the fencing that a folder has.
fn link(folder: &Path) -> io::Result<Finding> {
    let (one, two, name) = (folder.join("one"), folder.join("two"), folder.join("name"));
    fs::write(&one, b"one")?;
    fs::write(&two, b"two")?;
    if let Err(error) = fs::hard_link(&one, &name) {
        return Ok(Finding::bad(format!("the file system has no hard links: {error}")));
    }
    match fs::hard_link(&two, &name) {
        Ok(()) => return Ok(Finding::bad("link(2) replaced what was there")),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    fs::remove_file(&one)?;
    Ok(match fs::read(&name)?.as_slice() {
        b"one" => Finding::good("link(2) fails where something is, and outlives its source"),
        _ => Finding::bad("link(2) failed, and replaced what was there"),
    })
}

fn sync(folder: &Path) -> io::Result<Finding> {
    let began = Instant::now();
    for number in 0..SYNCS {
        let path = folder.join(format!("{number}.bin"));
        let mut file = File::create(&path)?;
        file.write_all(&[number as u8; 4096])?;
        file.sync_all()?;
        fs::rename(&path, folder.join(format!("{number}.moved")))?;
        if cfg!(unix) {
            File::open(folder)?.sync_all()?;
        }
    }
    let each = began.elapsed() / SYNCS;
    let shown = each.as_secs_f64() * 1000.0;
    Ok(if each < TOO_FAST {
        Finding::good(format!(
            "{shown:.3} ms for a file and its folder: this is memory, or a disk that does not wait"
        ))
    } else {
        Finding::good(format!("{shown:.2} ms for a file and its folder"))
    })
}
