//! The second phase, and what happens instead of it.

use tidelock_connector::{ErrorKind, Outcome};

use crate::support::{Worker, both, memory_url, paths, rows, visible};

fn locals() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = folder.path().display().to_string();
    (folder, url)
}

#[tokio::test]
async fn nothing_is_visible_before_the_commit() {
    let (_folder, local) = locals();
    for url in [memory_url(), local] {
        for builder in both(&url) {
            let sink = builder.target_file_size(10_000).build().unwrap();
            let mut worker = Worker::new(&sink).await;
            let before = visible(&worker.store).await.len();
            for step in 0..10 {
                worker.write(&rows(step * 500, 500)).await;
            }
            let committables = worker.prepare(0, 5_000).await;
            assert_eq!(visible(&worker.store).await.len(), before);
            let staged: Vec<_> = paths(&worker.store)
                .await
                .into_iter()
                .filter(|path| path.contains(&worker.incarnation.to_string()))
                .collect();
            assert!(staged.len() >= committables.len());
            assert!(staged.iter().all(|path| path.starts_with("_tidelock/pipe/staging/")));
            assert!(staged.iter().all(|path| path.ends_with(".staged")), "{staged:?}");
            worker.commit(&committables).await;
            assert_eq!(visible(&worker.store).await.len(), before + committables.len());
            assert!(worker.committer.staged("pipe").await.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn committing_again_is_harmless_whoever_does_it() {
    let (_folder, local) = locals();
    for url in [memory_url(), local] {
        for builder in both(&url) {
            let sink = builder.build().unwrap();
            let mut worker = Worker::new(&sink).await;
            worker.write(&rows(0, 100)).await;
            let committables = worker.prepare(0, 100).await;
            // As another process has it from the record.
            let json = serde_json::to_string(&committables).unwrap();
            let [copy]: [tidelock_connector::Committable; 1] = serde_json::from_str(&json).unwrap();
            let other = Worker::new(&sink).await.committer;
            assert_eq!(other.commit(&copy).await.unwrap(), Outcome::Committed);
            let again = worker.committer.commit(&committables[0]).await.unwrap();
            assert_ne!(again, Outcome::Missing);
            other.discard(&committables).await.unwrap();
            other.discard(&committables).await.unwrap();
            let late = worker.committer.commit(&committables[0]).await.unwrap();
            assert_eq!(late, Outcome::AlreadyCommitted);
            let rows: u64 = visible(&worker.store)
                .await
                .iter()
                .filter(|(_, footer)| footer.incarnation == worker.incarnation)
                .map(|(_, footer)| footer.rows)
                .sum();
            assert_eq!(rows, 100);
        }
    }
}

#[tokio::test]
async fn staged_bytes_that_are_gone_are_missing() {
    for builder in both(&memory_url()) {
        let sink = builder.build().unwrap();
        let mut worker = Worker::new(&sink).await;
        worker.write(&rows(0, 100)).await;
        let committables = worker.prepare(0, 100).await;
        worker.committer.discard(&committables).await.unwrap();
        assert_eq!(worker.committer.commit(&committables[0]).await.unwrap(), Outcome::Missing);
        worker.store.put(&committables[0].name, "a stranger".into()).await.unwrap();
        let commit = worker.committer.commit(&committables[0]).await;
        // The sidecar comes first, and is missing.
        match commit {
            Ok(outcome) => assert_eq!(outcome, Outcome::Missing),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict),
        }
    }
}

#[tokio::test]
async fn discarding_a_writer_leaves_nothing_that_it_alone_knew() {
    let (_folder, local) = locals();
    for url in [memory_url(), local] {
        for builder in both(&url) {
            let sink = builder.target_file_size(10_000).build().unwrap();
            let mut worker = Worker::new(&sink).await;
            worker.write(&rows(0, 500)).await;
            let kept = worker.prepare(0, 500).await;
            for step in 0..10 {
                worker.write(&rows(step * 500, 500)).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            worker.writer.discard().await;
            // What was prepared before is not the writer's any more.
            assert_eq!(worker.committer.commit(&kept[0]).await.unwrap(), Outcome::Committed);
            worker.committer.discard(&kept).await.unwrap();
            // A file that was just being staged may be left to the collector.
            worker.committer.collect("pipe", worker.incarnation).await.unwrap();
            assert!(worker.committer.staged("pipe").await.unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn orphans_are_found_and_collected_per_incarnation() {
    let (_folder, local) = locals();
    for url in [memory_url(), local] {
        let sink = both(&url)[0].clone().build().unwrap();
        let mut dead = Worker::new(&sink).await;
        let mut alive = Worker::new(&sink).await;
        dead.write(&rows(0, 10)).await;
        alive.write(&rows(10, 10)).await;
        drop(dead.prepare(0, 10).await);
        let kept = alive.prepare(10, 20).await;
        let mut staged = alive.committer.staged("pipe").await.unwrap();
        staged.sort();
        let mut expected = [dead.incarnation, alive.incarnation];
        expected.sort();
        assert_eq!(staged, expected);
        assert!(alive.committer.staged("another pipe").await.unwrap().is_empty());
        alive.committer.collect("pipe", dead.incarnation).await.unwrap();
        alive.committer.collect("pipe", dead.incarnation).await.unwrap();
        assert_eq!(alive.committer.staged("pipe").await.unwrap(), [alive.incarnation]);
        alive.commit(&kept).await;
    }
}

#[tokio::test]
async fn a_committable_of_another_sink_is_refused() {
    let sink = both(&memory_url())[0].clone().build().unwrap();
    let worker = Worker::new(&sink).await;
    let foreign = tidelock_connector::Committable {
        name: "x".into(),
        rows: 1,
        bytes: 1,
        detail: serde_json::json!({ "transaction": 7 }),
    };
    let error = worker.committer.commit(&foreign).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}
