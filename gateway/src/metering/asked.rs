//! What the caller sent, read as far as the dialect asks for it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use tollgate_policy::decision::{Admission, Facts, Permit, Priced};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::limit::Unit;
use tollgate_policy::policy::Grant;
use tollgate_policy::price::NanoUsd;

use super::estimate::{self, Bound, Terms};
use super::facts::{self, ReadBody};
use crate::load::{Load, Share};
use crate::quota::Demand;
use crate::upstream::OutBody;

/// Between two frames of a body that is read before it is sent.
const FRAME_LIMIT: Duration = Duration::from_secs(30);

/// A request's body and what it says.
#[derive(Debug)]
pub(crate) struct Asked {
    content: Content,
    read: ReadBody,
}

#[derive(Debug)]
enum Content {
    Whole { bytes: Bytes, _room: [Share; 2] },
    Streaming(Incoming),
}

/// Reads the body where a grant that may still apply, or the endpoint's usage, asks for it. Everything else streams.
///
/// # Errors
/// `body_too_large`, `concurrency_limited` where the caller has no room left for held bodies, and what [`facts::read`] refuses with.
pub(crate) async fn read(
    admission: &Admission,
    headers: &HeaderMap,
    incoming: Incoming,
    load: &std::sync::Arc<Load>,
    limit: usize,
) -> Result<Asked, Denial> {
    let Some(endpoint) = admission.endpoint().filter(|_| admission.reads_body()) else {
        let facts = Facts { body_bytes: incoming.size_hint().exact().unwrap_or(0), ..Facts::default() };
        return Ok(Asked { content: Content::Streaming(incoming), read: ReadBody::unread(facts) });
    };
    let hint = incoming.size_hint();
    let most = hint.exact().unwrap_or(limit as u64);
    if most > limit as u64 {
        return Err(too_large());
    }
    let no_room = || {
        Denial::new(
            Reason::ConcurrencyLimited,
            "this workload has too many bytes of request bodies under way",
        )
        .retry_after(Duration::from_secs(1))
    };
    let room = load.buffer(most).ok_or_else(no_room)?;
    let bytes = collect(incoming, limit).await?;
    let read = facts::read(endpoint, headers, &bytes)?;
    Ok(Asked { content: Content::Whole { bytes, _room: room }, read })
}

async fn collect(mut incoming: Incoming, limit: usize) -> Result<Bytes, Denial> {
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    loop {
        let frame = timeout(FRAME_LIMIT, incoming.frame())
            .await
            .map_err(|_| Denial::new(Reason::BadRequest, "the request body came too slowly"))?;
        let Some(frame) = frame else { break };
        let frame = frame
            .map_err(|_| Denial::new(Reason::BadRequest, "the request body broke off or is malformed"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        let length = all.as_ref().map_or(first.len(), BytesMut::len);
        if length + chunk.len() > limit {
            return Err(too_large());
        }
        match &mut all {
            Some(all) => all.extend_from_slice(&chunk),
            // A body in one piece is not copied.
            None if first.is_empty() => first = chunk,
            None => {
                let mut joined = BytesMut::with_capacity((first.len() + chunk.len()) * 2);
                joined.extend_from_slice(&first);
                joined.extend_from_slice(&chunk);
                all = Some(joined);
            }
        }
    }
    Ok(all.map_or(first, BytesMut::freeze))
}

fn too_large() -> Denial {
    Denial::new(Reason::BodyTooLarge, "the request body is larger than the gateway reads (limits.bodyBytes)")
}

impl Asked {
    pub(crate) const fn facts(&self) -> &Facts {
        &self.read.facts
    }

    pub(crate) fn hides_usage(&self) -> bool {
        self.read.hides_usage()
    }

    /// The most that the call can use. `None` where nothing of it is limited.
    ///
    /// # Errors
    /// `unbounded_cost`, and what cannot be held to a limit at all.
    pub(crate) fn bound(&self, permit: &Permit) -> Result<Option<Bound>, Denial> {
        let grant = permit.grant();
        if !grant.limits_content() {
            return Ok(None);
        }
        self.read.within_limits()?;
        let Some(endpoint) = permit.endpoint().filter(|e| e.metered && limits_usage(grant)) else {
            return Ok(None);
        };
        let price = match permit.price() {
            Priced::At(price) | Priced::Dearest(price) => Some(&**price),
            Priced::Free | Priced::Unpriced => None,
        };
        let terms = Terms { default_output_cap: grant.default_output_cap, assume: grant.assume };
        estimate::bound(self.facts(), endpoint, price, terms).map(Some)
    }

    /// The body to send: as it came, or with its edits.
    pub(crate) fn into_body(self, bound: Option<&Bound>, permit: &Permit) -> OutBody {
        match self.content {
            Content::Streaming(incoming) if incoming.is_end_stream() => OutBody::Whole(Bytes::new()),
            Content::Streaming(incoming) => OutBody::streaming(incoming, permit.destination().timeouts.idle),
            Content::Whole { bytes, .. } => {
                let cap = bound.and_then(|bound| bound.write_cap);
                OutBody::Whole(facts::apply(&self.read.edits(cap), bytes))
            }
        }
    }
}

fn limits_usage(grant: &Grant) -> bool {
    grant.limits.iter().any(|limit| matches!(limit.unit, Unit::Tokens | Unit::Spend))
}

/// What a call with this bound asks of its limits.
pub(crate) fn demand(bound: Option<&Bound>) -> Demand {
    Demand {
        requests: 1,
        tokens: bound.map_or(0, |bound| bound.tokens),
        spend: bound.map_or(NanoUsd::ZERO, |bound| bound.spend),
    }
}
