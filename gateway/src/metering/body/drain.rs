//! Reading an answer to its end after its caller has gone, for what it says of its usage.

use std::time::Duration;

use http_body_util::BodyExt;

use super::source::AnswerSource;
use crate::caller_usage::UsagePermit;
use crate::drain::{Drained, Phase};
use crate::ledger::Outcome;
use crate::metering::usage::Output;
use crate::upstream::AnswerBody;

/// What a drain may take.
const LONGEST: Duration = Duration::from_secs(120);
const MOST_BYTES: u64 = 64 << 20;

/// Reads on for the usage alone.
pub(super) async fn run(
    mut incoming: AnswerBody,
    mut source: AnswerSource,
    _permit: UsagePermit,
    mut drained: Drained,
) {
    let mut output = Output::default();
    let mut left = MOST_BYTES;
    let read = async {
        while let Some(Ok(frame)) = incoming.frame().await {
            let Ok(chunk) = frame.into_data() else { continue };
            left = left.saturating_sub(chunk.len() as u64);
            source.feed(chunk, &mut output);
            output.ready.clear();
            if output.complete || left == 0 {
                return;
            }
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(LONGEST, read) => {}
        () = drained.reached(Phase::Cutting) => {}
    }
    let reading = source.reader.take().map(|mut reader| reader.finish(&mut output));
    source.drained = true;
    source.record(reading, Outcome::CallerGone, None, 0);
}
