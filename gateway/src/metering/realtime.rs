//! The turns of a session over WebSocket: each is held before the provider is asked for it, and settled when it is over.
//!
//! **Invariant:** under limits no turn starts but by a message that was held for: the provider's own detection of turns is switched off, and
//! what it would have started is asked for here. What a client's message may start is known, or the message goes nowhere. A turn that was
//! asked for and never told its usage is charged at its hold.
//!
//! Lacks on purpose: the connection, and when to read from which side of it.

mod client;
mod refusal;
mod server;
mod settings;

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};
use tollgate_policy::decision::Facts;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::{Endpoint, SessionRules};
use tollgate_policy::price::{Price, UNIT_MAX};

use self::settings::{Cap, TurnSettings};
use super::account::{Account, AnswerFacts, LearntUsage};
use super::bound;
use super::permitted::PermittedCall;
use super::usage;
use crate::ledger::{Outcome, Position};

pub(super) use client::{ClientMessage, ClientReader, Taken, whole};
pub(super) use refusal::close_code;
pub(super) use server::{ServerReader, SessionEvent};

/// Most turns of one session at once: beside that of the conversation, those that a client asks for apart from it.
const MOST_AT_ONCE: usize = 64;

/// One turn that was held for.
#[derive(Debug)]
struct Turn {
    account: Box<Account>,
    call: Arc<PermittedCall>,
    /// By which an error names the message that asked for it, and what the client has called that.
    message: Box<str>,
    theirs: Option<Box<str>>,
    /// The provider's name for it, once it has begun.
    id: Option<Box<str>>,
}

/// What becomes of a message of the client.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It goes on, in this form; where it starts a turn, as soon as what was held stands in the journal.
    Goes { message: Vec<u8>, line: Option<Position> },
    /// It goes nowhere; `id` is the message's own name.
    Refused { denial: Denial, id: Option<Box<str>> },
}

/// What an event of the provider leads to.
#[derive(Debug)]
pub(super) enum Course {
    /// It goes on; where it ends a turn, as soon as that is recorded.
    Goes(Option<Position>),
    /// It goes on as soon as that is recorded, and tells the client that its message asked for no turn. Of the `names` the provider knows the
    /// first, and the client the second.
    Failed { line: Option<Position>, names: Option<(Box<str>, Box<str>)> },
    /// It goes on, and the provider would have started a turn now.
    Starts,
    /// The session cannot go on.
    Ends(Denial),
}

/// The turns of one session.
#[derive(Debug)]
pub(super) struct TurnMeter {
    call: Arc<PermittedCall>,
    endpoint: Arc<Endpoint>,
    rules: Arc<SessionRules>,
    settings: TurnSettings,
    /// The most tokens that the conversation may have by now.
    conversation: u64,
    /// Asked for, and not begun: in order.
    asked: VecDeque<Turn>,
    running: Vec<Turn>,
    /// The speaker has come to an end, and what was said is not in the conversation yet.
    heard: bool,
}

impl TurnMeter {
    /// `None`: the call begins no session whose turns are billed.
    pub(super) fn of(call: &Arc<PermittedCall>) -> Option<Self> {
        let endpoint = Arc::clone(call.session()?);
        let rules = Arc::clone(endpoint.session.as_ref()?);
        let settings = TurnSettings::new(&rules, call.limits_usage());
        Some(Self {
            call: Arc::clone(call),
            endpoint,
            rules,
            settings,
            conversation: 0,
            asked: VecDeque::new(),
            running: Vec::new(),
            heard: false,
        })
    }

    /// Whether messages of the client are read before they go on.
    pub(super) fn is_gated(&self) -> bool {
        self.call.permit.grant().limits_content()
    }

    /// Reads messages of the client; `most` bytes each.
    pub(super) fn client_reader(&self, account: &Account, most: u64) -> Option<ClientReader> {
        let usage = account.caller_occupancy()?;
        let most = most.min(usage.largest_body());
        self.is_gated().then(|| ClientReader::new(&self.rules, usage, most))
    }

    /// Reads events of the provider.
    pub(super) fn server_reader(&self) -> ServerReader {
        ServerReader::new(&self.endpoint, &self.rules)
    }

    /// What the provider is told before it hears anything of the client.
    pub(super) fn opening(&self) -> Option<Vec<u8>> {
        self.settings.opening(&self.rules)
    }

    /// A message that starts nothing has gone on, which is so many tokens at most.
    pub(super) fn weigh(&mut self, tokens: u64) {
        self.conversation = self.conversation.saturating_add(tokens);
    }

    /// A token is a byte of text at least. Where there is something else, the conversation may fill the model's window from now on.
    fn weigh_content(&mut self, object: &Map<String, Value>, bytes: usize) {
        let is_outside = object.values().any(|value| brings_outside(&self.rules, value));
        self.weigh(if is_outside { UNIT_MAX } else { bytes as u64 });
    }

    /// Judges a message of the client that may start or change something. `session` is the account of the session itself.
    pub(super) fn judge(&mut self, message: &ClientMessage, session: &Account) -> Verdict {
        let Some(mut object) = message.object() else {
            let denial = Denial::new(Reason::BodyInvalid, "a message is one JSON object");
            return Verdict::Refused { denial, id: None };
        };
        let id = refusal::own_name(&self.rules, &object);
        let judged = if *message.kind == *self.rules.ask.event {
            self.weigh_content(&object, message.bytes.len());
            self.ask(&mut object, session).map(Some)
        } else if self.rules.content.contains(&message.kind) {
            self.weigh_content(&object, message.bytes.len());
            Ok(None)
        } else if *message.kind == *self.rules.settings.event {
            self.weigh_content(&object, message.bytes.len());
            self.settings.apply(&mut object, (&self.rules, &self.endpoint), self.call.model()).map(|()| None)
        } else {
            let detail = "what this kind of message starts is not known, so it cannot be held to limits";
            Err(Denial::new(Reason::UnmeteredEndpoint, detail))
        };
        match judged {
            Ok(line) => Verdict::Goes { message: rendered(object), line },
            Err(denial) => Verdict::Refused { denial, id },
        }
    }

    /// Asks for the turn that the provider would have started itself.
    pub(super) fn start(&mut self, session: &Account) -> Verdict {
        let mut object = Map::new();
        object.insert(self.rules.kind.to_string(), Value::from(&*self.rules.ask.event));
        match self.ask(&mut object, session) {
            Ok(line) => Verdict::Goes { message: rendered(object), line: Some(line) },
            Err(denial) => Verdict::Refused { denial, id: None },
        }
    }

    /// Holds what a turn may use.
    fn ask(&mut self, object: &mut Map<String, Value>, session: &Account) -> Result<Position, Denial> {
        self.has_place()?;
        let member = self.rules.ask.member.to_string();
        let mut options = match object.remove(&member) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(options)) => options,
            Some(_) => return Err(refusal::invalid(&member, "must be an object")),
        };
        let own = self.settings.check(&options, &self.endpoint, self.call.model())?;
        let cap = if own == Cap::Unsaid { self.settings.cap() } else { own };
        let call = self.call.turn(self.facts(cap))?;
        let written_to = self.endpoint.request.cap_written_to.as_deref();
        let most = call.price().and_then(Price::max_output);
        let written = call.bound.and_then(|bound| cap.written(most, bound.write_cap));
        if let (Some(cap), Some(name)) = (written, written_to) {
            options.insert(name.to_owned(), cap.into());
        }
        if !options.is_empty() {
            object.insert(member, Value::Object(options));
        }
        let (message, theirs) = refusal::rename(&self.rules, object)?;
        let account = session.turn(&call)?;
        let line = account.line();
        self.asked.push_back(Turn { account, call, message, theirs, id: None });
        line.ok_or_else(|| Denial::new(Reason::Internal, "what a turn holds has no line"))
    }

    /// Whether there may be another turn at once.
    fn has_place(&self) -> Result<(), Denial> {
        if self.asked.len() + self.running.len() < MOST_AT_ONCE {
            return Ok(());
        }
        let detail = format!("a session has at most {MOST_AT_ONCE} turns at once");
        Err(Denial::new(Reason::ConcurrencyLimited, detail))
    }

    fn facts(&self, cap: Cap) -> Facts {
        Facts {
            model: self.call.facts.model.clone(),
            stream: true,
            body_bytes: self.conversation,
            output_cap: cap.tokens(),
            ..Facts::default()
        }
    }

    /// What was held for the first message that waits stands in the journal: the provider may have it now.
    pub(super) fn sent(&mut self) {
        if let Some(turn) = self.asked.iter_mut().find(|turn| !turn.account.is_out()) {
            turn.account.sent();
        }
    }

    /// Messages that wait do not go: what was held for them cannot be recorded.
    pub(super) fn unsent(&mut self) -> Denial {
        self.asked.retain(|turn| turn.account.is_out());
        Denial::new(Reason::LedgerUnavailable, "usage cannot be recorded at the moment, so no turn is made")
    }

    /// Whether the provider owes the end of a turn.
    pub(super) fn is_busy(&self) -> bool {
        !self.asked.is_empty() || !self.running.is_empty()
    }

    /// The event that tells the client of a refusal; `id` is its own message's.
    pub(super) fn error_event(&self, denial: &Denial, id: Option<&str>) -> Vec<u8> {
        refusal::error_event(&self.rules, denial, id)
    }

    /// The message that ends what runs, for a caller that has gone.
    pub(super) fn cancel(&self) -> Vec<u8> {
        let mut object = Map::new();
        object.insert(self.rules.kind.to_string(), Value::from(&*self.rules.cancel));
        rendered(object)
    }

    /// Takes note of an event of the provider.
    pub(super) fn heard(
        &mut self,
        event: SessionEvent,
        reader: &ServerReader,
        session: &mut Account,
    ) -> Course {
        match event {
            SessionEvent::Began => self.began(reader.turn(), session),
            SessionEvent::Over => Course::Goes(self.over(reader)),
            SessionEvent::Error => self.failed(reader.refused()),
            SessionEvent::Beside => {
                session.record.unpriced = true;
                Course::Goes(None)
            }
            SessionEvent::Heard => {
                self.heard = true;
                Course::Goes(None)
            }
            SessionEvent::Starts if std::mem::take(&mut self.heard) && self.settings.starts_turns() => {
                Course::Starts
            }
            SessionEvent::Starts => Course::Goes(None),
        }
    }

    fn began(&mut self, id: Option<&str>, session: &Account) -> Course {
        // One that has not gone out yet is not what has begun.
        let asked = self.asked.iter().position(|turn| turn.account.is_out());
        let turn = match asked.and_then(|at| self.asked.remove(at)) {
            Some(turn) => Ok(turn),
            // It started by itself: without limits it may, and with them it is what nobody has asked for.
            None => self.unasked(session),
        };
        match turn {
            Ok(mut turn) => {
                turn.id = id.map(Box::from);
                turn.account.answered(http::StatusCode::SWITCHING_PROTOCOLS);
                self.running.push(turn);
                Course::Goes(None)
            }
            Err(denial) => Course::Ends(denial),
        }
    }

    /// A turn that has begun unasked, by whatever settings the provider has: it may write as much as the model does. One that cannot be held
    /// is charged what would have been held, past its limits.
    fn unasked(&self, session: &Account) -> Result<Turn, Denial> {
        let (call, bounded) = self.call.begun_turn(self.facts(Cap::Unlimited));
        match bounded.and_then(|()| self.has_place()).and_then(|()| session.turn(&call)) {
            Ok(mut account) => {
                account.sent();
                Ok(Turn { account, call, message: Box::default(), theirs: None, id: None })
            }
            Err(denial) => {
                let mut account = session.turn_past_limits(&call);
                account.sent();
                account.record.outcome = Outcome::Refused;
                account.record.set_denial(&denial);
                // Nobody waits for the line; a journal that cannot be written has said so itself.
                let _ = account.close(self.untold(&call));
                Err(denial)
            }
        }
    }

    /// What to book of a turn that never tells its usage.
    fn untold(&self, call: &PermittedCall) -> LearntUsage {
        let units = bound::estimate(&call.facts, &self.endpoint, &usage::UsageReading::default());
        LearntUsage::Unknown { units, told: AnswerFacts::default() }
    }

    /// A turn is over: it is charged what it used.
    fn over(&mut self, reader: &ServerReader) -> Option<Position> {
        let id = reader.turn();
        let at = self.running.iter().position(|turn| turn.id.as_deref() == id)?;
        let Turn { mut account, call, .. } = self.running.swap_remove(at);
        let mut reading = usage::of_event(reader.places(), reader.slots());
        let is_failed =
            reader.status().is_some_and(|status| self.rules.failed.iter().any(|w| **w == *status));
        let told = AnswerFacts { model: reading.model.take(), tier: reading.tier.take(), unpriced: false };
        let usage = match reading.units {
            Some(units) => LearntUsage::Reported { units, told, drained: false },
            None if is_failed => LearntUsage::Unbilled,
            None => {
                let units = bound::estimate(&call.facts, &self.endpoint, &reading);
                LearntUsage::Unknown { units, told }
            }
        };
        let written = match (&usage, call.bound) {
            (LearntUsage::Reported { units, .. }, _) => units.written(),
            (_, bound) => bound.map_or(0, |bound| bound.output_tokens),
        };
        self.weigh(written);
        account.record.outcome = if is_failed { Outcome::ProviderError } else { Outcome::Completed };
        account.record.reason = is_failed.then_some(Reason::UpstreamError);
        account.close(usage).ok().flatten()
    }

    /// The provider refuses a message: if that asked for a turn, there is none.
    fn failed(&mut self, message: Option<&str>) -> Course {
        let Some(message) = message else { return Course::Goes(None) };
        if message == settings::OPENING {
            let detail = "the destination does not leave it to the gateway to start turns";
            return Course::Ends(Denial::new(Reason::UpstreamProtocol, detail));
        }
        let Some(at) = self.asked.iter().position(|turn| *turn.message == *message) else {
            return Course::Goes(None);
        };
        let Some(Turn { mut account, message, theirs, .. }) = self.asked.remove(at) else {
            return Course::Goes(None);
        };
        account.record.outcome = Outcome::ProviderError;
        account.record.reason = Some(Reason::UpstreamError);
        let line = account.close(LearntUsage::Unbilled).ok().flatten();
        Course::Failed { line, names: theirs.map(|theirs| (message, theirs)) }
    }

    /// The session is over: what runs never tells its usage.
    pub(super) fn end(mut self, outcome: Outcome, reason: Option<Reason>) {
        let (asked, running) = (std::mem::take(&mut self.asked), std::mem::take(&mut self.running));
        for Turn { mut account, call, .. } in asked.into_iter().chain(running) {
            let usage = if account.is_out() { self.untold(&call) } else { LearntUsage::Unbilled };
            (account.record.outcome, account.record.reason) = (outcome, reason);
            // Nobody waits for the line; a journal that cannot be written has said so itself.
            let _ = account.close(usage);
        }
    }
}

/// Whether its bytes tell nothing of its tokens.
fn brings_outside(rules: &SessionRules, value: &Value) -> bool {
    // Something of a list that has only a name may be any item before.
    let is_reference =
        |item: &Value| item.get("id").is_some() && item.get(&*rules.kind).is_none_or(Value::is_null);
    match value {
        Value::String(text) => rules.outside.iter().any(|kind| **kind == **text),
        Value::Array(items) => items.iter().any(|item| is_reference(item) || brings_outside(rules, item)),
        Value::Object(members) => members.values().any(|member| brings_outside(rules, member)),
        _ => false,
    }
}

fn rendered(object: Map<String, Value>) -> Vec<u8> {
    Value::Object(object).to_string().into_bytes()
}

#[cfg(test)]
mod tests;
