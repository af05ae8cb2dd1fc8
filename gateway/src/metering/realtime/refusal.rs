//! What a session is told that it may not: an event as the API's own errors are, and how the connection closes.

use serde::Serialize;
use serde_json::{Map, Value};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::SessionRules;

use crate::ledger::RecordId;

/// Codes of close frames (<https://www.iana.org/assignments/websocket>).
const POLICY_VIOLATION: u16 = 1008;
const TRY_AGAIN_LATER: u16 = 1013;
/// Most bytes of the name of a client's message: the API takes no longer ones.
const LONGEST_NAME: usize = 512;

/// The event that tells the client of a refusal; `id` is its own message's.
pub(super) fn error_event(rules: &SessionRules, denial: &Denial, id: Option<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    struct ErrorEvent<'a> {
        r#type: &'a str,
        event_id: &'a str,
        error: Error<'a>,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        r#type: &'static str,
        code: &'static str,
        message: String,
        param: Option<&'static str>,
        event_id: Option<&'a str>,
    }
    let reason = denial.reason.as_str();
    let event = ErrorEvent {
        r#type: rules.errors.first().map_or("error", |kind| kind),
        event_id: &event_id(RecordId::new()),
        error: Error {
            r#type: "tollgate_refusal",
            code: reason,
            message: format!("{reason}: {}", denial.detail),
            param: None,
            event_id: id,
        },
    };
    serde_json::to_vec(&event).unwrap_or_default()
}

/// With what the session closes because of a refusal; `None`: it goes on.
pub(in crate::metering) const fn close_code(reason: Reason) -> Option<u16> {
    match reason {
        Reason::BudgetExhausted | Reason::Internal | Reason::UpstreamProtocol | Reason::Withdrawn => {
            Some(POLICY_VIOLATION)
        }
        Reason::BudgetHeld | Reason::RateLimited | Reason::LedgerUnavailable | Reason::LimitsUnavailable => {
            Some(TRY_AGAIN_LATER)
        }
        _ => None,
    }
}

/// The name of a message of the gateway's own.
pub(super) fn event_id(id: RecordId) -> Box<str> {
    format!("tollgate_{}", String::from_utf8_lossy(&id.hex())).into()
}

/// The name that the client has given a message, where it may be repeated to it.
pub(super) fn own_name(rules: &SessionRules, object: &Map<String, Value>) -> Option<Box<str>> {
    let name = object.get(&*rules.message_id).and_then(Value::as_str);
    name.filter(|name| name.len() <= LONGEST_NAME).map(Box::from)
}

/// Gives a message that asks for a turn a name that no client can have given another. That name, and the client's own.
///
/// # Errors
/// `body_invalid`.
pub(super) fn rename(
    rules: &SessionRules,
    object: &mut Map<String, Value>,
) -> Result<(Box<str>, Option<Box<str>>), Denial> {
    let theirs = own_name(rules, object);
    if theirs.is_none() && object.get(&*rules.message_id).is_some_and(|name| !name.is_null()) {
        let what = format!("must be a string of at most {LONGEST_NAME} bytes");
        return Err(invalid(&rules.message_id, &what));
    }
    let name = event_id(RecordId::new());
    object.insert(rules.message_id.to_string(), Value::from(&*name));
    Ok((name, theirs))
}

pub(super) fn invalid(member: &str, what: &str) -> Denial {
    Denial::new(Reason::BodyInvalid, format!("`{member}` {what}"))
}
