//! The settings of a session: what of them may change what a turn costs, and that the provider starts no turn by itself.
//!
//! **Invariant:** settings that go on switch the provider's own turns off, whatever the client says of them. What is not known of them, or
//! starts work that is billed beside the turns, goes nowhere.

use serde_json::{Map, Value};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::{Endpoint, Member, SessionRules};
use tollgate_policy::price::UNIT_MAX;

use super::refusal::invalid;

/// The name of the message that switches the provider's own turns off.
pub(super) const OPENING: &str = "tollgate_opening";

/// What caps the tokens that a turn writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cap {
    /// Nothing is said of it.
    Unsaid,
    /// As many as the model writes.
    Unlimited,
    Tokens(u64),
}

impl Cap {
    /// As the facts of a call have it.
    pub(super) const fn tokens(self) -> Option<u64> {
        match self {
            Self::Unsaid => None,
            Self::Unlimited => Some(UNIT_MAX),
            Self::Tokens(tokens) => Some(tokens),
        }
    }

    /// What has to stand in a request for a hold by this cap, whatever the provider has made of earlier settings. `most` is what the model
    /// writes, and `unsaid` what a request says that names no cap.
    pub(super) fn written(self, most: Option<u64>, unsaid: Option<u64>) -> Option<u64> {
        match self {
            Self::Unsaid => unsaid,
            Self::Unlimited => most,
            Self::Tokens(tokens) => Some(most.map_or(tokens, |most| tokens.min(most))),
        }
    }

    fn of(name: &str, value: &Value) -> Result<Self, Denial> {
        match value {
            Value::Null => Ok(Self::Unsaid),
            // `inf`; another word the provider refuses.
            Value::String(_) => Ok(Self::Unlimited),
            Value::Number(number) => match number.as_u64().filter(|tokens| (1..UNIT_MAX).contains(tokens)) {
                Some(tokens) => Ok(Self::Tokens(tokens)),
                None => Err(invalid(name, "must be a whole number from 1, or \"inf\"")),
            },
            _ => Err(invalid(name, "must be a whole number from 1, or \"inf\"")),
        }
    }
}

/// What is set.
#[derive(Debug)]
pub(super) struct TurnSettings {
    /// Whether tokens or spend are limited.
    is_limited: bool,
    cap: Cap,
    /// The client wishes that turns start when the speaker comes to an end.
    starts: bool,
    /// What the provider is told of that; `null`: nothing is detected.
    detection: Value,
}

impl TurnSettings {
    pub(super) fn new(rules: &SessionRules, is_limited: bool) -> Self {
        let mut detection = serde_json::from_str(&rules.detection.initial).unwrap_or_default();
        let starts = switch_off(&mut detection, &rules.detection.switch);
        Self { is_limited, cap: Cap::Unsaid, starts: starts && is_limited, detection }
    }

    pub(super) const fn cap(&self) -> Cap {
        self.cap
    }

    /// Whether the gateway has to start turns, which the provider would.
    pub(super) const fn starts_turns(&self) -> bool {
        self.starts
    }

    /// The message that switches the provider's own turns off.
    pub(super) fn opening(&self, rules: &SessionRules) -> Option<Vec<u8>> {
        let place = rules.detection.at.first().filter(|_| self.is_limited)?;
        let mut settings: Value = serde_json::from_str(&rules.detection.settings).ok()?;
        let mut at = &mut settings;
        for name in place {
            at = at.as_object_mut()?.entry(&**name).or_insert_with(|| Value::Object(Map::new()));
        }
        *at = self.detection.clone();
        let mut object = Map::new();
        object.insert(rules.kind.to_string(), Value::from(&*rules.settings.event));
        object.insert(rules.message_id.to_string(), Value::from(OPENING));
        object.insert(rules.settings.member.to_string(), settings);
        Some(Value::Object(object).to_string().into_bytes())
    }

    /// Takes over what a message sets, which becomes what the provider is told.
    ///
    /// # Errors
    /// `model_not_allowed` for another model; `unmetered_endpoint` for what is not known, or is billed beside the turns; `body_invalid`.
    pub(super) fn apply(
        &mut self,
        object: &mut Map<String, Value>,
        (rules, endpoint): (&SessionRules, &Endpoint),
        model: Option<&str>,
    ) -> Result<(), Denial> {
        let member = &*rules.settings.member;
        let Some(Value::Object(settings)) = object.get_mut(member) else {
            return Err(invalid(member, "must be an object"));
        };
        let cap = self.check(settings, endpoint, model)?;
        if !self.is_limited {
            return Ok(());
        }
        check_form(settings, rules)?;
        // Nothing is kept of settings that are refused.
        let (starts, detection) = self.detected(settings, rules)?;
        (self.starts, self.detection) = (starts, detection);
        if cap != Cap::Unsaid {
            self.cap = cap;
        }
        Ok(())
    }

    /// Looks through settings, or the options of one turn, for what changes its cost. Gives the cap that they name.
    pub(super) fn check(
        &self,
        settings: &Map<String, Value>,
        endpoint: &Endpoint,
        model: Option<&str>,
    ) -> Result<Cap, Denial> {
        let mut cap = Cap::Unsaid;
        for (name, value) in settings {
            match endpoint.request.member(name) {
                Some(Member::Model) if value.is_null() || value.as_str() == model => {}
                Some(Member::Model) => {
                    let detail = "a session keeps the model that it began with";
                    return Err(Denial::new(Reason::ModelNotAllowed, detail));
                }
                _ if !self.is_limited => {}
                Some(Member::Cap) => cap = Cap::of(name, value)?,
                Some(Member::Tools) => check_tools(name, value, endpoint)?,
                Some(Member::Inert) => {}
                _ if value.is_null() => {}
                _ => return Err(unmetered(name)),
            }
        }
        Ok(cap)
    }

    /// Switches off what has the provider start turns. Whether the client wishes for that, and what it is told instead.
    fn detected(
        &self,
        settings: &mut Map<String, Value>,
        rules: &SessionRules,
    ) -> Result<(bool, Value), Denial> {
        let detection = &rules.detection;
        let (mut starts, mut now) = (self.starts, self.detection.clone());
        for (index, place) in detection.at.iter().enumerate() {
            let Some((last, parents)) = place.split_last() else { continue };
            let parent = if index == 0 {
                opened(settings, parents)?
            } else {
                let parent = parents
                    .iter()
                    .try_fold(&mut *settings, |at, name| at.get_mut(&**name).and_then(Value::as_object_mut));
                let Some(parent) = parent else { continue };
                parent
            };
            match parent.get_mut(&**last) {
                Some(Value::Null) => (starts, now) = (false, Value::Null),
                Some(value @ Value::Object(_)) => {
                    let others = &detection.others;
                    if let Some(other) =
                        others.iter().find(|o| value.get(&***o).is_some_and(|it| !it.is_null()))
                    {
                        return Err(unmetered(other));
                    }
                    starts = switch_off(value, &detection.switch);
                    now = value.clone();
                }
                Some(_) => return Err(invalid(last, "must be an object, or null")),
                // Whether settings that leave out a part, or say `null` of what it is in, leave it as it was is not said anywhere.
                None if index == 0 => {
                    parent.insert(last.to_string(), now.clone());
                }
                None => {}
            }
        }
        Ok((starts, now))
    }
}

/// The object at this place; what is missing or `null` becomes one.
fn opened<'a>(
    settings: &'a mut Map<String, Value>,
    place: &[Box<str>],
) -> Result<&'a mut Map<String, Value>, Denial> {
    place.iter().try_fold(settings, |at, name| {
        let value = at.entry(&**name).or_insert(Value::Null);
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        value.as_object_mut().ok_or_else(|| invalid(name, "must be an object"))
    })
}

/// Switches an object off. Whether it was on, which it is unless it says otherwise.
fn switch_off(detection: &mut Value, switch: &str) -> bool {
    let Some(object) = detection.as_object_mut() else { return false };
    let was = object.insert(switch.to_owned(), Value::Bool(false));
    was != Some(Value::Bool(false))
}

/// Settings of another kind of session, and those that ask for work beside the turns.
fn check_form(settings: &Map<String, Value>, rules: &SessionRules) -> Result<(), Denial> {
    let form: Map<String, Value> = serde_json::from_str(&rules.detection.settings).unwrap_or_default();
    for (name, value) in &form {
        if settings.get(name).is_some_and(|said| said != value) {
            return Err(unmetered(name));
        }
    }
    for place in &rules.apart {
        let Some((first, rest)) = place.split_first() else { continue };
        let value = rest.iter().try_fold(settings.get(&**first), |at, name| at.map(|at| at.get(&**name)));
        if value.flatten().is_some_and(|value| !value.is_null()) {
            return Err(unmetered(&place.join(".")));
        }
    }
    Ok(())
}

/// Tools that the caller runs; those of the provider are billed beside the turn, or start others.
fn check_tools(name: &str, value: &Value, endpoint: &Endpoint) -> Result<(), Denial> {
    let tools = match value {
        Value::Null => return Ok(()),
        Value::Array(tools) => tools,
        _ => return Err(invalid(name, "must be a list")),
    };
    for tool in tools {
        let kind = tool.get("type").and_then(Value::as_str);
        let rule = kind.and_then(|kind| endpoint.request.tools.rule(Some(kind)));
        if rule.is_none_or(|rule| rule.is_loop() || rule.unbounded) {
            return Err(unmetered(name));
        }
    }
    Ok(())
}

fn unmetered(name: &str) -> Denial {
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    let detail = format!("`{name}` may cost something that is not read, so it cannot be held to limits");
    Denial::new(Reason::UnmeteredEndpoint, detail)
}
