//! What a request asks for.

use std::fmt;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use tollgate_policy::dialect::{Member, RequestRules};

use super::endpoint;
use crate::metering::facts::{ReadBody, apply, read};

/// What is read of a body is what serde_json reads of the same bytes; a member that decides anything stands in it once; and edits change
/// nothing but what they are for.
pub fn facts(data: &[u8]) {
    let Some((how, body)) = data.split_first() else { return };
    let Some(endpoint) = endpoint(*how) else { return };
    if how >> 3 == 31 {
        let _ = read(&endpoint, &headers("multipart/form-data; boundary=x"), body);
        return;
    }
    let rules = &endpoint.request;
    let json = headers("application/json");
    let found = read(&endpoint, &json, body);
    let members = serde_json::from_slice::<JsonMembers>(body);
    let Ok(found) = found else { return };
    assert!(serde_json::from_slice::<IgnoredAny>(body).is_ok(), "it is JSON");
    assert!(std::str::from_utf8(body).is_ok());
    // What nests too deeply, or has a number that is too large, a reader of the whole refuses.
    let Ok(JsonMembers(members)) = members else { return };
    assert_once(rules, &members);
    assert_agrees(rules, &found, &members);
    assert_edits(&found, body, |edited| read(&endpoint, &json, edited).ok());
}

fn headers(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))])
}

fn assert_once(rules: &RequestRules, members: &[(String, Value)]) {
    for (name, member) in rules.members().filter(|(_, member)| member.is_deciding()) {
        let same = members.iter().filter(|(written, _)| fold(written) == name).count();
        assert!(same <= 1, "{name}, which is {member:?}, occurs {same} times");
        assert!(!members.iter().any(|(written, _)| fold(written) == name && written != name), "{name}");
    }
}

/// Without letter case, as readers that ignore it compare (Unicode's simple folding).
fn fold(name: &str) -> String {
    name.to_lowercase().replace('\u{17F}', "s")
}

fn assert_agrees(rules: &RequestRules, found: &ReadBody, members: &[(String, Value)]) {
    let facts = &found.facts;
    let of = |wanted: fn(&Member) -> bool| {
        let values = members.iter().filter(move |(name, _)| rules.member(name).is_some_and(wanted));
        values.map(|(_, value)| value)
    };
    let model = of(|member| matches!(member, Member::Model)).find_map(Value::as_str);
    assert_eq!(facts.model.as_deref(), model);
    let stream = of(|member| matches!(member, Member::Stream)).any(|value| *value == Value::Bool(true));
    assert_eq!(facts.stream, stream);
    for cap in of(|member| matches!(member, Member::Cap)).filter(|value| !value.is_null()) {
        assert!(cap.as_u64() <= facts.output_cap && cap.is_u64(), "{cap}");
    }
    for choices in of(|member| matches!(member, Member::Choices)).filter(|value| !value.is_null()) {
        assert!(choices.as_u64() <= Some(facts.choices) && choices.is_u64(), "{choices}");
    }
    let is_unknown = members.iter().any(|(name, _)| rules.member(name).is_none());
    assert!(facts.outside || !is_unknown, "a member that nobody knows bounds nothing");
}

/// The edited body is read as the one that came, and has nothing else in it.
fn assert_edits(found: &ReadBody, body: &[u8], read: impl FnOnce(&[u8]) -> Option<ReadBody>) {
    let edits = found.edits(Some(7), None);
    let edited = apply(&edits, Bytes::copy_from_slice(body));
    let again = read(&edited);
    assert!(again.is_some(), "{}", String::from_utf8_lossy(&edited));
    let Some(again) = again else { return };
    assert!(!again.hides_usage() && again.edits(Some(7), None).is_empty(), "nothing is left to edit");
    let (facts, edited_facts) = (&found.facts, &again.facts);
    assert_eq!((&facts.model, facts.stream), (&edited_facts.model, edited_facts.stream));
    assert_eq!(facts.choices, edited_facts.choices);
    if edits.is_empty() {
        assert_eq!(edited, body);
    }
    // Taken as a list, so that a member which occurs twice counts twice.
    let parse = |body: &[u8]| serde_json::from_slice::<JsonMembers>(body).map(|JsonMembers(members)| members);
    let (Ok(before), Ok(after)) = (parse(body), parse(&edited)) else { return };
    let kept = before.iter().filter(|member| after.contains(member)).count();
    assert!(kept + 2 >= before.len(), "at most the cap and the option of usage change");
    assert!(after.len() <= before.len() + 2 && before.len() <= after.len());
}

/// The members of an object, in order, each as often as it occurs.
struct JsonMembers(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for JsonMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = JsonMembers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<JsonMembers, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_entry()? {
            list.push(member);
        }
        Ok(JsonMembers(list))
    }
}
