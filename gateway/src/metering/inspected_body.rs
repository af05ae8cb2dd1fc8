//! What the caller sent, read as far as the dialect asks for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use jiff::Timestamp;
use tollgate_policy::decision::{Actions, Admission, CallerGrants, Facts, Permit, Priced};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::Endpoint;
use tollgate_policy::limit::{LimitKind, OnExhausted};
use tollgate_policy::operation::HttpRequest;
use tollgate_policy::policy::Policy;
use tollgate_policy::price::NanoUsd;

use super::action;
use super::bound::{self, Bound, Terms};
use super::facts::{self, Marks, ReadBody};
use super::offload::{self, GatheredBody};
use super::permitted::PermittedCall;
use crate::caller_body::CallerBody;
use crate::caller_occupancy::{BufferReservation, CallerOccupancy};
use crate::core::Core;
use crate::identity::RequestHead;
use crate::injection;
use crate::min_rate::{MinRate, MinRateClock};
use crate::quota::{Demand, Hold, TokenDemand};
use crate::timers::Timers;
use crate::upstream::OutBody;

/// Before a body of more bytes is read it is looked whether the caller has anything left.
const WORTH_A_LOOK: u64 = 64 << 10;

/// After so many bytes of a body the other calls of its core have their turn: hyper reads up to 16 pieces in one.
const TURN: usize = 64 << 10;

/// A request's body and what it says.
#[derive(Debug)]
pub(crate) struct InspectedBody {
    content: BodyContent,
    read: ReadBody,
    /// Whether it was waited for.
    took_time: bool,
}

/// The body of a permitted call, without the edits that are made in it.
#[derive(Debug)]
pub(crate) struct UnsentBody {
    content: BodyContent,
    marks: Marks,
}

#[derive(Debug)]
enum BodyContent {
    Whole { bytes: Bytes, reservation: BufferReservation },
    Streaming(CallerBody),
}

/// Reads the body where a grant that may still apply, the endpoint's usage or a signature asks for it. Everything else streams.
///
/// # Errors
/// `body_too_large`, `concurrency_limited` where the caller has no room left for held bodies, what [`facts::read`] refuses with, and
/// likewise a form that may name an action in a way that is not read.
pub(crate) async fn read(
    admission: &Admission,
    head: &RequestHead,
    incoming: CallerBody,
    usage: &Arc<CallerOccupancy>,
    core: &Core,
) -> Result<InspectedBody, Denial> {
    if let Some(endpoint) = admission.session() {
        let read = facts::of_session(endpoint, admission.http().and_then(HttpRequest::query))?;
        return Ok(InspectedBody { content: BodyContent::Streaming(incoming), read, took_time: false });
    }
    let share = usize::try_from(usage.largest_body()).unwrap_or(usize::MAX);
    let limits = &core.shared.limits;
    let limit = limits.body_bytes.min(share);
    let headers = &head.headers;
    let endpoint = admission.endpoint().filter(|_| admission.reads_body());
    let signed = action::SignedAction::of(admission, head);
    let may_name = !incoming.is_end_stream() && signed.is_some_and(action::SignedAction::may_be_in_body);
    let named = |form: &[u8]| signed.map_or_else(|| Ok(Actions::default()), |signed| signed.named(form));
    let signs = || admission.signs_body(injection::has_digest(headers)) && !incoming.is_end_stream();
    if endpoint.is_none() && !may_name && !signs() {
        let body_bytes = incoming.size_hint().exact().unwrap_or(0);
        let facts = Facts { body_bytes, actions: named(&[])?, ..Facts::default() };
        return Ok(InspectedBody {
            content: BodyContent::Streaming(incoming),
            read: ReadBody::unread(facts),
            took_time: false,
        });
    }
    if may_name {
        action::check_form(headers)?;
    }
    let most = if may_name && limit > action::FORM_BYTES {
        Most { bytes: action::FORM_BYTES, refusal: action::too_long }
    } else {
        Most { bytes: limit, refusal: too_large }
    };
    let body = collect(incoming, most, usage, limits.min_rate(), &core.timers).await?;
    let (mut read, HeldBody { bytes, reservation, took_time }) = match endpoint {
        Some(endpoint) => {
            let (read, body) = read_facts(endpoint, headers, body, usage).await?;
            if let Some(query) = admission.http().and_then(HttpRequest::query) {
                facts::check_query(&endpoint.request, query, &read.facts)?;
            }
            (read, body)
        }
        None => (ReadBody::unread(Facts { body_bytes: body.bytes.len() as u64, ..Facts::default() }), body),
    };
    read.facts.actions = named(if may_name { &bytes } else { &[] })?;
    Ok(InspectedBody { content: BodyContent::Whole { bytes, reservation }, read, took_time })
}

/// Whether a body is, or may be, so large that it is looked first whether it is worth reading.
pub(crate) fn is_large(incoming: &CallerBody) -> bool {
    incoming.size_hint().exact().is_none_or(|length| length > WORTH_A_LOOK)
}

/// A body that came whole, and the room that it takes up.
struct HeldBody {
    bytes: Bytes,
    reservation: BufferReservation,
    took_time: bool,
}

async fn read_facts(
    endpoint: &Arc<Endpoint>,
    headers: &HeaderMap,
    body: HeldBody,
    usage: &CallerOccupancy,
) -> Result<(ReadBody, HeldBody), Denial> {
    if !offload::is_large(body.bytes.len()) {
        return Ok((facts::read(endpoint, headers, &body.bytes)?, body));
    }
    // Boxed: otherwise the future of every call is as large as this one.
    Box::pin(read_apart(endpoint, headers, body, usage)).await
}

/// The same on a thread of its own.
async fn read_apart(
    endpoint: &Arc<Endpoint>,
    headers: &HeaderMap,
    body: HeldBody,
    usage: &CallerOccupancy,
) -> Result<(ReadBody, HeldBody), Denial> {
    // Of one caller one is read at a time.
    let turns = (usage.reading_turn().await, offload::turn().await?);
    let (endpoint, headers) = (Arc::clone(endpoint), headers.clone());
    let parse = move || {
        // Neither the turns nor the room are free when nobody waits for it any more.
        let _turns = turns;
        facts::read(&endpoint, &headers, &body.bytes).map(|read| (read, body))
    };
    offload::run(parse).await?
}

/// How much of a body is read, and what becomes of more.
struct Most {
    bytes: usize,
    refusal: fn() -> Denial,
}

async fn collect(
    mut incoming: CallerBody,
    most: Most,
    usage: &Arc<CallerOccupancy>,
    least: MinRate,
    timers: &Timers,
) -> Result<HeldBody, Denial> {
    let announced = incoming.size_hint().exact();
    if announced.is_some_and(|length| length > most.bytes as u64) {
        return Err((most.refusal)());
    }
    let mut first = Bytes::new();
    let mut all: Option<GatheredBody> = None;
    let mut reservation = BufferReservation::of(announced);
    // A body that comes with its head is not waited for.
    let mut rate_clock: Option<MinRateClock> = None;
    let mut of_turn = 0;
    while !incoming.is_end_stream() {
        let length = all.as_ref().map_or(first.len(), GatheredBody::len);
        let frame = match incoming.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                let due = rate_clock.get_or_insert_with(|| MinRateClock::new(least)).due();
                timers.until(due, incoming.frame()).await.map_err(|_| too_slow())?
            }
        };
        let Some(frame) = frame else { break };
        let frame = frame
            .map_err(|_| Denial::new(Reason::BadRequest, "the request body broke off or is malformed"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        let taken = chunk.len();
        if let Some(rate_clock) = &mut rate_clock {
            rate_clock.came(taken);
        }
        if length + taken > most.bytes {
            return Err((most.refusal)());
        }
        if !reservation.grow((length + taken) as u64, usage) {
            return Err(no_room());
        }
        match &mut all {
            Some(all) => all.extend(&chunk).await?,
            // A body in one piece is not copied.
            None if first.is_empty() => first = chunk,
            None => {
                let known = announced.and_then(|length| usize::try_from(length).ok());
                let mut joined = GatheredBody::with_capacity(known.unwrap_or((first.len() + taken) * 2));
                joined.extend(&first).await?;
                joined.extend(&chunk).await?;
                all = Some(joined);
            }
        }
        of_turn += taken;
        if of_turn >= TURN {
            of_turn = 0;
            tokio::task::yield_now().await;
        }
    }
    let took_time = rate_clock.is_some() || all.is_some();
    Ok(HeldBody { bytes: all.map_or(first, GatheredBody::freeze), reservation, took_time })
}

fn no_room() -> Denial {
    let detail = "this workload, or all together, have too many bytes of request bodies under way";
    Denial::new(Reason::ConcurrencyLimited, detail).retry_after(Duration::from_secs(1))
}

/// Where a body comes so slowly that it keeps from others what its call holds.
pub(crate) fn too_slow() -> Denial {
    Denial::new(Reason::BadRequest, "the request body came too slowly (limits.minRate)")
}

fn too_large() -> Denial {
    Denial::new(
        Reason::BodyTooLarge,
        "the request body is larger than the gateway reads (limits.bodyBytes, or one caller's part of limits.heldBytes)",
    )
}

impl InspectedBody {
    pub(crate) const fn facts(&self) -> &Facts {
        &self.read.facts
    }

    /// The instant that prices and windows are judged at, of a call that began at this one: its body may have taken its time.
    pub(crate) fn judged_at(&self, begun: Timestamp) -> Timestamp {
        if self.took_time { Timestamp::now() } else { begun }
    }

    /// What is decided of the call, and the body that is sent for it.
    ///
    /// # Errors
    /// As [`most`].
    pub(crate) fn permitted(self, permit: Permit) -> Result<(Arc<PermittedCall>, UnsentBody), Denial> {
        if permit.grant().limits_content() {
            self.read.within_limits()?;
        }
        let bound = most(self.facts(), &permit)?;
        let (facts, marks) = self.read.into_parts();
        let call = PermittedCall::new(permit, facts, bound, marks.hides_usage());
        Ok((Arc::new(call), UnsentBody { content: self.content, marks }))
    }
}

/// The most that the call can use. `None` where nothing of it is limited.
///
/// # Errors
/// `unbounded_cost`, and what cannot be held to a limit at all.
fn most(facts: &Facts, permit: &Permit) -> Result<Option<Bound>, Denial> {
    let grant = permit.grant();
    let Some(endpoint) = permit.endpoint().filter(|e| e.metered && grant.limits_usage()) else {
        return Ok(None);
    };
    let price = match permit.price() {
        Priced::At(price) | Priced::Dearest(price) => Some(&**price),
        Priced::Free | Priced::Unpriced => None,
    };
    let terms = Terms { default_output_cap: grant.default_output_cap, assume: grant.assume };
    bound::bound(facts, endpoint, price, terms).map(Some)
}

impl UnsentBody {
    /// Holds what the call may use. Where a budget has not enough left and names a cheaper model, the call is made with that,
    /// if it may be: the same grant decides on it, and the body names the model.
    ///
    /// # Errors
    /// As [`crate::quota::Quota::hold`], of the cheaper call where there is one.
    pub(crate) async fn held(
        &self,
        call: Arc<PermittedCall>,
        core: &Core,
        (policy, grants): (&Policy, &Arc<CallerGrants>),
        now: Timestamp,
    ) -> Result<(Arc<PermittedCall>, Hold), Denial> {
        let quota = &core.shared.quota;
        let take = async |call: &PermittedCall| {
            quota.hold_soon(&call.permit, call.model(), &call.demand(), now).await
        };
        let denial = match take(&call).await {
            Ok(hold) => return Ok((call, hold)),
            Err(denial) => denial,
        };
        let Some(cheaper) = self.cheaper(&call, &denial, (policy, grants), now) else {
            return Err(call.explained(denial));
        };
        // What stands in the way of the cheaper one is another limit, and that is what the caller has to hear of.
        match Box::pin(take(&cheaper)).await {
            Ok(hold) => Ok((cheaper, hold)),
            Err(denial) => Err(cheaper.explained(denial)),
        }
    }

    /// The same call with the model that the budget names which refused it.
    #[cold]
    fn cheaper(
        &self,
        call: &PermittedCall,
        denial: &Denial,
        (policy, grants): (&Policy, &CallerGrants),
        now: Timestamp,
    ) -> Option<Arc<PermittedCall>> {
        let refused_by = denial.limit.as_ref().filter(|_| denial.reason == Reason::BudgetExhausted)?;
        let mut limits = call.permit.grant().limits.iter();
        let OnExhausted::Downgrade(model) = &limits.find(|limit| limit.id == refused_by.id)?.on_exhausted
        else {
            return None;
        };
        if !self.marks.names_model() || !matches!(self.content, BodyContent::Whole { .. }) {
            return None;
        }
        let facts = Facts { model: Some(Arc::clone(model)), ..call.facts.clone() };
        // A query that names the model as the body did would name another one now.
        let query = call.permit.http().and_then(HttpRequest::query);
        if let (Some(query), Some(endpoint)) = (query, call.permit.endpoint()) {
            facts::check_query(&endpoint.request, query, &facts).ok()?;
        }
        let permit = policy.permit_instead(grants, &call.permit, &facts, now)?;
        let most = most(&facts, &permit).ok()?;
        Some(call.downgraded(permit, facts, most))
    }

    /// The body to send, as it came or with its edits, and the room that it takes up until it is no longer needed.
    /// One that streams has to come at the minimum rate where its call holds what others share.
    ///
    /// # Errors
    /// As [`offload::run`].
    pub(crate) async fn render(
        self,
        call: &PermittedCall,
        least: MinRate,
    ) -> Result<(OutBody, BufferReservation), Denial> {
        let permit = &call.permit;
        Ok(match self.content {
            BodyContent::Streaming(incoming) if incoming.is_end_stream() => {
                (OutBody::Whole(Bytes::new()), BufferReservation::default())
            }
            BodyContent::Streaming(incoming) => {
                let rate_clock = holds_shared(permit).then(|| MinRateClock::new(least));
                (
                    OutBody::streaming(incoming, permit.destination().timeouts.idle, rate_clock),
                    BufferReservation::default(),
                )
            }
            BodyContent::Whole { bytes, reservation } => {
                let cap = call.bound.and_then(|bound| bound.write_cap);
                let edits = self.marks.edits(cap, call.model_instead());
                let is_copied = !edits.is_empty() && offload::is_large(bytes.len());
                if is_copied {
                    // The room is not free before the thread is done with it.
                    let edit = move || (offload::freed_apart(facts::apply(&edits, bytes)), reservation);
                    let (edited, reservation) = Box::pin(offload::run(edit)).await?;
                    (OutBody::Whole(edited), reservation)
                } else {
                    (OutBody::Whole(facts::apply(&edits, bytes)), reservation)
                }
            }
        })
    }
}

/// Whether a call holds something that others wait for: part of a budget, or a place.
pub(super) fn holds_shared(permit: &Permit) -> bool {
    let is_bounded = permit.destination().resilience.circuit_breaker.max_requests.is_some();
    is_bounded || permit.grant().limits.iter().any(|limit| !matches!(limit.kind, LimitKind::Gcra { .. }))
}

/// What every call of this endpoint asks of its limits, whatever its body says.
pub(crate) fn least(endpoint: Option<&Arc<Endpoint>>) -> Demand {
    let is_billed =
        endpoint.is_some_and(|endpoint| (endpoint.metered || endpoint.session.is_some()) && !endpoint.free);
    let (tokens, spend) =
        if is_billed { (TokenDemand::most(bound::LEAST_TOKENS, 0), NanoUsd(1)) } else { Default::default() };
    Demand { requests: 1, tokens, spend, bytes: 0, seconds: 0 }
}
