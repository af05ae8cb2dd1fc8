//! Reading an answer to its end after its caller has gone, for what it says of its usage.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;

use super::MeteredBody;
use super::source::AnswerSource;
use crate::caller_occupancy::OccupancySlot;
use crate::drain::{Drained, Phase};
use crate::ledger::Outcome;
use crate::metering::usage::Output;
use crate::upstream::AnswerBody;

/// What a drain may take.
const LONGEST: Duration = Duration::from_secs(120);
const MOST_BYTES: u64 = 64 << 20;

/// Its caller has gone while it was passing: it is read on where that tells what it used, or closed.
pub(super) fn left(body: &mut MeteredBody) {
    let core = &body.core;
    let drained = core.shared.drain.watch();
    let share = body.source.account.as_ref().and_then(|account| account.drain());
    let worth_it = body.source.reader.is_some() && core.shared.drain.phase() < Phase::Cutting;
    let (Some(incoming), Some(share), true) = (body.source.incoming.take(), share, worth_it) else {
        let reading = body.source.reader.take().map(|mut reader| reader.finish(&mut Output::default()));
        body.source.record(reading, Outcome::CallerGone, None, 0);
        return;
    };
    let source = AnswerSource {
        incoming: None,
        reader: body.source.reader.take(),
        lease: body.source.lease.take(),
        call: Arc::clone(&body.source.call),
        account: body.source.account.take(),
        billed: body.source.billed,
        drained: false,
    };
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(run(incoming, source, share, drained));
    }
}

/// Reads on for the usage alone.
async fn run(
    mut incoming: AnswerBody,
    mut source: AnswerSource,
    _permit: OccupancySlot,
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
