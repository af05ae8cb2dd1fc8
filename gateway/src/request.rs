//! The route of one request. `handle` observes; `forward` is the route, stage by stage.
//!
//! **Invariant:** stages never call one another; what each has proven is a value that the next one takes.

use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use tollgate_policy::denial::Denial;

use crate::attempt::Dispatch;
use crate::caller_body::{BodyDiscard, Leftover};
use crate::core::Core;
use crate::fault::{self, Stage};
use crate::identity::RequestHead;
use crate::incoming::IncomingBody;
use crate::injection::{self, Template};
use crate::metering::{self, Account, Answered, ReplyBody};
use crate::reply::{self, ErrorFormat};
use crate::session::Session;

/// Answers one request, and sees to it that it is recorded once, however it ends.
///
/// What the futures of the route hold is boxed or borrowed: a future keeps an argument twice, and every call pays for its size.
pub(crate) async fn handle(
    core: Arc<Core>,
    session: Arc<Session>,
    request: Box<Request<Incoming>>,
) -> Response<ReplyBody> {
    let mut format = ErrorFormat::of(&request).to(session.mode.shown_to());
    let mut account =
        Account::open(Arc::clone(&core), crate::websocket::asked_method(&request), request.headers());
    let mut leftover = None;
    let route =
        fault::caught(pin!(forward(&core, &session, request, &mut leftover, &mut account, &mut format)))
            .await;
    let discard = account.discard(leftover, &route);
    let response = match route {
        Ok(answered) => metering::answer(account, answered, core, session, format).await,
        Err(denial) => {
            let id = account.refuse(&denial);
            reply::refusal(&denial, id, format, session.body_was_dropped()).map(ReplyBody::Full)
        }
    };
    BodyDiscard::over(discard, response.body().is_settled()).await;
    response
}

async fn forward(
    core: &Core,
    session: &Session,
    request: Box<Request<Incoming>>,
    leftover: &mut Option<Leftover>,
    account: &mut Account,
    format: &mut ErrorFormat,
) -> Result<Box<Answered>, Denial> {
    let (faults, (parts, body)) = (fault::Faults::of(&request), request.into_parts());
    let body = session.body(IncomingBody::new(body, parts.version), &parts.headers, leftover);
    let snapshot = core.snapshot()?;

    faults.at(Stage::Identity);
    let mut head = RequestHead::read(parts, core.shared.limits.head_bytes, session.mode.shown_to())?;
    format.read(&head);
    let (trust, usages, now) = (&core.shared.trust, &core.shared.usages, account.begun());
    let context = session.proofs.authenticate(&mut head.credentials, trust, usages, &snapshot, now)?;
    account.identified(&context, &snapshot)?;

    faults.at(Stage::Target);
    let policy = &snapshot.policy;
    let resolved = session.mode.resolve(policy, &head.line(), |to, asked| account.targeted(to, asked));
    let (target, request) = resolved.inspect_err(|_| account.misdirected(&head.line()))?;
    format.addressed(&request);

    faults.at(Stage::Admit);
    let admission = policy.admit(context.grants(), target, request.upgrading(head.upgrade()?).into())?;

    faults.at(Stage::Facts);
    if metering::is_large(&body) || admission.session().is_some() {
        let (caller, least) = (context.caller().id(), metering::least(admission.endpoint()));
        core.shared.quota.first_look(admission.grants(), caller, &least, account.begun())?;
    }
    let body = metering::read(&admission, &head, body, context.usage(), core).await?;
    account.inspected(&body, &admission);

    faults.at(Stage::Permit);
    let now = body.judged_at(account.begun());
    let permit = admission.permit(body.facts(), now)?;
    let (call, body) = body.permitted(permit)?;
    account.permitted(&call);

    faults.at(Stage::Template);
    let mut template = Template::new(head, &call.permit, now)?;

    faults.at(Stage::Hold);
    let (call, hold) = body.held(call, core, (policy, context.grants()), now).await?;
    account.hold(&call, hold);
    template.carry(body.render(&call, core.shared.limits.min_rate()).await?, &call.permit);
    account.journal_hold()?;

    let dispatch = Dispatch { core, session, context: &context, snapshot: &snapshot, call: &call, faults };
    let (answer, key) = dispatch.send(&mut template, account).await?;
    let mut answered = Answered::new(answer, call, key, &context, faults).switched(&template)?;

    faults.at(Stage::Scrub);
    let has_body = !answered.body.is_end_stream();
    let Answered { head, call, key, .. } = &mut *answered;
    answered.scrubber = injection::answer_head(head, has_body, &call.permit, key.as_ref(), &core.prepared)?;
    Ok(answered)
}
