//! Tools: which of them the provider runs itself, and what that may cost.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::draft::{Draft, shown};
use super::{content, json};

/// Reads a list of tools.
pub(super) struct Tools<'d, 'a, 'de>(pub(super) &'d mut Draft<'a, 'de>);

impl<'de> DeserializeSeed<'de> for Tools<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tools<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tools")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut tools: A) -> Result<(), A::Error> {
        while tools.next_element_seed(Tool(self.0))?.is_some() {}
        Ok(())
    }
}

struct Tool<'d, 'a, 'de>(&'d mut Draft<'a, 'de>);

impl<'de> DeserializeSeed<'de> for Tool<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Tool<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tool")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let draft = self.0;
        let rules = &draft.rules().tools;
        let mut kind = None;
        // Members that decide: caps, and who runs it.
        let mut deciding: Vec<(_, &RawValue)> = Vec::new();
        while let Some(name) = members.next_key_seed(json::Str)? {
            let folded = json::folded(&name);
            let plain = folded.as_deref().unwrap_or(&name);
            let decides = rules.is_cap(plain) || rules.is_runner(plain);
            let is_special = plain == "type" || decides || rules.is_container(plain);
            let is_again =
                (name == "type" && kind.is_some()) || deciding.iter().any(|(seen, _)| *seen == name);
            if (folded.is_some() && is_special) || is_again {
                draft.refusal = Some(json::ambiguous(&format!("tools[].{plain}")));
                return Err(A::Error::custom("refused"));
            }
            if name == "type" {
                kind = Some(members.next_value_seed(content::TypeName)?);
            } else if decides {
                deciding.push((name, members.next_value()?));
            } else if rules.is_container(&name) {
                members.next_value_seed(Tools(draft))?;
            } else {
                if !rules.is_known(&name) {
                    draft.outside(|| {
                        format!("`tools[].{}`, a member that the gateway does not know", shown(&name))
                    });
                }
                members.next_value::<IgnoredAny>()?;
            }
        }
        let Some((name, rule)) = rules.rule_and_name(kind.flatten().as_deref()) else {
            draft.unbounded(|| "a tool of a type that the gateway does not know".to_owned());
            return Ok(());
        };
        let value = |member: &str| deciding.iter().find(|(name, _)| *name == member).map(|(_, value)| *value);
        let is_by_caller = |(member, word): &(Box<str>, Box<str>)| {
            let said = value(member).and_then(|value| json::string(value, member).ok().flatten());
            said.is_some_and(|said| *said == **word)
        };
        if rule.by_caller.as_ref().is_some_and(is_by_caller) {
            return Ok(());
        }
        let cap = rule.cap.as_deref().and_then(|cap| Some((cap, value(cap)?)));
        match cap.map(|(name, value)| json::count(value, &format!("tools[].{name}"))).transpose() {
            Ok(cap) => draft.add_tool((name, rule), cap.flatten()),
            Err(denial) => {
                draft.refusal = Some(denial);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}
