//! The account of a connection that is passed through.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;
use jiff::Timestamp;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::target::{Passage, Target};

use super::{Account, LearntUsage, unavailable};
use crate::ledger::{Attempt, Bounded, Outcome};
use crate::metering::traffic::Traffic;
use crate::quota::{Allowance, Demand};
use crate::trace::AttemptConnection;
use crate::upstream::{ClientCert, Outbound};

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

    /// Which server a connection's own TLS is for, also where it may not lead there.
    pub(crate) fn asks_for(&mut self, server: &str) {
        self.record.host = Some(Bounded::new(server));
    }

    /// Where a connection leads that is to be passed through.
    pub(crate) fn leads_to(&mut self, target: &Target) {
        self.record.destination = Some(target.destination().name.clone());
        self.record.host = Some(Bounded::from(&target.host_shared()));
        self.record.port = Some(target.port());
    }

    /// The connection is open: from here on what passes may cost something. Gives what counts it.
    pub(crate) fn opened(&mut self, link: &Outbound, shown: Option<ClientCert<'_>>) -> Arc<Traffic> {
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
        self.opened = Some(Instant::now());
        self.sent();
        self.passes()
    }

    /// What may pass until [`Account::extend`] is asked for more.
    pub(crate) fn allowance(&self) -> Allowance {
        self.phase.reservation().map(|reservation| reservation.hold.allowance()).unwrap_or_default()
    }

    /// Reserves the next piece, at most so many `bytes` and `seconds` of each limit, and waits until that is in the journal.
    ///
    /// # Errors
    /// Which limit has no more, or `ledger_unavailable`; what was allowed before still is.
    pub(crate) async fn extend(&mut self, bytes: u64, seconds: u64) -> Result<Allowance, Denial> {
        let piece = Demand { bytes, seconds, ..Demand::default() };
        let Some(reservation) = self.phase.reservation_mut() else { return Ok(Allowance::default()) };
        let quota = &self.core.shared.quota;
        quota.extend_soon(&mut reservation.hold, &piece, Timestamp::now()).await?;
        self.journal_hold()?;
        if let Some(line) = self.line() {
            self.core.journal.written(line).await.map_err(|error| unavailable(&error))?;
        }
        Ok(self.allowance())
    }

    /// Bytes and seconds of a connection that was passed through.
    pub(super) fn passed_through(&self) -> (u64, u64) {
        let (Some(traffic), Some(opened)) = (&self.passed, self.opened) else { return (0, 0) };
        let open = opened.elapsed();
        (traffic.all(), open.as_secs() + u64::from(open.subsec_nanos() > 0))
    }

    /// What counts the bytes that pass from here on, so that the record has them.
    pub(crate) fn passes(&mut self) -> Arc<Traffic> {
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
        self.record.set_denial(denial);
        let _ = self.close(LearntUsage::Plain);
    }
}
