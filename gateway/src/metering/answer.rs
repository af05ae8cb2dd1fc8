//! From the provider's head to the caller's response.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName};
use http::{HeaderValue, Response};
use http_body::Body;
use tollgate_policy::denial::{Denial, Reason};

use super::account::{Account, AnswerFacts, LearntUsage};
use super::answered::Answered;
use super::body::MeteredBody;
use super::relay::Relay;
use super::reply_body::ReplyBody;
use crate::core::Core;
use crate::injection::{self, Seen};
use crate::ledger::Outcome;
use crate::quota::RATE_LIMIT;
use crate::reply::{self, ErrorFormat, REQUEST_ID};
use crate::session::Session;

// draft-ietf-httpapi-ratelimit-headers-11
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// An answer of a known length up to this may be taken before its head leaves.
const AT_ONCE: u64 = 64 << 10;

/// The response to an answered call. Its body settles and records as it ends; where there is none, that happens here.
pub(crate) async fn answer(
    mut account: Box<Account>,
    mut answered: Box<Answered>,
    core: Arc<Core>,
    session: Arc<Session>,
    format: ErrorFormat,
) -> Response<ReplyBody> {
    let head = &mut answered.head;
    account.record.status = head.status.as_u16();
    if let Ok(id) = HeaderValue::from_bytes(&account.record.id.hex()) {
        head.headers.insert(REQUEST_ID, id);
    }
    if let Some(rates) = account.take_rates() {
        head.headers.insert(RATE_LIMIT_POLICY, rates.policy);
        head.headers.insert(RATE_LIMIT, rates.limit);
    }
    if let Some(switched) = answered.switched.take() {
        return Relay::begin(account, answered, switched, (core, session)).map(ReplyBody::Switched);
    }
    if !answered.body.is_end_stream() {
        if answered.call.hides_usage {
            head.headers.remove(CONTENT_LENGTH);
        }
        let short = answered.body.size_hint().exact().is_some_and(|length| length <= AT_ONCE);
        let (mut head, mut body) = MeteredBody::new(account, answered, core, session);
        if short {
            body.settle().await;
        }
        injection::forget_digests(&mut head.headers, body.seen());
        if !body.is_end_stream() {
            body.watch();
        }
        return Response::from_parts(head, ReplyBody::Metered(body));
    }
    let Answered { mut head, call, lease, scrubber, .. } = *answered;
    if scrubber.is_some() {
        // Of a body that would be there without HEAD or If-None-Match.
        injection::forget_digests(&mut head.headers, Seen::NotYet);
    }
    lease.finish();
    account.record.outcome = Outcome::Completed;
    let id = account.record.id;
    let usage = match call.metered() {
        _ if !head.status.is_success() => LearntUsage::Unbilled,
        None => LearntUsage::Plain,
        Some(_) => LearntUsage::Unknown { units: Default::default(), told: AnswerFacts::default() },
    };
    let written = match account.close(usage) {
        Ok(Some(at)) => core.journal.written(at).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match written {
        Ok(()) => Response::from_parts(head, ReplyBody::Full(Bytes::new())),
        Err(_) => {
            let denial =
                Denial::new(Reason::LedgerUnavailable, "the call was made, but could not be recorded")
                    .repeatable(false);
            reply::refusal(&denial, id, format, false).map(ReplyBody::Full)
        }
    }
}
