//! The top level of a request body.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use tollgate_policy::decision::{Actions, Facts};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::{Member, RequestRules, ToolRule};
use tollgate_policy::price::{Item, NanoUsd, UNIT_MAX};

use super::content::Content;
use super::tools::Tools;
use super::{CapMark, Marks, ReadBody, UsageMark, json};

/// The longest model name or tier that is read.
const NAME_MAX: usize = 256;

pub(super) fn read(rules: &RequestRules, body: &[u8]) -> Result<ReadBody, Denial> {
    let refuse = |detail: String| Denial::new(Reason::BodyInvalid, detail);
    let text = std::str::from_utf8(body).map_err(|_| refuse("the body must be JSON in UTF-8".to_owned()))?;
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

/// What is known so far.
pub(super) struct Draft<'a, 'de> {
    rules: &'a RequestRules,
    text: &'de str,
    /// Deciding members that the body has had.
    seen: Vec<&'a Member>,
    has_members: bool,
    model: Option<Cow<'de, str>>,
    stream: bool,
    cap: Option<u64>,
    budget: u64,
    choices: u64,
    tiers: Vec<Cow<'a, str>>,
    pub(super) outside: bool,
    whole: bool,
    pub(super) unbounded: bool,
    fees: NanoUsd,
    /// The dearest use of a tool whose uses the body's own cap counts, and that cap.
    capped_fee: NanoUsd,
    call_cap: Option<u64>,
    characters: u64,
    searches_as: Option<Item>,
    /// The option that forces usage, where it is named.
    usage: Option<UsageOption>,
    /// A `null` where the cap would be written.
    null_cap: Option<Range<usize>>,
    obstacle: Option<Denial>,
    pub(super) refusal: Option<Denial>,
}

/// Where the option that forces usage stands.
enum UsageOption {
    /// It is `true` already.
    Asked,
    /// It is named, and is something else.
    Named(Range<usize>),
    /// Its object begins here and may have members, but not this one.
    Object { opening: usize, has_members: bool },
    /// There is a `null` for the object.
    Null(Range<usize>),
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
                Some(Member::Content) => members.next_value_seed(Content::member(draft))?,
                Some(Member::Tools) => members.next_value_seed(Tools(draft))?,
                None | Some(Member::Inert) => {
                    draft.whole |= member.is_none();
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

impl<'a, 'de> Draft<'a, 'de> {
    fn new(rules: &'a RequestRules, text: &'de str) -> Self {
        Self {
            rules,
            text,
            seen: Vec::new(),
            has_members: false,
            model: None,
            stream: false,
            cap: None,
            budget: 0,
            choices: 1,
            tiers: Vec::new(),
            outside: false,
            whole: false,
            unbounded: false,
            fees: NanoUsd::ZERO,
            capped_fee: NanoUsd::ZERO,
            call_cap: None,
            characters: 0,
            searches_as: None,
            usage: None,
            null_cap: None,
            obstacle: None,
            refusal: None,
        }
    }

    pub(super) const fn rules(&self) -> &'a RequestRules {
        self.rules
    }

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
            }
            Member::Stream => self.stream = json::flag(value, name)?,
            Member::UsageOption(option) => self.usage = Some(self.usage_option(name, option, value)?),
            Member::Cap => {
                let cap = json::count(value, name)?;
                if cap.is_none() && self.rules.cap_written_to.as_deref() == Some(name) {
                    self.null_cap = Some(self.range(value));
                }
                self.cap = self.cap.max(cap);
            }
            Member::Budget(inner) if value.get() != "null" => {
                if let Some(budget) = json::inner(value, name, inner)?.value {
                    let budget = json::count(budget, &format!("{name}.{inner}"))?;
                    self.budget = self.budget.max(budget.unwrap_or(0));
                }
            }
            Member::Choices => self.choices = json::count(value, name)?.unwrap_or(1).max(1),
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
            Member::CallCap => self.call_cap = json::count(value, name)?,
            Member::Tool(rule) if !matches!(value.get(), "null" | "false") => self.add_tool(rule, None),
            Member::Outside => self.outside |= !json::is_nothing(value),
            Member::Whole => self.whole |= !json::is_nothing(value),
            Member::Unbounded => self.unbounded |= !json::is_nothing(value),
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

    /// A tool that the provider runs, with its own cap on uses where it names one.
    pub(super) fn add_tool(&mut self, rule: &ToolRule, cap: Option<u64>) {
        self.outside |= rule.outside;
        self.unbounded |= rule.unbounded;
        self.searches_as = rule.searches_as.or(self.searches_as);
        if rule.other_models {
            self.other_models("tools");
        }
        let Some(fee) = rule.fee.map(|fee| fee.0) else { return };
        let uses = if rule.once { Some(1) } else { cap.filter(|_| rule.cap.is_some()) };
        match uses {
            Some(uses) => self.fees = self.fees.saturating_add(fee.saturating_mul(uses)),
            None => self.capped_fee = self.capped_fee.max(fee),
        }
    }

    fn other_models(&mut self, name: &str) {
        let detail = format!("`{name}` names models beside the one of the call, and those cannot be limited");
        self.obstruct(Denial::new(Reason::ModelNotAllowed, detail));
    }

    fn obstruct(&mut self, denial: Denial) {
        self.obstacle.get_or_insert(denial);
    }

    /// Where this part of the body stands.
    fn range(&self, value: &'de RawValue) -> Range<usize> {
        let start = value.get().as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + value.get().len()
    }

    fn finish(self) -> ReadBody {
        let (mut fees, mut unbounded) = (self.fees, self.unbounded);
        if self.capped_fee > NanoUsd::ZERO {
            match self.call_cap {
                Some(calls) => fees = fees.saturating_add(self.capped_fee.saturating_mul(calls)),
                None => unbounded = true,
            }
        }
        // A member that nobody knows may be a cap of its own, so no cap bounds the output of such a call.
        let cap = if self.whole { Some(UNIT_MAX) } else { self.cap.map(|cap| cap.max(self.budget)) };
        let tier = self
            .tiers
            .iter()
            .filter(|word| !word.is_empty())
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join("+");
        let facts = Facts {
            actions: Actions::default(),
            model: self.model.as_deref().map(Into::into),
            stream: self.stream,
            body_bytes: self.text.len() as u64,
            output_cap: cap,
            choices: self.choices,
            outside: self.outside || self.whole,
            tool_fees: fees.saturating_mul(self.choices),
            unbounded,
            tier: (!tier.is_empty()).then(|| tier.into()),
            characters: self.characters,
            searches_as: self.searches_as,
        };
        let marks = Marks {
            opening: self.text.find('{').map_or(0, |brace| brace + 1),
            has_members: self.has_members,
            usage: self.usage_mark(),
            cap: self.cap_mark(),
        };
        ReadBody { facts, marks, obstacle: self.obstacle }
    }

    fn usage_mark(&self) -> UsageMark {
        let option = self.rules.members().find_map(|(name, member)| match member {
            Member::UsageOption(option) => Some((name, option)),
            _ => None,
        });
        let Some((name, option)) = option.filter(|_| self.stream) else { return UsageMark::Leave };
        match &self.usage {
            Some(UsageOption::Asked) => UsageMark::Leave,
            Some(UsageOption::Named(range)) => UsageMark::Replace(range.clone(), "true".to_owned()),
            Some(UsageOption::Object { opening, has_members }) => {
                let comma = if *has_members { "," } else { "" };
                UsageMark::Replace(*opening..*opening, format!("\"{option}\":true{comma}"))
            }
            Some(UsageOption::Null(range)) => {
                UsageMark::Replace(range.clone(), format!("{{\"{option}\":true}}"))
            }
            None => UsageMark::Insert(format!("\"{name}\":{{\"{option}\":true}}")),
        }
    }

    fn cap_mark(&self) -> CapMark {
        match (&self.rules.cap_written_to, &self.null_cap) {
            (Some(name), None) if self.cap.is_none() => CapMark::Insert(name.clone()),
            (Some(_), Some(range)) if self.cap.is_none() => CapMark::Replace(range.clone()),
            _ => CapMark::Leave,
        }
    }
}
