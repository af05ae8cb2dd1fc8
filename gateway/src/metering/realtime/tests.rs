use std::sync::Arc;

use bytes::BytesMut;
use jiff::Timestamp;
use serde_json::json;
use tollgate_policy::dialect::{Endpoint, SessionRules};
use tollgate_policy::price::{NanoUsd, Units};

use super::server::ServerReader;
use super::settings::{Cap, TurnSettings};
use super::*;
use crate::caller_occupancy::{Bounds, BufferReservation, CallerOccupancies, CallerOccupancy};
use crate::metering::catalog::shipped;
use crate::websocket::{FramePiece, Opcode};

const MODEL: Option<&str> = Some("gpt-realtime");

fn endpoint() -> (Arc<Endpoint>, Arc<SessionRules>) {
    let catalog = shipped().unwrap();
    let endpoint = Arc::clone(catalog.dialect("openai").unwrap().endpoint("GET", "/v1/realtime").unwrap());
    let rules = Arc::clone(endpoint.session.as_ref().unwrap());
    (endpoint, rules)
}

fn usage() -> Arc<CallerOccupancy> {
    let mib = 1 << 20;
    let bounds = Bounds { connections: 2, calls: 3, all_calls: 64, held: 8 * mib, held_of_one: 2 * mib };
    CallerOccupancies::new(bounds).of(&"spiffe://prod.acme/web".parse().unwrap())
}

fn piece(opcode: Opcode, last: bool, text: &str) -> FramePiece {
    FramePiece { opcode, deflated: false, last, payload: BytesMut::from(text) }
}

/// What becomes of a message of the client: how many tokens it weighs, or that it is judged, or the code to close with.
fn taken(text: &str) -> Result<Option<u64>, u16> {
    let (_, rules) = endpoint();
    let mut reader = ClientReader::new(&rules, usage(), 4 << 20);
    match reader.take(piece(Opcode::Text, true, text)) {
        Ok(Taken::Goes(_, tokens, _)) => Ok(Some(tokens)),
        Ok(Taken::Decides(_)) => Ok(None),
        Ok(Taken::Waits) => panic!("it is whole"),
        Err(violation) => Err(violation.code),
    }
}

#[test]
fn a_message_goes_on_unjudged_only_if_its_one_type_starts_nothing() {
    assert_eq!(taken(r#"{"type":"input_audio_buffer.clear"}"#), Ok(Some(35)));
    let sound = format!(r#"{{"audio":"{}","type":"input_audio_buffer.append"}}"#, "A".repeat(4_000));
    assert_eq!(taken(&sound), Ok(Some(5)), "a thousand bytes of sound are a token at least");
    for judged in [
        r#"{"type":"response.create"}"#,
        r#"{"response":{},"type":"response.create"}"#,
        r#"{"type":"response\u002ecreate"}"#,
        r#"{"type":"session.update","session":{}}"#,
        r#"{"type":"conversation.item.create"}"#,
        r#"{"type":"something.new"}"#,
    ] {
        assert_eq!(taken(judged), Ok(None), "{judged}");
    }
    for ambiguous in [
        r#"{"type":"input_audio_buffer.clear","type":"response.create"}"#,
        r#"{"type":"input_audio_buffer.clear","\u0074ype":"response.create"}"#,
        r#"{"type":"input_audio_buffer.clear","TYPE":"response.create"}"#,
        r#"{"Type":"response.create","type":"input_audio_buffer.clear"}"#,
    ] {
        assert_eq!(taken(ambiguous), Err(1008), "{ambiguous}");
    }
    for invalid in ["", "[]", "{}", r#"{"type":1}"#, r#"{"type":"input_audio_buffer.clear"} {}"#] {
        assert_eq!(taken(invalid), Err(1007), "{invalid}");
    }
}

#[test]
fn a_message_in_pieces_is_put_together_within_the_room_of_its_caller() {
    let (_, rules) = endpoint();
    let mut reader = ClientReader::new(&rules, usage(), 4 << 20);
    assert!(matches!(reader.take(piece(Opcode::Text, false, r#"{"type":"#)), Ok(Taken::Waits)));
    assert!(matches!(reader.take(piece(Opcode::Ping, true, "")), Ok(Taken::Goes(_, 0, _))));
    let Ok(Taken::Decides(message)) = reader.take(piece(Opcode::Continuation, true, r#""response.create"}"#))
    else {
        panic!("it is whole")
    };
    assert_eq!(&*message.kind, "response.create");
    let part = "A".repeat(1 << 20);
    let mut large = || reader.take(piece(Opcode::Continuation, false, &part)).map(|_| ()).map_err(|v| v.code);
    assert_eq!([large(), large(), large()], [Ok(()), Ok(()), Err(1009)]);
    let binary = ClientReader::new(&rules, usage(), 4 << 20).take(piece(Opcode::Binary, true, "a"));
    assert_eq!(binary.map(|_| ()).map_err(|violation| violation.code), Err(1003));
}

/// What the provider is told instead of these settings, and whether the gateway starts turns.
fn applied(settings: &mut TurnSettings, session: &Value) -> Result<(Value, bool), &'static str> {
    let (endpoint, rules) = endpoint();
    let Value::Object(mut object) = json!({"type": "session.update", "session": session}) else { panic!() };
    let applied = settings.apply(&mut object, (&rules, &endpoint), MODEL);
    applied.map_err(|denial| denial.reason.as_str())?;
    Ok((object["session"].clone(), settings.starts_turns()))
}

#[test]
fn the_provider_is_never_left_to_start_turns() {
    let (_, rules) = endpoint();
    let mut settings = TurnSettings::new(&rules, true);
    let opening: Value = serde_json::from_slice(&settings.opening(&rules).unwrap()).unwrap();
    let off = json!({"type": "server_vad", "create_response": false});
    assert_eq!(opening["session"], json!({"type": "realtime", "audio": {"input": {"turn_detection": off}}}));
    assert!(settings.starts_turns(), "as the provider would without any settings");
    // Settings that name a part of the input say what detects turns, too.
    let part =
        applied(&mut settings, &json!({"audio": {"input": {"format": {"type": "audio/pcmu"}}}})).unwrap();
    assert_eq!(
        part,
        (json!({"audio": {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": off}}}), true)
    );
    let semantic = json!({"type": "semantic_vad", "eagerness": "low", "create_response": true});
    let told = applied(&mut settings, &json!({"audio": {"input": {"turn_detection": semantic}}})).unwrap();
    let semantic_off = json!({"type": "semantic_vad", "eagerness": "low", "create_response": false});
    assert_eq!(told, (json!({"audio": {"input": {"turn_detection": semantic_off}}}), true));
    let said = json!({"turn_detection": semantic_off});
    for (input, extra) in [
        (json!({"instructions": "a"}), json!({"input": said})),
        (json!({"audio": null, "instructions": "a"}), json!({"input": said})),
        (
            json!({"audio": {"input": null, "output": {}}, "instructions": "a"}),
            json!({"input": said, "output": {}}),
        ),
    ] {
        let told = json!({"instructions": "a", "audio": extra});
        assert_eq!(applied(&mut settings, &input).unwrap(), (told, true), "{input}");
    }
    // Whoever has turned it off starts turns alone, until it is turned on again.
    let own = json!({"type": "server_vad", "create_response": false});
    assert!(!applied(&mut settings, &json!({"audio": {"input": {"turn_detection": own}}})).unwrap().1);
    assert!(!applied(&mut settings, &json!({"audio": {"input": {"turn_detection": null}}})).unwrap().1);
    let none = applied(&mut settings, &json!({"audio": {"input": {}}})).unwrap();
    assert_eq!(none, (json!({"audio": {"input": {"turn_detection": null}}}), false));
    assert!(
        applied(&mut settings, &json!({"audio": {"input": {"turn_detection": {"type": "server_vad"}}}}))
            .unwrap()
            .1
    );
}

#[test]
fn settings_that_are_refused_change_nothing() {
    let (_, rules) = endpoint();
    let mut settings = TurnSettings::new(&rules, true);
    for (session, reason) in [
        (json!({"model": "gpt-realtime-2"}), "model_not_allowed"),
        (json!({"prompt": {"id": "p"}, "audio": {"input": {"turn_detection": null}}}), "unmetered_endpoint"),
        (json!({"tools": [{"type": "function"}, {"type": "mcp"}]}), "unmetered_endpoint"),
        (json!({"tools": [{}]}), "unmetered_endpoint"),
        (json!({"type": "transcription"}), "unmetered_endpoint"),
        (json!({"audio": {"input": {"transcription": {}, "turn_detection": null}}}), "unmetered_endpoint"),
        (json!({"Max_output_tokens": 5}), "unmetered_endpoint"),
        (json!({"max_output_tokens": 0}), "body_invalid"),
        (json!({"max_output_tokens": 1.5}), "body_invalid"),
        (json!([]), "body_invalid"),
        (
            json!({"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 1}}}}),
            "unmetered_endpoint",
        ),
        (json!({"audio": {"input": {"turn_detection": true}}}), "body_invalid"),
        (json!({"audio": []}), "body_invalid"),
    ] {
        assert_eq!(applied(&mut settings, &session), Err(reason), "{session}");
        assert!(settings.starts_turns(), "{session}");
        assert_eq!(settings.cap(), Cap::Unsaid, "{session}");
    }
    assert!(
        applied(&mut settings, &json!({"model": "gpt-realtime", "max_output_tokens": 7, "tools": null}))
            .is_ok()
    );
    assert_eq!(settings.cap(), Cap::Tokens(7));
    assert!(applied(&mut settings, &json!({"max_output_tokens": "inf"})).is_ok());
    assert_eq!(settings.cap(), Cap::Unlimited);
}

#[test]
fn the_cap_that_a_hold_rests_on_is_written_whatever_settings_the_provider_has() {
    for (cap, most, unsaid, written) in [
        (Cap::Tokens(1), Some(4_096), None, Some(1)),
        (Cap::Tokens(9_000), Some(4_096), None, Some(4_096)),
        (Cap::Tokens(9_000), None, None, Some(9_000)),
        (Cap::Unlimited, Some(4_096), None, Some(4_096)),
        (Cap::Unsaid, Some(4_096), Some(100), Some(100)),
        (Cap::Unlimited, None, None, None),
    ] {
        assert_eq!(cap.written(most, unsaid), written, "{cap:?}");
    }
}

#[test]
fn a_message_that_asks_for_a_turn_gets_a_name_that_no_client_chose() {
    let (_, rules) = endpoint();
    let renamed = |id: Value| {
        let Value::Object(mut object) = json!({"type": "response.create", "event_id": id}) else { panic!() };
        let names = refusal::rename(&rules, &mut object).map_err(|denial| denial.reason.as_str())?;
        assert_eq!(object["event_id"], *names.0);
        Ok::<_, &str>(names)
    };
    let (first, second) = (renamed(json!("same")).unwrap(), renamed(json!("same")).unwrap());
    assert_ne!(first.0, second.0);
    assert_eq!((first.1.as_deref(), second.1.as_deref()), (Some("same"), Some("same")));
    assert_eq!(renamed(Value::Null).unwrap().1, None);
    assert_eq!(renamed(json!(1)), Err("body_invalid"));
    assert!(renamed(json!("a".repeat(512))).is_ok());
    assert_eq!(renamed(json!("a".repeat(513))), Err("body_invalid"));
    let Value::Object(long) = json!({"event_id": "a".repeat(513)}) else { panic!() };
    assert_eq!(refusal::own_name(&rules, &long), None, "it is not repeated either");
}

#[test]
fn what_a_message_only_names_is_outside_of_it() {
    let (_, rules) = endpoint();
    let outside = |item: Value| brings_outside(&rules, &json!({"response": {"input": [item]}}));
    assert!(outside(json!({"type": "item_reference", "id": "item_1"})));
    assert!(outside(json!({"id": "item_1"})));
    assert!(outside(json!({"type": "message", "content": [{"type": "input_image", "image_url": "data:"}]})));
    assert!(!outside(
        json!({"type": "message", "id": "a", "content": [{"type": "input_text", "text": "a"}]})
    ));
    assert!(!brings_outside(
        &rules,
        &json!({"response": {"audio": {"output": {"voice": {"id": "voice_1"}}}}})
    ));
}

#[test]
fn a_message_that_is_judged_says_little_but_for_long_strings_and_keeps_its_room() {
    let read = |text: &str| {
        let (usage, (_, rules)) = (usage(), endpoint());
        let mut reader = ClientReader::new(&rules, Arc::clone(&usage), 4 << 20);
        let taken = reader.take(piece(Opcode::Text, true, text)).map_err(|violation| violation.code);
        // The room of one is 2 MiB.
        let is_kept = !BufferReservation::default().grow(3 << 19, &usage);
        taken.map(|_taken| is_kept)
    };
    let item = |content: &str| format!(r#"{{"type":"conversation.item.create","item":[{content}]}}"#);
    assert_eq!(read(&item("")), Ok(false));
    assert_eq!(read(&item(&format!(r#""{}""#, r#"\""#.repeat(600 << 10)))), Ok(true), "sound");
    assert_eq!(read(&item(&format!("{}0", "0,".repeat(600 << 10)))), Err(1009));
    assert_eq!(read(&item(&format!("{}0", r#""aaaaaaaaaaaa","#.repeat(80 << 10)))), Err(1009));
    let sound = format!(r#"{{"audio":[{}0],"type":"input_audio_buffer.append"}}"#, "0,".repeat(600 << 10));
    assert_eq!(read(&sound), Ok(true), "it is not read into values");
}

#[test]
fn where_only_models_are_limited_nothing_else_is_changed() {
    let (_, rules) = endpoint();
    let mut settings = TurnSettings::new(&rules, false);
    assert_eq!(settings.opening(&rules), None);
    assert_eq!(applied(&mut settings, &json!({"model": "other"})), Err("model_not_allowed"));
    let session =
        json!({"prompt": {"id": "p"}, "audio": {"input": {"transcription": {"model": "whisper-1"}}}});
    assert_eq!(applied(&mut settings, &session), Ok((session, false)));
}

const DONE: &str = r#"{"type":"response.done","event_id":"e","response":{"id":"resp_1","object":"realtime.response","status":"completed","output":[{"type":"message","content":[{"type":"output_audio","transcript":"{\"type\":\"error\"} \"usage\""}]}],"usage":{"total_tokens":253,"input_tokens":132,"output_tokens":121,"input_token_details":{"text_tokens":119,"audio_tokens":13,"image_tokens":0,"cached_tokens":64,"cached_tokens_details":{"text_tokens":60,"audio_tokens":4,"image_tokens":0}},"output_token_details":{"text_tokens":30,"audio_tokens":91}}}}"#;

#[test]
fn events_are_read_wherever_they_are_cut() {
    let (endpoint, rules) = endpoint();
    for cut in [1, 7, 64, DONE.len() - 1] {
        let mut reader = ServerReader::new(&endpoint, &rules);
        let (first, rest) = DONE.split_at(cut);
        assert_eq!(reader.read(&piece(Opcode::Text, false, first)), None);
        assert!(!reader.is_between());
        assert_eq!(reader.read(&piece(Opcode::Ping, true, r#"{"type":"error"}"#)), None);
        assert_eq!(reader.read(&piece(Opcode::Continuation, true, rest)), Some(SessionEvent::Over));
        assert!(reader.is_between());
        assert_eq!((reader.turn(), reader.status()), (Some("resp_1"), Some("completed")));
        let units = usage::of_event(reader.places(), reader.slots()).units.unwrap();
        let expected = Units {
            input: 59,
            cache_read: 60,
            audio_in: 9,
            cache_read_audio: 4,
            output: 30,
            audio_out: 91,
            requests: 1,
            ..Units::default()
        };
        assert_eq!(units, expected);
        let at: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let price = shipped().unwrap().prices().price("openai", "gpt-realtime-mini", at).unwrap();
        let cost = 59 * 600 + 60 * 60 + 9 * 10_000 + 4 * 300 + 30 * 2_400 + 91 * 20_000;
        assert_eq!(price.cost(&units, None), NanoUsd(cost));
        reader.forget();
        assert_eq!(
            reader.read(&piece(Opcode::Text, true, r#"{"type":"response.done","response":{}}"#)),
            Some(SessionEvent::Over)
        );
        assert_eq!(
            usage::of_event(reader.places(), reader.slots()).units,
            None,
            "nothing is left of the turn before"
        );
    }
}

#[test]
fn each_event_that_decides_something_is_told() {
    let (endpoint, rules) = endpoint();
    let mut reader = ServerReader::new(&endpoint, &rules);
    let mut read = |text: &str| reader.read(&piece(Opcode::Text, true, text));
    for (kind, event) in [
        ("response.created", Some(SessionEvent::Began)),
        ("response.done", Some(SessionEvent::Over)),
        ("error", Some(SessionEvent::Error)),
        ("input_audio_buffer.speech_stopped", Some(SessionEvent::Heard)),
        ("input_audio_buffer.committed", Some(SessionEvent::Starts)),
        ("conversation.item.input_audio_transcription.completed", Some(SessionEvent::Beside)),
        ("response.output_audio.delta", None),
        ("rate_limits.updated", None),
    ] {
        assert_eq!(read(&format!(r#"{{"event_id":"e","type":"{kind}"}}"#)), event, "{kind}");
    }
    assert_eq!(reader.read(&piece(Opcode::Binary, true, r#"{"type":"error"}"#)), None);
    assert_eq!(
        reader.read(&piece(Opcode::Text, true, r#"{"type":"error","error":{"event_id":"mine"}}"#)),
        Some(SessionEvent::Error)
    );
    assert_eq!(reader.refused(), Some("mine"));
}
