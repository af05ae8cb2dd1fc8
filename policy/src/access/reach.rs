//! What two policies decide on the calls of one kind of callers to one host.

use std::sync::Arc;

use jiff::Timestamp;

use super::universe::{self, RequestClass};
use crate::caller::Caller;
use crate::decision::{Actions, CallerGrants, Facts};
use crate::denial::{Denial, Reason};
use crate::name::ResourceId;
use crate::operation::{Operation, RequestLine};
use crate::pattern::CallerPattern;
use crate::policy::{Destination, Grant, HttpDestination, Policy, Protocol};

/// A host and port, as one policy has it.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) policy: &'a Policy,
    host: &'a str,
    port: u16,
    /// What is there; `None`: nothing.
    pub(super) destination: Option<&'a Arc<Destination>>,
}

/// A place that is called: of all places that both policies give to the same destinations, one.
#[derive(Clone, Copy)]
pub(super) struct ComparedHost<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) old: Side<'a>,
    pub(super) new: Side<'a>,
}

/// What grants say of one caller: for each policy, those that name it, each with the pattern by which it does.
pub(super) type Named<'a> = [Vec<(&'a ResourceId, &'a CallerPattern)>; 2];

/// A call, and what both policies say to it: the grant that permits it, or why none does.
#[derive(Debug, Clone)]
pub(super) struct Verdicts {
    pub(super) request: RequestClass,
    pub(super) model: Option<Arc<str>>,
    pub(super) actions: Actions,
    pub(super) old: Result<Arc<Grant>, Reason>,
    pub(super) new: Result<Arc<Grant>, Reason>,
}

impl<'a> Side<'a> {
    pub(super) fn at(policy: &'a Policy, host: &'a str, port: u16) -> Self {
        let name = policy.target(host, port).ok().map(|target| target.destination().name.clone());
        Self { policy, host, port, destination: name.and_then(|name| policy.destination(name.as_str())) }
    }

    /// The grants for what is there.
    pub(super) fn grants(&self) -> impl Iterator<Item = &'a Arc<Grant>> {
        let name = self.destination.map(|destination| &destination.name);
        self.policy.grants().filter(move |grant| Some(&grant.destination.name) == name)
    }

    fn http(&self) -> Option<&'a Arc<HttpDestination>> {
        self.destination.and_then(|destination| destination.http())
    }

    /// Whether a body is read for its model.
    fn has_facts(&self, request: &RequestClass) -> bool {
        let endpoint = self.http().and_then(|http| http.dialect.endpoint(&request.method, &request.path));
        endpoint.is_some_and(|endpoint| endpoint.has_facts())
    }

    fn decide(
        &self,
        grants: &CallerGrants,
        request: &RequestClass,
        facts: &Facts,
        now: Timestamp,
    ) -> Result<Arc<Grant>, Denial> {
        let target = self.policy.target(self.host, self.port)?;
        let operation = match target.destination().protocol {
            Protocol::Tcp(_) => Operation::Tunnel,
            Protocol::Postgres => Operation::DatabaseSession,
            Protocol::Http(_) => {
                let authority = format!("{}:{}", self.host, self.port);
                let line = RequestLine {
                    authority: &authority,
                    method: &request.method,
                    path: &request.path,
                    query: None,
                };
                Operation::Http(self.policy.resolve(&line)?.1)
            }
        };
        let permit = self.policy.admit(grants, target, operation)?.permit(facts, now)?;
        Ok(Arc::clone(permit.grant()))
    }
}

impl ComparedHost<'_> {
    /// The verdicts on calls of every class that this caller can make here.
    pub(super) fn verdicts(&self, caller: &Caller, now: Timestamp) -> Vec<Verdicts> {
        let sides = [self.old, self.new];
        let held = sides.map(|side| side.policy.grants_of(caller));
        let is_here = |side: Side<'_>, grant: &Arc<Grant>| {
            side.destination.is_some_and(|destination| destination.name == grant.destination.name)
        };
        let named = sides
            .iter()
            .zip(&held)
            .flat_map(|(side, held)| held.iter().filter(|grant| is_here(*side, grant)));
        let named: Vec<&Arc<Grant>> = named.collect();
        let http: Vec<&Arc<HttpDestination>> = sides.iter().filter_map(Side::http).collect();
        let models = universe::models(&named, &http, (self.new.policy.catalog(), now));
        let actions = universe::actions(&named);
        let mut verdicts = Vec::new();
        for request in universe::requests(&named, &http) {
            let reads = sides.map(|side| side.has_facts(&request));
            for model in models.iter().filter(|model| model.is_none() || reads.contains(&true)) {
                for actions in &actions {
                    let decide = |index: usize| {
                        let model = model.clone().filter(|_| reads[index]);
                        let facts = Facts { model, actions: actions.clone(), ..Facts::default() };
                        let decided = sides[index].decide(&held[index], &request, &facts, now);
                        decided.map_err(|denial| denial.reason)
                    };
                    let (request, model, actions) = (request.clone(), model.clone(), actions.clone());
                    verdicts.push(Verdicts { request, model, actions, old: decide(0), new: decide(1) });
                }
            }
        }
        verdicts
    }
}
