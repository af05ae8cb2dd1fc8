//! The route of a connection that is passed through. `open` goes as far as the destination and may refuse, so that a listener can still
//! answer; `relay` carries the bytes of one that is open.
//!
//! **Invariant:** nothing leaves for a destination before identity, policy, quota and journal have let it, and exactly one record says what
//! became of the connection. What is open ends within seconds of being permitted no longer, and not as if it had ended well.

mod budget;
mod client_hello;
mod relay;

use std::pin::pin;
use std::sync::Arc;

use http::{HeaderMap, Method};
use jiff::Timestamp;
use tollgate_policy::decision::{CallerGrants, Facts};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::operation::Operation;
use tollgate_policy::policy::Policy;
use tollgate_policy::target::{Passage, Target, TunnelAuthority};

use self::budget::Budget;
pub(crate) use self::client_hello::Hello;
pub(crate) use self::relay::OpenTunnel;
use crate::attempt;
use crate::caller_occupancy::OccupancySlot;
use crate::core::Core;
use crate::fault;
use crate::identity::CallerCredentials;
use crate::ledger::RecordId;
use crate::metering::{Account, LastingProof, PermittedCall, Reauthorizer, RelayWatch, TimeBounds, Traffic};
use crate::session::Session;
use crate::upstream::{ClientCert, Outbound, TlsParams};

/// Where a connection is to lead.
#[derive(Clone, Debug)]
pub(crate) enum Towards<'a> {
    /// To the host and port, or the address of the mesh, that the caller names.
    Authority(&'a TunnelAuthority),
    /// To the destination that the listener names.
    Destination(&'a str),
    /// To whatever server the caller's own TLS is for.
    AnyServer,
}

/// What is asked for.
pub(crate) struct TunnelRequest<'a> {
    pub(crate) towards: Towards<'a>,
    /// What the caller's own TLS begins with, where it was read already, or why it could not be: [`Passage::ByServerName`] cannot do
    /// without.
    pub(crate) hello: Result<Option<Hello>, Denial>,
    /// What was shown with the request beside what its connection has shown.
    pub(crate) credentials: CallerCredentials,
    /// Its place among the connections of its caller, where it is not its session's own.
    pub(crate) place: Option<Arc<OccupancySlot>>,
}

/// Why there is no tunnel, and the id of its record.
#[derive(Debug)]
pub(crate) struct RefusedTunnel {
    pub(crate) denial: Denial,
    pub(crate) id: RecordId,
}

/// Opens a connection to where it is to lead.
///
/// # Errors
/// Why there is none; that is recorded.
pub(crate) async fn open(
    core: &Arc<Core>,
    session: &Arc<Session>,
    request: TunnelRequest<'_>,
) -> Result<OpenTunnel, RefusedTunnel> {
    let mut account = Account::open(Arc::clone(core), &Method::CONNECT, &HeaderMap::new());
    let connected = fault::caught(pin!(connect(core, session, request, &mut account))).await;
    match connected {
        Ok(connected) => Ok(OpenTunnel::new(connected, account)),
        Err(denial) => Err(RefusedTunnel { id: account.refuse(&denial), denial }),
    }
}

/// A connection that leads where it may.
struct Reached {
    link: Outbound,
    reauthorizer: Reauthorizer,
    watch: RelayWatch,
    traffic: Arc<Traffic>,
    budget: Arc<Budget>,
    hello: Option<Hello>,
    place: Option<Arc<OccupancySlot>>,
}

async fn connect(
    core: &Arc<Core>,
    session: &Arc<Session>,
    request: TunnelRequest<'_>,
    account: &mut Account,
) -> Result<Reached, Denial> {
    let TunnelRequest { towards, hello, mut credentials, place } = request;
    let (snapshot, shared, now) = (core.snapshot()?, &core.shared, account.begun());
    let context =
        session.proofs.authenticate(&mut credentials, &shared.trust, &shared.usages, &snapshot, now)?;
    account.identified(&context, &snapshot)?;

    let passage = towards.passage(&snapshot.policy, context.grants())?;
    account.leads_among(passage.as_ref());
    let hello = hello?;
    if let Some(hello) = &hello {
        account.asks_for(hello.server());
    }
    let target = target(&snapshot.policy, passage, hello.as_ref())?;
    account.leads_to(&target);

    let admission = snapshot.policy.admit(context.grants(), target, Operation::Tunnel)?;
    let call = PermittedCall::passed_through(admission.permit(&Facts::default(), now)?);
    account.permitted(&call);

    let hold = shared.quota.hold_soon(&call.permit, None, &call.demand(), Timestamp::now()).await?;
    account.hold(&call, hold);
    account.journal_hold()?;
    account.written().await?;

    let destination = call.permit.destination();
    let shown = attempt::certificate(core, &snapshot, destination, account).await?;
    let client_cert = shown.as_ref().map(|(credential, secret)| ClientCert { credential, secret });
    let client = snapshot.tls(&destination.name).ok_or_else(attempt::no_tls)?;
    account.begin_attempt();
    let link =
        Outbound::for_permit(&core.pool, &shared.rules, TlsParams { client, client_cert }, &call.permit);
    let link =
        link.await.map_err(|error| attempt::failed(core, &call.permit, &error, client_cert, account))?;
    let traffic = account.opened(&link, client_cert);
    let allowance = account.allowance();
    // Nor longer than the window in which it counts.
    let lifetimes = [destination.tcp().and_then(|tcp| tcp.lifetime), allowance.lasts];
    let lifetime = lifetimes.into_iter().flatten().min();
    let budget = Arc::new(Budget::new(Arc::clone(&traffic), allowance));
    let time = TimeBounds { idle: destination.timeouts.idle, lifetime };
    let watch = RelayWatch::new(shared.drain.watch(), LastingProof::AtOnce(Box::new(context)), time);
    let reauthorizer =
        Reauthorizer::new(Arc::clone(core), Arc::clone(session), Arc::clone(&call), snapshot.generation);
    Ok(Reached { link, reauthorizer, watch, traffic, budget, hello, place })
}

impl Towards<'_> {
    /// Where it leads, as far as the caller does not say; `None`: to whatever server it is for.
    fn passage(&self, policy: &Policy, grants: &CallerGrants) -> Result<Option<Passage>, Denial> {
        let authority = match self {
            Self::Authority(authority) => authority,
            Self::Destination(name) => return policy.passage_to(name).map(Some),
            Self::AnyServer => return Ok(None),
        };
        let passage = grants.reach(policy.tunnel(authority)?)?.passage()?;
        let detail = "connections are not passed through to this host: it is called by HTTP";
        passage.map(Some).ok_or_else(|| Denial::new(Reason::NoGrant, detail))
    }
}

fn target(policy: &Policy, passage: Option<Passage>, hello: Option<&Hello>) -> Result<Target, Denial> {
    match (passage, hello) {
        (Some(passage), Some(hello)) => passage.server(hello.server()),
        (None, Some(hello)) => policy.server(hello.server()),
        (Some(Passage::To(target)), None) => Ok(target),
        (Some(Passage::ByServerName(_)) | None, None) => {
            Err(Denial::new(Reason::SniMissing, "nothing says which host is meant"))
        }
    }
}
