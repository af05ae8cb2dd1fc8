//! The top level of a request body.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::{Member, RequestRules};
use tollgate_policy::price::UNIT_MAX;

use super::content::Content;
use super::draft::{Draft, UsageOption};
use super::tools::Tools;
use super::{ReadBody, json, surrogate};

/// The longest model name or tier that is read.
const NAME_MAX: usize = 256;

pub(super) fn read(rules: &RequestRules, body: &[u8]) -> Result<ReadBody, Denial> {
    let refuse = |detail: String| Denial::new(Reason::BodyInvalid, detail);
    let text = std::str::from_utf8(body).map_err(|_| refuse("the body must be JSON in UTF-8".to_owned()))?;
    surrogate::check(text)?;
    let mut draft = Draft::new(rules, text);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = Members(&mut draft).deserialize(&mut deserializer).and_then(|()| deserializer.end());
    if let Some(denial) = draft.refusal {
        return Err(denial);
    }
    read.map_err(|error| {
        let (line, column) = (error.line(), error.column());
        refuse(format!("the body must be one JSON object: it is not at line {line}, column {column}"))
    })?;
    Ok(draft.finish())
}

struct Members<'d, 'a, 'de>(&'d mut Draft<'a, 'de>);

impl<'de> DeserializeSeed<'de> for Members<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let draft = self.0;
        while let Some(name) = members.next_key_seed(json::Str)? {
            draft.has_members = true;
            let member = draft.rules.member(&name);
            draft.check_name(&name, member);
            match member {
                _ if draft.refusal.is_some() => {}
                Some(Member::Content) => {
                    draft.at = name;
                    members.next_value_seed(Content::member(draft))?;
                }
                Some(Member::Tools) => members.next_value_seed(Tools(draft))?,
                Some(Member::Inputs) => draft.inputs = members.next_value_seed(Inputs)?.max(1),
                Some(Member::Inert) => {
                    members.next_value::<IgnoredAny>()?;
                }
                None => {
                    draft.unknown(&name);
                    members.next_value::<IgnoredAny>()?;
                }
                Some(member) => {
                    let value = members.next_value::<&RawValue>()?;
                    if let Err(denial) = draft.note(&name, member, value) {
                        draft.refusal = Some(denial);
                    }
                }
            }
            if draft.refusal.is_some() {
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// Counts inputs: a list of numbers is one, as is anything that is no list.
struct Inputs;

impl<'de> DeserializeSeed<'de> for Inputs {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        let value = <&RawValue as serde::Deserialize>::deserialize(deserializer)?;
        if !value.get().starts_with('[') {
            return Ok(1);
        }
        serde_json::Deserializer::from_str(value.get()).deserialize_seq(self).map_err(D::Error::custom)
    }
}

impl<'de> Visitor<'de> for Inputs {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("inputs")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        let (mut inputs, mut tokens) = (0, 0);
        while let Some(item) = items.next_element::<&RawValue>()? {
            let is_token = item.get().bytes().next().is_some_and(|first| first.is_ascii_digit());
            *(if is_token { &mut tokens } else { &mut inputs }) += 1;
        }
        Ok(inputs + u64::from(tokens > 0))
    }
}

impl<'a, 'de> Draft<'a, 'de> {
    /// A deciding member stands in the body once, and in no other letter case.
    fn check_name(&mut self, name: &str, member: Option<&'a Member>) {
        match member {
            Some(member) if member.is_deciding() => {
                if self.seen.iter().any(|seen| std::ptr::eq(*seen, member)) {
                    self.refusal = Some(json::ambiguous(name));
                }
                self.seen.push(member);
            }
            Some(_) => {}
            None => {
                let Some(folded) = json::folded(name) else { return };
                if self.rules.member(&folded).is_some_and(Member::is_deciding) {
                    self.refusal = Some(json::ambiguous(&folded));
                }
            }
        }
    }

    fn note(&mut self, name: &str, member: &'a Member, value: &'de RawValue) -> Result<(), Denial> {
        match member {
            Member::Model => {
                let model =
                    json::string(value, name)?.filter(|model| !model.is_empty() && model.len() <= NAME_MAX);
                self.model = Some(model.ok_or_else(|| json::invalid(name, "must be a model's name"))?);
                self.model_at = Some(self.range(value));
            }
            Member::Stream => self.stream = json::flag(value, name)?,
            Member::UsageOption(option) => self.usage = Some(self.usage_option(name, option, value)?),
            Member::Cap => {
                let cap = json::count(value, name)?;
                if cap.is_none() && self.rules.cap_written_to.as_deref() == Some(name) {
                    self.null_cap = Some(self.range(value));
                }
                // Nobody knows whether nothing is a cap.
                self.cap = self.cap.max(cap.map(|cap| if cap == 0 { UNIT_MAX } else { cap }));
            }
            Member::Budget(inner) if value.get() != "null" => {
                if let Some(budget) = json::inner(value, name, inner)?.value {
                    let budget = json::count(budget, &format!("{name}.{inner}"))?;
                    self.budget = self.budget.max(budget.unwrap_or(0));
                }
            }
            Member::Choices => self.choices = self.choices.max(json::count(value, name)?.unwrap_or(1)),
            Member::Tier(words) => {
                let Some(word) = json::string(value, name)? else { return Ok(()) };
                match words.get(&*word) {
                    Some(word) => self.tiers.push(Cow::Borrowed(word)),
                    // No price knows a word with this character, so the dearest is held.
                    None => self.tiers.push(Cow::Borrowed("?")),
                }
            }
            Member::Characters => {
                let text = json::string(value, name)?.unwrap_or_default();
                self.characters = self.characters.saturating_add(text.chars().count() as u64);
            }
            Member::CallCap => self.call_cap = json::count(value, name)?.filter(|cap| *cap > 0),
            Member::Tool(rule) if !matches!(value.get(), "null" | "false") => {
                self.add_tool((name, rule), None);
            }
            Member::Outside if !json::is_nothing(value) => {
                self.outside(|| format!("`{name}`, which loads content that is not in the body"));
            }
            Member::Whole if !json::is_nothing(value) => self.whole(name),
            Member::Predicted if !json::is_nothing(value) => {
                self.whole(name);
                self.predicted = self.predicted.saturating_add(value.get().len() as u64);
            }
            Member::Unbounded if !json::is_nothing(value) => {
                self.unbounded(|| format!("`{name}`, which multiplies it"));
            }
            Member::Deferred if !json::is_nothing(value) => {
                let detail = format!(
                    "`{name}` asks for work that is billed after the answer, which no limit can hold"
                );
                self.obstruct(Denial::new(Reason::DeferredCost, detail));
            }
            Member::OtherModels if !json::is_nothing(value) => self.other_models(name),
            _ => {}
        }
        Ok(())
    }

    fn usage_option(&self, name: &str, option: &str, value: &'de RawValue) -> Result<UsageOption, Denial> {
        if value.get() == "null" {
            return Ok(UsageOption::Null(self.range(value)));
        }
        let inner = json::inner(value, name, option)?;
        let Some(asked) = inner.value else {
            let opening = self.range(value).start + 1;
            return Ok(UsageOption::Object { opening, has_members: inner.has_members });
        };
        let path = format!("{name}.{option}");
        Ok(if json::flag(asked, &path)? { UsageOption::Asked } else { UsageOption::Named(self.range(asked)) })
    }
}
