//! Tools: which of them the provider runs itself, and what that may cost.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::body::Draft;
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
        let mut caps: Vec<(_, &RawValue)> = Vec::new();
        while let Some(name) = members.next_key_seed(json::Str)? {
            let folded = json::folded(&name);
            let plain = folded.as_deref().unwrap_or(&name);
            let is_cap = rules.is_cap(plain);
            let is_again = (name == "type" && kind.is_some()) || caps.iter().any(|(seen, _)| *seen == name);
            if (folded.is_some() && (plain == "type" || is_cap)) || is_again {
                draft.refusal = Some(json::ambiguous(&format!("tools[].{plain}")));
                return Err(A::Error::custom("refused"));
            }
            if name == "type" {
                kind = Some(members.next_value_seed(content::Kind)?);
            } else if is_cap {
                caps.push((name, members.next_value()?));
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        let Some(rule) = rules.rule(kind.flatten().as_deref()) else {
            draft.outside = true;
            draft.unbounded = true;
            return Ok(());
        };
        let cap = caps.iter().find(|(name, _)| rule.cap.as_deref() == Some(&**name));
        match cap.map(|(name, value)| json::count(value, &format!("tools[].{name}"))).transpose() {
            Ok(cap) => draft.add_tool(rule, cap.flatten()),
            Err(denial) => {
                draft.refusal = Some(denial);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}
