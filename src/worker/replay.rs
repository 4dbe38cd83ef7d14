//! Going on after lost prepared data, where that was asked for.

use std::sync::Arc;

use tidelock_connector::{Error, ErrorKind};

use super::Failure;
use super::claim::{spilled, swap_loop_gone};
use super::life::Life;
use crate::checkpoint::lost::{Loss, OnLost};
use crate::checkpoint::record::PendingSet;
use crate::checkpoint::swap::SwapOutcome;

impl Life {
    /// What a publish that failed means: lost files end the run, unless they
    /// are to be read again; then the next life finds the set pending and
    /// nobody's, and comes to [`replay`](Self::replay).
    pub(super) fn not_published(&self, error: Error) -> Failure {
        match (error.kind(), &self.shared.settings.on_lost) {
            (ErrorKind::DataLoss, OnLost::Replay(_)) => Failure::Restart(error),
            _ => error.into(),
        }
    }

    /// A pending set cannot be published: its files are lost. Shows what reading
    /// its offsets again repeats, and does it when that is agreed to. Returns
    /// why this life ends either way; the next one begins at the new cursors.
    pub(super) async fn replay(&self, set: &PendingSet, error: Error) -> Failure {
        let OnLost::Replay(agree) = &self.shared.settings.on_lost else { return error.into() };
        if error.kind() != ErrorKind::DataLoss {
            return error.into();
        }
        let swaps = &self.shared.swaps;
        let survey = match self.shared.publisher.survey(set).await {
            Ok(survey) => survey,
            Err(error) => return error.into(),
        };
        let visible = survey.visible.clone();
        let record = match swaps.read().await {
            Ok(record) => record,
            Err(error) => return error.into(),
        };
        let (loss, change) = Loss::plan(&record, set, survey);
        tracing::warn!(%error, "files of a committed checkpoint are lost");
        let (agree, asked) = (Arc::clone(agree), loss.clone());
        // It may wait for somebody at a terminal.
        match tokio::task::spawn_blocking(move || agree(&asked)).await {
            Ok(true) => {}
            Ok(false) => return Failure::Fatal(error),
            Err(panic) => {
                return Failure::Fatal(
                    Error::new(ErrorKind::Panic, "asking whether to replay").source(panic),
                );
            }
        }
        match swaps.send(self.coordinator.incarnation(), change).await {
            Ok(SwapOutcome::Landed(_)) => {
                metrics::counter!("tidelock_lost_sets_replayed_total").increment(1);
                tracing::warn!(sink = set.id.sink, checkpoint = set.id.checkpoint,
                    incarnation = %set.id.incarnation, "reading the offsets of lost files again");
                // What is staged of it is nobody's any more.
                self.shared.publisher.discard(&set.id, &visible, spilled(&set.files)).await;
                Failure::Restart(Error::new(ErrorKind::Fenced, "cursors were moved back"))
            }
            Ok(SwapOutcome::Refused(refusal)) => Failure::Restart(Error::new(
                ErrorKind::Fenced,
                format!("the replay was refused, and is planned again: {refusal}"),
            )),
            Ok(SwapOutcome::Failed(error)) => error.into(),
            Err(_) => Failure::Fatal(swap_loop_gone()),
        }
    }
}
