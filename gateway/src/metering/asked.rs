//! What the caller sent, read as far as the dialect asks for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tollgate_policy::decision::{Actions, Admission, Facts, Permit, Priced};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::Endpoint;
use tollgate_policy::limit::Unit;
use tollgate_policy::policy::Grant;
use tollgate_policy::price::NanoUsd;

use super::action;
use super::estimate::{self, Bound, Terms};
use super::facts::{self, ReadBody};
use crate::caller_body::CallerBody;
use crate::identity::Head;
use crate::injection;
use crate::load::{Load, Room};
use crate::quota::Demand;
use crate::upstream::OutBody;

/// A body that is read before it is sent has this long, and more as it comes.
const HEAD_START: Duration = Duration::from_secs(30);
/// 16 KiB a second.
const LEAST_BYTES_PER_MS: u64 = 16;

/// A body of more bytes is parsed on a thread of its own: a core has others to serve meanwhile.
const LARGE: usize = 256 * 1024;
/// So many of them are parsed at once.
static LARGE_AT_ONCE: Semaphore = Semaphore::const_new(2);

/// A request's body and what it says.
#[derive(Debug)]
pub(crate) struct Asked {
    content: Content,
    read: ReadBody,
}

#[derive(Debug)]
enum Content {
    Whole { bytes: Bytes, room: Room },
    Streaming(CallerBody),
}

/// Reads the body where a grant that may still apply, the endpoint's usage or a signature asks for it. Everything else streams.
///
/// # Errors
/// `body_too_large`, `concurrency_limited` where the caller has no room left for held bodies, what [`facts::read`] refuses with, and
/// likewise a form that may name an action in a way that is not read.
pub(crate) async fn read(
    admission: &Admission,
    head: &Head,
    incoming: CallerBody,
    load: &Arc<Load>,
    limit: usize,
) -> Result<Asked, Denial> {
    let headers = &head.headers;
    let endpoint = admission.endpoint().filter(|_| admission.reads_body());
    let signed = action::Signed::of(admission, head);
    let may_name = !incoming.is_end_stream() && signed.is_some_and(action::Signed::may_be_in_body);
    let named = |form: &[u8]| signed.map_or_else(|| Ok(Actions::default()), |signed| signed.named(form));
    let signs = || admission.signs_body(injection::has_digest(headers)) && !incoming.is_end_stream();
    if endpoint.is_none() && !may_name && !signs() {
        let body_bytes = incoming.size_hint().exact().unwrap_or(0);
        let facts = Facts { body_bytes, actions: named(&[])?, ..Facts::default() };
        return Ok(Asked { content: Content::Streaming(incoming), read: ReadBody::unread(facts) });
    }
    if may_name {
        action::check_form(headers)?;
    }
    let most = if may_name && limit > action::FORM_BYTES {
        Most { bytes: action::FORM_BYTES, refusal: action::too_long }
    } else {
        Most { bytes: limit, refusal: too_large }
    };
    let (bytes, room) = collect(incoming, most, load).await?;
    let mut read = match endpoint {
        Some(endpoint) => {
            let read = read_facts(endpoint, headers, &bytes).await?;
            if let Some(query) = admission.target().query() {
                facts::check_query(&endpoint.request, query, &read.facts)?;
            }
            read
        }
        None => ReadBody::unread(Facts { body_bytes: bytes.len() as u64, ..Facts::default() }),
    };
    read.facts.actions = named(if may_name { &bytes } else { &[] })?;
    Ok(Asked { content: Content::Whole { bytes, room }, read })
}

async fn read_facts(endpoint: &Arc<Endpoint>, headers: &HeaderMap, body: &Bytes) -> Result<ReadBody, Denial> {
    if body.len() <= LARGE {
        return facts::read(endpoint, headers, body);
    }
    let failed = |_| Denial::new(Reason::Internal, "the request body could not be read");
    let turn = LARGE_AT_ONCE.acquire().await.map_err(|_| failed(()))?;
    let (endpoint, headers, body) = (Arc::clone(endpoint), headers.clone(), body.clone());
    let read = spawn_blocking(move || {
        // It is not over when nobody waits for it any more.
        let _turn = turn;
        facts::read(&endpoint, &headers, &body)
    });
    read.await.map_err(|_| failed(()))?
}

/// How much of a body is read, and what becomes of more.
struct Most {
    bytes: usize,
    refusal: fn() -> Denial,
}

async fn collect(mut incoming: CallerBody, most: Most, load: &Arc<Load>) -> Result<(Bytes, Room), Denial> {
    if incoming.size_hint().exact().is_some_and(|length| length > most.bytes as u64) {
        return Err((most.refusal)());
    }
    let mut first = Bytes::new();
    let mut all: Option<BytesMut> = None;
    let mut room = Room::default();
    let begun = Instant::now();
    loop {
        let length = all.as_ref().map_or(first.len(), BytesMut::len);
        // Time for what has come, at the least rate, and some to begin with.
        let due = begun + HEAD_START + Duration::from_millis(length as u64 / LEAST_BYTES_PER_MS);
        let frame = timeout_at(due, incoming.frame())
            .await
            .map_err(|_| Denial::new(Reason::BadRequest, "the request body came too slowly"))?;
        let Some(frame) = frame else { break };
        let frame = frame
            .map_err(|_| Denial::new(Reason::BadRequest, "the request body broke off or is malformed"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if length + chunk.len() > most.bytes {
            return Err((most.refusal)());
        }
        if !room.grow((length + chunk.len()) as u64, load) {
            return Err(no_room());
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
    Ok((all.map_or(first, BytesMut::freeze), room))
}

fn no_room() -> Denial {
    let detail = "this workload, or all together, have too many bytes of request bodies under way";
    Denial::new(Reason::ConcurrencyLimited, detail).retry_after(Duration::from_secs(1))
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

    /// What to add to a refusal that stems from how much this call may use.
    pub(crate) fn cause(&self) -> Option<String> {
        estimate::cause(self.facts())
    }

    /// The body to send, as it came or with its edits, and the room that it takes up until it is no longer needed.
    pub(crate) fn into_body(self, bound: Option<&Bound>, permit: &Permit) -> (OutBody, Room) {
        match self.content {
            Content::Streaming(incoming) if incoming.is_end_stream() => {
                (OutBody::Whole(Bytes::new()), Room::default())
            }
            Content::Streaming(incoming) => {
                (OutBody::streaming(incoming, permit.destination().timeouts.idle), Room::default())
            }
            Content::Whole { bytes, room } => {
                let cap = bound.and_then(|bound| bound.write_cap);
                (OutBody::Whole(facts::apply(&self.read.edits(cap), bytes)), room)
            }
        }
    }
}

fn limits_usage(grant: &Grant) -> bool {
    grant.limits.iter().any(|limit| matches!(limit.unit, Unit::Tokens | Unit::Spend))
}

/// The refusal of a budget, with what made the hold so large.
pub(crate) fn explained(denial: Denial, cause: Option<&str>) -> Denial {
    match cause {
        Some(cause) if matches!(denial.reason, Reason::BudgetHeld | Reason::BudgetExhausted) => Denial {
            detail: format!("{}. It may use that much because {cause}", denial.detail).into(),
            ..denial
        },
        _ => denial,
    }
}

/// What a call with this bound asks of its limits.
pub(crate) fn demand(bound: Option<&Bound>) -> Demand {
    Demand {
        requests: 1,
        tokens: bound.map_or(0, |bound| bound.tokens),
        spend: bound.map_or(NanoUsd::ZERO, |bound| bound.spend),
    }
}
