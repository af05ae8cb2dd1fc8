//! The account of a connection that is passed through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::target::{Passage, Target};

use super::{Account, LearntUsage};
use crate::ledger::{Attempt, Bounded, Outcome};
use crate::trace::AttemptConnection;
use crate::upstream::{ClientCert, Outbound};

/// Bytes that have passed each way.
#[derive(Debug, Default)]
pub(crate) struct PassedBytes {
    from_caller: AtomicU64,
    from_destination: AtomicU64,
}

impl PassedBytes {
    /// So many came from the caller, for the destination.
    pub(crate) fn came(&self, bytes: usize) {
        self.from_caller.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many came from the destination, for the caller.
    pub(crate) fn answered(&self, bytes: usize) {
        self.from_destination.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Those of the caller, and those of the destination.
    pub(crate) fn both(&self) -> (u64, u64) {
        (self.from_caller.load(Ordering::Relaxed), self.from_destination.load(Ordering::Relaxed))
    }
}

impl Account {
    /// Which destination a connection is for, where that is known before the caller has said all.
    pub(crate) fn leads_among(&mut self, passage: Option<&Passage>) {
        match passage {
            Some(Passage::To(target)) => self.leads_to(target),
            Some(Passage::ByServerName(all)) => {
                if let [only] = all.as_slice() {
                    self.record.destination = Some(only.name.clone());
                }
            }
            None => {}
        }
    }

    /// Where a connection leads that is to be passed through.
    pub(crate) fn leads_to(&mut self, target: &Target) {
        self.record.destination = Some(target.destination().name.clone());
        self.record.host = Some(Bounded::from(&target.host_shared()));
        self.record.port = Some(target.port());
    }

    /// The connection is open: from here on what passes may cost something. Gives what counts it.
    pub(crate) fn opened(&mut self, link: &Outbound, shown: Option<ClientCert<'_>>) -> Arc<PassedBytes> {
        self.blamed = None;
        if let Some(ClientCert { credential, secret }) = shown {
            self.core.uses.shown(&self.record, &credential.name, secret);
        }
        let status = StatusCode::OK.as_u16();
        let (peer, source) = (Some(link.remote()), Some(link.source()));
        self.trace.connected(|| AttemptConnection::of(link.remote(), link.source(), false), None);
        self.record.source.clone_from(&source);
        self.record.status = status;
        self.record.attempts.push(Attempt { peer, source, status: Some(status), ..Attempt::default() });
        self.sent();
        Arc::clone(self.passed.insert(Arc::default()))
    }

    /// Closes the account of a connection that both sides have ended, or one of them broke off.
    pub(crate) fn ended(mut self: Box<Self>, outcome: Outcome) {
        self.record.outcome = outcome;
        self.record.reason = (outcome == Outcome::UpstreamFailed).then_some(Reason::UpstreamReset);
        // Nobody waits for the line; a journal that cannot be written has said so itself.
        let _ = self.close(LearntUsage::Plain);
    }

    /// Closes the account of a connection that was cut.
    pub(crate) fn cut(mut self: Box<Self>, denial: &Denial) {
        let is_bug = denial.reason == Reason::Internal;
        self.record.outcome = if is_bug { Outcome::Panicked } else { Outcome::Refused };
        self.record.reason = Some(denial.reason);
        let _ = self.close(LearntUsage::Plain);
    }
}
