//! A session whose turns are billed: who is judged when, and what waits for the journal.
//!
//! **Invariant:** a message that starts a turn leaves behind the line of its hold, and the event that ends a turn behind its record. Neither
//! holds up the other direction.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tollgate_policy::denial::{Denial, Reason};

use super::pump::{Pump, PumpEnd};
use super::tap::Tap;
use crate::caller_occupancy::BufferReservation;
use crate::core::Core;
use crate::ledger::{Journal, LedgerError, Outcome, Wait};
use crate::metering::account::Account;
use crate::metering::realtime::{Course, TurnMeter, Verdict, close_code};
use crate::metering::reauthorize::Reauthorizer;

/// How long turns may go on when the session is refused another, or its caller has gone.
const LAST_TURNS: Duration = Duration::from_secs(10);

/// The turns of a session, and what of it waits.
#[derive(Debug)]
pub(super) struct Turns {
    meter: TurnMeter,
    core: Arc<Core>,
    /// Messages for the provider, in order.
    asks: VecDeque<Ask>,
    /// The record of the turn that is over.
    over: Option<Wait>,
    ends: Option<RefusedTurn>,
}

/// A message for the provider.
#[derive(Debug)]
struct Ask {
    message: Vec<u8>,
    /// The line of what it holds.
    wait: Option<Wait>,
    /// What the client's message occupies.
    room: BufferReservation,
}

/// A session that is refused another turn.
#[derive(Clone, Debug)]
pub(super) struct RefusedTurn {
    pub(super) reason: Reason,
    /// The limit that has refused it.
    pub(super) limited_by: Option<Arc<str>>,
    pub(super) code: u16,
    until: Instant,
}

/// What goes on next.
#[derive(Debug)]
pub(super) enum RelayStep {
    Caller(PumpEnd),
    Provider(PumpEnd),
    Refused(RefusedTurn),
}

impl Turns {
    pub(super) fn new(core: &Arc<Core>, meter: TurnMeter) -> Self {
        let core = Arc::clone(core);
        Self { meter, core, asks: VecDeque::new(), over: None, ends: None }
    }

    /// Has both sides read, and tells the provider what it is to know before it hears the caller.
    pub(super) fn begin<A, B, C, D>(
        &self,
        up: &mut Pump<'_, A, B>,
        down: &mut Pump<'_, C, D>,
        (account, most): (&Account, u64),
    ) where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        down.tap(Tap::server(self.meter.server_reader()));
        if let Some(reader) = self.meter.client_reader(account, most) {
            up.tap(Tap::client(reader));
        }
        if let Some(opening) = self.meter.opening() {
            // Whether it can be written shows when it is.
            let _ = up.say(&opening);
        }
    }

    /// Carries frames until one side has no more, or the session is refused a turn.
    pub(super) async fn run<A, B, C, D>(
        &mut self,
        up: &mut Pump<'_, A, B>,
        down: &mut Pump<'_, C, D>,
        (reauthorizer, account): (&Reauthorizer, &mut Account),
    ) -> RelayStep
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        let journal = Arc::clone(&self.core);
        let journal = &journal.journal;
        loop {
            if let Some(refused) = self.ends.clone() {
                let is_done = !self.meter.is_busy() && self.over.is_none() && down.is_said();
                if is_done || Instant::now() >= refused.until {
                    return RelayStep::Refused(refused);
                }
            }
            let until = self.ends.as_ref().map(|refused| refused.until);
            // A caller that does not take its refusals causes no more of them.
            let may_ask = self.asks.is_empty() && self.ends.is_none() && down.has_room();
            let may_answer = self.over.is_none();
            tokio::select! {
                end = up.run(reauthorizer), if may_ask => match end {
                    PumpEnd::Event => self.judge(up, down, account),
                    PumpEnd::Closed | PumpEnd::Ended if self.meter.is_busy() => {
                        self.caller_gone(up, down, (reauthorizer, account), end).await;
                        return RelayStep::Caller(end);
                    }
                    end => return RelayStep::Caller(end),
                },
                end = down.run(reauthorizer), if may_answer => match end {
                    PumpEnd::Event => self.heard(up, down, account),
                    end => return RelayStep::Provider(end),
                },
                written = first(journal, &mut self.asks) => self.asked(written.is_ok(), up, down),
                written = one(journal, &mut self.over) => {
                    self.over = None;
                    // What is not recorded is not told to be over.
                    if written.is_err() || down.pass_event().is_err() {
                        return RelayStep::Provider(PumpEnd::Unwritable);
                    }
                }
                () = at(until) => {}
            }
        }
    }

    /// A message of the client.
    fn judge<A, B, C, D>(&mut self, up: &mut Pump<'_, A, B>, down: &mut Pump<'_, C, D>, account: &Account)
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        self.meter.weigh(up.take_tokens());
        let Some(message) = up.take_client() else { return };
        let verdict = self.meter.judge(&message, account);
        match verdict {
            Verdict::Goes { message: judged, line } => {
                self.asks.push_back(Ask { message: judged, wait: line.map(Wait::new), room: message.room });
            }
            Verdict::Refused { denial, id } => self.refuse(&denial, id.as_deref(), down),
        }
    }

    /// An event of the provider.
    fn heard<A, B, C, D>(&mut self, up: &mut Pump<'_, A, B>, down: &mut Pump<'_, C, D>, account: &mut Account)
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        self.meter.weigh(up.take_tokens());
        let Some((event, reader)) = down.take_server() else { return };
        let course = self.meter.heard(event, reader, account);
        reader.forget();
        if let Course::Failed { names: Some((own, theirs)), .. } = &course {
            down.rename(own, theirs);
        }
        match course {
            Course::Goes(Some(line)) | Course::Failed { line: Some(line), .. } => {
                self.over = Some(Wait::new(line));
                return;
            }
            Course::Goes(None) | Course::Failed { line: None, .. } => {}
            // One that is refused already ends without it.
            Course::Starts if self.ends.is_some() => {}
            Course::Starts => match self.meter.start(account) {
                Verdict::Goes { message, line } => {
                    let (wait, room) = (line.map(Wait::new), BufferReservation::default());
                    self.asks.push_back(Ask { message, wait, room });
                }
                Verdict::Refused { denial, .. } => self.refuse(&denial, None, down),
            },
            Course::Ends(denial) => {
                self.refuse(&denial, None, down);
                // What nobody has asked for is not waited for.
                self.ends.get_or_insert_with(|| RefusedTurn::by(&denial)).until = Instant::now();
            }
        }
        // Whether it can be written shows when it is.
        let _ = down.pass_event();
    }

    /// The line of the first message that waits is written, or never will be.
    fn asked<A, B, C, D>(&mut self, is_written: bool, up: &mut Pump<'_, A, B>, down: &mut Pump<'_, C, D>)
    where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        if !is_written {
            self.asks.clear();
            let denial = self.meter.unsent();
            self.refuse(&denial, None, down);
        } else if let Some(Ask { message, wait, room }) = self.asks.pop_front() {
            if wait.is_some() {
                self.meter.sent();
            }
            up.keep(room);
            let _ = up.say(&message);
        }
    }

    fn refuse<C, D>(&mut self, denial: &Denial, id: Option<&str>, down: &mut Pump<'_, C, D>)
    where
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        let _ = down.say(&self.meter.error_event(denial, id));
        if let Some(code) = close_code(denial.reason) {
            let refused = RefusedTurn { code, ..RefusedTurn::by(denial) };
            self.ends.get_or_insert(RefusedTurn { until: refused.until + LAST_TURNS, ..refused });
        }
    }

    /// The caller takes no more: what runs is ended, and tells what it used.
    async fn caller_gone<A, B, C, D>(
        &mut self,
        up: &mut Pump<'_, A, B>,
        down: &mut Pump<'_, C, D>,
        (reauthorizer, account): (&Reauthorizer, &mut Account),
        end: PumpEnd,
    ) where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        let close = up.take_close();
        self.asks.clear();
        // Nobody is left to be told.
        let _ = self.meter.unsent();
        if up.say(&self.meter.cancel()).is_ok() {
            up.flush_within(LAST_TURNS).await;
        }
        if end == PumpEnd::Ended {
            down.mute();
        }
        self.ends.get_or_insert_with(|| RefusedTurn::now(Reason::Withdrawn));
        let _ = timeout(LAST_TURNS, self.settle(up, down, (reauthorizer, account))).await;
        up.put_close(close);
    }

    /// Reads what the provider still says, until no turn is under way or it says no more.
    async fn settle<A, B, C, D>(
        &mut self,
        up: &mut Pump<'_, A, B>,
        down: &mut Pump<'_, C, D>,
        (reauthorizer, account): (&Reauthorizer, &mut Account),
    ) where
        A: AsyncRead + Unpin,
        B: AsyncWrite + Unpin,
        C: AsyncRead + Unpin,
        D: AsyncWrite + Unpin,
    {
        while self.meter.is_busy() {
            match down.run(reauthorizer).await {
                PumpEnd::Event => self.heard(up, down, account),
                _ => return,
            }
            if self.over.is_some() {
                let written = one(&self.core.journal, &mut self.over).await;
                self.over = None;
                if written.is_err() || down.pass_event().is_err() {
                    return;
                }
            }
        }
    }

    /// The session is over, with this.
    pub(super) fn end(self, outcome: Outcome, reason: Option<Reason>) {
        self.meter.end(outcome, reason);
    }
}

impl RefusedTurn {
    /// One that waits for nothing.
    fn now(reason: Reason) -> Self {
        Self { reason, limited_by: None, code: super::POLICY_VIOLATION, until: Instant::now() }
    }

    /// The same, for what a denial says.
    fn by(denial: &Denial) -> Self {
        Self { limited_by: denial.limit_id(), ..Self::now(denial.reason) }
    }
}

/// Ready once the line of the first message is written; never without one.
async fn first(journal: &Journal, asks: &mut VecDeque<Ask>) -> Result<(), LedgerError> {
    match asks.front_mut() {
        None => pending().await,
        Some(Ask { wait: None, .. }) => Ok(()),
        Some(Ask { wait: Some(wait), .. }) => poll_fn(|cx| journal.poll_written(wait, cx)).await,
    }
}

/// The same of one line.
async fn one(journal: &Journal, wait: &mut Option<Wait>) -> Result<(), LedgerError> {
    match wait {
        None => pending().await,
        Some(wait) => poll_fn(|cx| journal.poll_written(wait, cx)).await,
    }
}

async fn at(until: Option<Instant>) {
    match until {
        None => pending().await,
        Some(until) => sleep_until(until).await,
    }
}
