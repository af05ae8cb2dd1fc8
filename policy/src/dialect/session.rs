//! How a session over WebSocket is read: which of its messages start what is billed, and what ends that.
//!
//! **Invariant:** a client's event that is not listed here starts something unknown, never nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Problems;
use super::response::ResponseRules;
use super::tree::{Path, Slot};

/// What the messages of a session mean. Each is one JSON object that says its type.
#[derive(Debug, Default)]
pub struct SessionRules {
    /// Parameters of the handshake's query that may stand there; one that the request's rules call the model is among them.
    pub query: Vec<Box<str>>,
    /// The member of a message that says its type.
    pub kind: Box<str>,
    /// The member of a client's message by which an error names it.
    pub message_id: Box<str>,
    /// The client's event that starts a turn, and its member that says how.
    pub ask: EventMember,
    /// The client's event that changes how turns are made, and its member that says how.
    pub settings: EventMember,
    /// The client's event that ends a turn before its time.
    pub cancel: Box<str>,
    /// Client's events that start nothing.
    pub inert: Vec<Box<str>>,
    /// Client's events that bring content.
    pub content: Vec<Box<str>>,
    /// Types of content whose bytes say nothing of its tokens.
    pub outside: Vec<Box<str>>,
    /// Client's events of sound, and how many of their bytes are a token at least.
    pub sound: Vec<(Box<str>, u64)>,
    /// The provider's event that says that a turn has begun.
    pub began: Box<str>,
    /// The one that says that it is over, and tells its usage.
    pub over: Box<str>,
    /// Types of events that report an error.
    pub errors: Vec<Box<str>>,
    /// Events of the provider about work that is billed beside turns.
    pub beside: Vec<Box<str>>,
    /// Places in settings that ask for such work.
    pub apart: Vec<Vec<Box<str>>>,
    /// Where both events of a turn name it.
    pub turn: Slot,
    /// Where an error names the client's message.
    pub refused: Slot,
    /// Where the last event of a turn says how it ended, and the words for one that the provider did not make.
    pub status: Slot,
    /// See [`SessionRules::status`].
    pub failed: Vec<Box<str>>,
    /// What has the provider start turns unasked.
    pub detection: DetectionRules,
}

/// A type of event, and one of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventMember {
    /// The type.
    pub event: Box<str>,
    /// The member.
    pub member: Box<str>,
}

/// How a provider is told to start turns by itself, when the speaker has come to an end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectionRules {
    /// The objects in settings that say so; `null` is none. The first is the present form.
    #[serde(deserialize_with = "places")]
    pub at: Vec<Vec<Box<str>>>,
    /// The member of such an object that says whether turns are started.
    pub switch: Box<str>,
    /// Members that start turns beside it.
    #[serde(default)]
    pub others: Vec<Box<str>>,
    /// What the settings are before the client has said anything, as JSON.
    pub initial: Box<str>,
    /// Members of `initial`'s surroundings that settings always have, as JSON.
    pub settings: Box<str>,
    /// The provider's event that says that the speaker has come to an end.
    pub heard: Box<str>,
    /// The one behind it, where the provider would start the turn.
    pub starts: Box<str>,
}

impl SessionRules {
    /// Where this client's event starts nothing and brings no content but sound: how many of its bytes are a token at least.
    pub fn inert(&self, kind: &str) -> Option<u64> {
        let sound = self.sound.iter().find(|(event, _)| **event == *kind).map(|(_, bytes)| *bytes);
        sound.or_else(|| self.inert.iter().any(|event| **event == *kind).then_some(1))
    }
}

/// The rules as a catalog file has them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionText {
    #[serde(default)]
    query: Vec<Box<str>>,
    kind: Box<str>,
    message_id: Box<str>,
    ask: EventMember,
    settings: EventMember,
    cancel: Box<str>,
    #[serde(default)]
    inert: Vec<Box<str>>,
    #[serde(default)]
    content: Vec<Box<str>>,
    #[serde(default)]
    outside: Vec<Box<str>>,
    #[serde(default)]
    sound: BTreeMap<Box<str>, u64>,
    turn: TurnText,
    #[serde(default)]
    beside: Vec<Box<str>>,
    #[serde(default, deserialize_with = "places")]
    apart: Vec<Vec<Box<str>>>,
    error_names: Path,
    detection: DetectionRules,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnText {
    began: Box<str>,
    over: Box<str>,
    id: Path,
    status: Path,
    #[serde(default)]
    failed: Vec<Box<str>>,
}

impl SessionText {
    /// `response` has the events as a stream; it gets the places that a session needs beside.
    pub(super) fn rules(
        self,
        response: &mut ResponseRules,
        field: &str,
        problems: &mut Problems,
    ) -> SessionRules {
        let mut problem = |what: &str| problems.push((format!("{field}.session"), what.to_owned()));
        if serde_json::from_str::<serde_json::Map<_, _>>(&self.detection.initial).is_err()
            || serde_json::from_str::<serde_json::Map<_, _>>(&self.detection.settings).is_err()
        {
            problem("`detection.initial` and `detection.settings` are objects in JSON");
        }
        if self.detection.at.is_empty() {
            problem("`detection.at` names at least one place");
        }
        if self.sound.values().any(|bytes| *bytes == 0) {
            problem("`sound` says how many bytes a token has, at least 1");
        }
        let Some((stream, places)) = response.streamed.as_mut().filter(|(_, places)| places.kind.is_some())
        else {
            problem("the endpoint's `response.stream` says how events are read, with their `kind`");
            return SessionRules::default();
        };
        SessionRules {
            turn: places.tree.text(&self.turn.id),
            refused: places.tree.text(&self.error_names),
            status: places.tree.text(&self.turn.status),
            errors: stream.errors.clone(),
            query: self.query,
            kind: self.kind,
            message_id: self.message_id,
            ask: self.ask,
            settings: self.settings,
            cancel: self.cancel,
            inert: self.inert,
            content: self.content,
            outside: self.outside,
            sound: self.sound.into_iter().collect(),
            began: self.turn.began,
            over: self.turn.over,
            failed: self.turn.failed,
            beside: self.beside,
            apart: self.apart,
            detection: self.detection,
        }
    }
}

/// Paths of members only, like `audio.input.turn_detection`.
fn places<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<Box<str>>>, D::Error> {
    let places = Vec::<String>::deserialize(deserializer)?;
    Ok(places.iter().map(|place| place.split('.').map(Into::into).collect()).collect())
}
