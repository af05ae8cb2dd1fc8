//! Whether a call is sent again, and how often that was done.
//!
//! **Invariant:** what may have been done and is billed is never sent again, and all that is stays within the destination's retry budget.

use std::net::SocketAddr;

use http::StatusCode;
use http::header::HeaderName;
use tollgate_policy::decision::Permit;
use tollgate_policy::policy::{Destination, Retries};

use crate::core::Core;
use crate::injection::Template;
use crate::metering::Account;
use crate::upstream::{Answer, EndpointFailure};

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Of one call.
pub(super) struct RetryCount<'a> {
    core: &'a Core,
    destination: &'a Destination,
    count: u32,
    /// A kept connection died under it.
    pub(super) died: bool,
    /// The endpoint that has just failed it.
    pub(super) except: Option<SocketAddr>,
}

impl<'a> RetryCount<'a> {
    pub(super) fn new(core: &'a Core, permit: &'a Permit) -> Self {
        Self { core, destination: permit.destination(), count: 0, died: false, except: None }
    }

    /// Whether the next attempt needs a connection that nothing was sent on before.
    pub(super) const fn need_fresh(&self) -> bool {
        self.count > 0
    }

    /// Takes one, if there is one left: for a call that was not processed, or may be made twice.
    pub(super) fn take(&mut self) -> bool {
        let retries = self.retries();
        let may =
            self.count < retries.attempts && self.core.pool.health.may_retry(&self.destination.name, retries);
        self.count += u32::from(may);
        may
    }

    /// The same for a call under which a kept connection died: once, and not where what may have been done is billed.
    pub(super) fn take_after_death(&mut self, template: &Template, account: &Account) -> bool {
        // What is billed by what it uses may have been done, and be billed, before the connection died.
        let may = !self.died && template.is_repeatable() && !account.is_metered() && self.take();
        self.died |= may;
        may
    }

    /// The same after an answer that says that the destination, or what stands before it, is in trouble.
    pub(super) fn take_after(&mut self, answer: &Answer, template: &Template, account: &Account) -> bool {
        let status = answer.response.status().as_u16();
        let is_safe = template.is_idempotent() && template.is_repeatable() && !account.is_metered();
        let may = self.retries().on.contains(&status) && is_safe && self.take();
        if may {
            self.except = Some(answer.lease.kept().remote());
        }
        may
    }

    /// Tells of the endpoint that answered.
    pub(super) fn note(&self, answer: &Answer) {
        let (status, headers) = (answer.response.status(), answer.response.headers());
        // A gRPC call that fails at once says so in a head with 200.
        let is_unavailable = headers.get(&GRPC_STATUS).is_some_and(|code| code.as_bytes() == b"14");
        let is_gateway_error = matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        );
        let kept = answer.lease.kept();
        if is_gateway_error || is_unavailable {
            kept.failed(EndpointFailure::GatewayError, &self.destination.resilience.outlier_detection);
        } else {
            kept.succeeded();
        }
    }

    const fn retries(&self) -> &'a Retries {
        &self.destination.resilience.retries
    }
}
