//! The route of one request. `handle` observes; `forward` is the route, stage by stage.
//!
//! **Invariant:** stages never call one another; what each has proven is a value that the next one takes.

use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use jiff::Timestamp;
use tollgate_policy::denial::Denial;

use crate::attempt::{Answered, Way};
use crate::caller_body::CallerBody;
use crate::fault::{self, Stage};
use crate::identity::Head;
use crate::injection::{self, Template};
use crate::listener::Connection;
use crate::metering::{self, Meter};
use crate::reply::{self, Dress, ReplyBody};

/// Answers one request, and sees to it that it is recorded once, however it ends.
///
/// What the futures of the route hold is boxed or borrowed: a future keeps an argument twice, and every call pays for its size.
pub(crate) async fn handle(
    connection: Arc<Connection>,
    request: Box<Request<Incoming>>,
) -> Response<ReplyBody> {
    let mut dress = Dress::of(&request);
    let mut meter = Meter::open(&connection.core, request.method());
    let route = fault::caught(pin!(forward(&connection, request, &mut meter, &mut dress))).await;
    match route {
        Ok(answered) => metering::answer(meter, answered, connection, dress).await,
        Err(denial) => {
            let id = meter.refuse(&denial);
            let unread = connection.body().is_some_and(|body| body.was_dropped());
            let mut response = reply::refusal(&denial, id, dress);
            if unread {
                reply::announce_close(&mut response);
            }
            response
        }
    }
}

async fn forward(
    connection: &Connection,
    request: Box<Request<Incoming>>,
    meter: &mut Meter,
    dress: &mut Dress,
) -> Result<Box<Answered>, Denial> {
    let core = &*connection.core;
    let faults = fault::Faults::of(&request);
    let (parts, body) = request.into_parts();
    let body = CallerBody::new(body, connection.body());

    let snapshot = core.snapshot()?;

    faults.at(Stage::Identity);
    let head = Head::read(parts, core.shared.limits.head_bytes)?;
    dress.read(&head);
    let context = connection.caller(&snapshot, meter.begun())?;
    meter.identified(&context, &snapshot)?;

    faults.at(Stage::Target);
    let target = snapshot.policy.target(&head.line())?;
    meter.targeted(&target);
    dress.addressed(&target);
    head.stays_http()?;

    faults.at(Stage::Admit);
    let admission = snapshot.policy.admit(context.grants(), target, head.method.as_str())?;

    faults.at(Stage::Facts);
    if metering::is_large(&body) {
        let (caller, least) = (context.caller().id(), metering::least(admission.endpoint()));
        core.shared.quota.first_look(admission.grants(), caller, &least, meter.begun())?;
    }
    let asked = metering::read(&admission, &head, body, context.usage(), &core.shared).await?;
    meter.asked(&asked, &admission);

    faults.at(Stage::Permit);
    // The body may have taken its time: prices and windows are those of now.
    let now = Timestamp::now();
    let permit = admission.permit(asked.facts(), now)?;
    let bound = asked.bound(&permit)?;
    meter.permitted(&permit, &asked, bound.as_ref());

    faults.at(Stage::Template);
    let cause = asked.cause();
    let (body, room) = asked.into_body(bound.as_ref(), &permit, core.shared.limits.least());
    let mut template = Template::new(head, &permit, body, room)?;

    faults.at(Stage::Hold);
    let hold = core.shared.quota.hold(&permit, &metering::demand(bound.as_ref()), now);
    let hold = hold.map_err(|denial| metering::explained(denial, cause.as_deref()))?;
    meter.hold(hold, &permit)?;

    let way = Way { connection, snapshot: &snapshot, faults };
    let (answer, key) = way.send(&permit, &mut template, meter).await?;
    let mut answered = Answered::new(answer, permit, key, faults);

    faults.at(Stage::Scrub);
    let has_body = !answered.body.is_end_stream();
    let Answered { head, permit, key, .. } = &mut *answered;
    answered.scrubber = injection::answer_head(head, has_body, permit, key.as_ref(), &core.prepared)?;
    Ok(answered)
}
