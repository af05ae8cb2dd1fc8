//! One call that a provider's API offers.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::Deserialize;

use super::Problems;
use super::request::{RequestRules, RequestText};
use super::response::{ResponseRules, ResponseText};
use super::session::{SessionRules, SessionText};

/// What a call to an endpoint is for. Only [`Class::Use`] is meant by a wildcard in a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The service itself: what one pays for.
    Use,
    /// Reads or changes what is stored in the account, which all users of the key share.
    AccountState,
    /// Hands out a credential that works without the gateway.
    MintsCredentials,
    /// Manages the account: members, keys, billing, certificates.
    Administers,
}

impl Class {
    /// The word in grants and catalog files.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::AccountState => "account-state",
            Self::MintsCredentials => "mints-credentials",
            Self::Administers => "administers",
        }
    }
}

/// One call that a provider's API offers.
#[derive(Debug)]
pub struct Endpoint {
    /// The method in upper case, or `*` for any.
    pub method: Arc<str>,
    /// The path: `*` is one segment, a last `**` any number of them, none included.
    pub path: Arc<str>,
    /// What the call is for.
    pub class: Class,
    /// It starts work that is billed after the answer: a batch, a training run.
    pub deferred: bool,
    /// What it used is read after it: off its answer, and what an answer does not tell off the request.
    pub metered: bool,
    /// What it uses can be bounded before it is made as well, so that token and spend limits can hold it.
    pub bounded: bool,
    /// It costs neither tokens nor money, so that token and spend limits let it pass.
    pub free: bool,
    /// `gen_ai.operation.name`, where OpenTelemetry has a name for it.
    pub operation: Option<Arc<str>>,
    /// How a request says what it may cost.
    pub request: Arc<RequestRules>,
    /// How an answer says what it did cost.
    pub response: Arc<ResponseRules>,
    /// How the messages are read that follow it on a WebSocket: each turn of it is metered and bounded, not the call.
    pub session: Option<Arc<SessionRules>>,
    /// What every path that matches begins with.
    prefix: Box<str>,
}

/// All of an endpoint that may bear on whether a call to it is permitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bearing {
    class: Class,
    deferred: bool,
    metered: bool,
    bounded: bool,
    free: bool,
    has_facts: bool,
    has_turns: bool,
}

impl Endpoint {
    /// What two endpoints have in common that are decided on alike.
    pub(crate) fn bearing(&self) -> Bearing {
        let Self {
            method: _,
            path: _,
            class,
            deferred,
            metered,
            bounded,
            free,
            operation: _,
            request,
            response: _,
            session,
            prefix: _,
        } = self;
        Bearing {
            class: *class,
            deferred: *deferred,
            metered: *metered,
            bounded: *bounded,
            free: *free,
            has_facts: !request.is_empty(),
            has_turns: session.is_some(),
        }
    }

    /// Whether the gateway has to edit streamed requests so that the provider reports usage at all.
    pub fn forces_usage(&self) -> bool {
        self.request.forces_usage()
    }

    /// Whether a request body names a model, caps and the like: it is JSON, and the catalog knows its members.
    pub fn has_facts(&self) -> bool {
        !self.request.is_empty()
    }

    /// Whether the path has no wildcard.
    pub(super) fn is_literal(&self) -> bool {
        !self.path.contains('*')
    }

    pub(super) fn takes(&self, method: &str) -> bool {
        &*self.method == "*" || &*self.method == method
    }

    pub(super) fn matches(&self, method: &str, path: &str) -> bool {
        if !self.takes(method) || !path.starts_with(&*self.prefix) {
            return false;
        }
        let mut pattern = self.path.split('/');
        let mut segments = path.split('/');
        loop {
            match (pattern.next(), segments.next()) {
                (Some("**"), _) | (None, None) => return true,
                (Some("*"), Some(segment)) if !segment.is_empty() => {}
                (Some(literal), Some(segment)) if literal == segment && literal != "*" => {}
                _ => return false,
            }
        }
    }

    /// The more literal path first; then the named method before any.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        let rank = |segment: &str| match segment {
            "**" => 2,
            "*" => 1,
            _ => 0,
        };
        let ranks = |path: &str| path.split('/').map(rank).collect::<Vec<u8>>();
        let (own, others) = (ranks(&self.path), ranks(&other.path));
        let first = own.iter().zip(&others).map(|(a, b)| a.cmp(b)).find(|order| order.is_ne());
        first
            .unwrap_or_else(|| others.len().cmp(&own.len()))
            .then_with(|| (&*self.method == "*").cmp(&(&*other.method == "*")))
    }
}

/// Calls as a catalog file has them: all that share one set of rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointText {
    /// `METHOD /path`, each.
    on: Vec<String>,
    class: Class,
    #[serde(default)]
    deferred: bool,
    #[serde(default)]
    free: bool,
    /// Metered, but nothing says beforehand how much it uses.
    #[serde(default)]
    unbounded: bool,
    operation: Option<Arc<str>>,
    #[serde(default)]
    request: RequestText,
    #[serde(default)]
    response: ResponseText,
    session: Option<SessionText>,
}

impl EndpointText {
    pub(super) fn endpoints(self, field: &str, problems: &mut Problems) -> Vec<Endpoint> {
        let request = Arc::new(self.request.rules(&format!("{field}.request"), problems));
        let mut response = self.response.rules(&format!("{field}.response"), problems);
        let session = self.session.map(|session| Arc::new(session.rules(&mut response, field, problems)));
        let response = Arc::new(response);
        let mut endpoints = Vec::new();
        for on in &self.on {
            let Some((method, path)) = on.split_once(' ').filter(|(_, path)| path.starts_with('/')) else {
                problems.push((
                    format!("{field}.on"),
                    format!("{on:?} must be a method and a path: POST /v1/messages"),
                ));
                continue;
            };
            let metered = !request.is_empty() && !response.buffered.usage.is_empty() && session.is_none();
            endpoints.push(Endpoint {
                method: method.into(),
                path: path.into(),
                class: self.class,
                deferred: self.deferred,
                metered,
                bounded: metered && !self.unbounded,
                free: self.free,
                operation: self.operation.clone(),
                request: request.clone(),
                response: response.clone(),
                session: session.clone(),
                prefix: path.split('*').next().unwrap_or_default().trim_end_matches('/').into(),
            });
        }
        endpoints
    }
}
