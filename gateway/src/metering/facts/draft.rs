//! What is known of a body so far, and what follows from it.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde_json::value::RawValue;
use smallvec::SmallVec;
use tollgate_policy::decision::{Actions, Causes, Facts};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::{Member, RequestRules, ToolRule};
use tollgate_policy::price::{Detail, Image, Item, NanoUsd, UNIT_MAX};

use super::{CapMark, Marks, ReadBody, UsageMark, json};

/// More images than this are held at the whole window: no provider reads more.
const IMAGES_MAX: usize = 2000;

pub(super) struct Draft<'a, 'de> {
    pub(super) rules: &'a RequestRules,
    text: &'de str,
    /// Deciding members that the body has had.
    pub(super) seen: SmallVec<[&'a Member; 16]>,
    pub(super) has_members: bool,
    pub(super) model: Option<Cow<'de, str>>,
    pub(super) model_at: Option<Range<usize>>,
    pub(super) stream: bool,
    pub(super) cap: Option<u64>,
    pub(super) budget: u64,
    pub(super) choices: u64,
    pub(super) inputs: u64,
    pub(super) tiers: Vec<Cow<'a, str>>,
    outside: bool,
    whole: bool,
    unbounded: bool,
    causes: Causes,
    /// The content member that is being read.
    pub(super) at: Cow<'de, str>,
    images: Vec<Image>,
    pages: u64,
    picture_bytes: u64,
    written_before: u64,
    pub(super) predicted: u64,
    tools: ToolUse,
    pub(super) call_cap: Option<u64>,
    pub(super) characters: u64,
    searches_as: Option<Item>,
    /// The option that forces usage, where it is named.
    pub(super) usage: Option<UsageOption>,
    /// A `null` where the cap would be written.
    pub(super) null_cap: Option<Range<usize>>,
    obstacle: Option<Denial>,
    pub(super) refusal: Option<Denial>,
}

/// What the tools that the provider runs may add, for each choice.
#[derive(Default)]
struct ToolUse {
    fees: NanoUsd,
    /// How often the model is run again.
    passes: u64,
    /// Of the tools whose uses the body's own cap counts: one of them, and the dearest use.
    capped: Option<Arc<str>>,
    capped_fee: NanoUsd,
}

/// Where the option that forces usage stands.
pub(super) enum UsageOption {
    /// It is `true` already.
    Asked,
    /// It is named, and is something else.
    Named(Range<usize>),
    /// Its object begins here and may have members, but not this one.
    Object { opening: usize, has_members: bool },
    /// There is a `null` for the object.
    Null(Range<usize>),
}

impl<'a, 'de> Draft<'a, 'de> {
    pub(super) fn new(rules: &'a RequestRules, text: &'de str) -> Self {
        Self {
            rules,
            text,
            seen: SmallVec::new(),
            has_members: false,
            model: None,
            model_at: None,
            stream: false,
            cap: None,
            budget: 0,
            choices: 1,
            inputs: 1,
            tiers: Vec::new(),
            outside: false,
            whole: false,
            unbounded: false,
            causes: Causes::default(),
            at: Cow::Borrowed(""),
            images: Vec::new(),
            pages: 0,
            picture_bytes: 0,
            written_before: 0,
            predicted: 0,
            tools: ToolUse::default(),
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

    /// The model may read its whole window: for what, is said once.
    pub(super) fn outside(&mut self, cause: impl FnOnce() -> String) {
        self.outside = true;
        self.causes.outside.get_or_insert_with(|| cause().into());
    }

    /// The same, for something within the content that is being read.
    pub(super) fn content_outside(&mut self, what: &str) {
        self.content_outside_by(|| what.to_owned());
    }

    /// The same, in words that are made only where nobody has said why yet.
    pub(super) fn content_outside_by(&mut self, what: impl FnOnce() -> String) {
        self.outside = true;
        if self.causes.outside.is_none() {
            let cause = format!("{} in `{}`", what(), shown(&self.at));
            self.causes.outside = Some(cause.into());
        }
    }

    /// Nothing bounds the cost, and what does so is content from outside too.
    pub(super) fn unbounded(&mut self, cause: impl Fn() -> String) {
        self.unbounded = true;
        self.causes.unbounded.get_or_insert_with(|| cause().into());
        self.outside(cause);
    }

    /// A member that may change anything.
    pub(super) fn whole(&mut self, name: &str) {
        self.whole = true;
        self.outside(|| format!("`{}`, whatever the caps say", shown(name)));
    }

    /// A member that nobody knows may be a cap of its own, so no cap bounds the output of such a call.
    pub(super) fn unknown(&mut self, name: &str) {
        self.whole = true;
        self.outside(|| format!("`{}`, a member that the gateway does not know", shown(name)));
    }

    /// An image that fills so many bytes of the body; none where it is elsewhere.
    pub(super) fn add_image(&mut self, size: Option<(u32, u32)>, detail: Detail, bytes: usize) {
        if self.images.len() == IMAGES_MAX {
            self.content_outside("more images than any provider reads");
            return;
        }
        self.images.push(Image { size, detail });
        self.picture_bytes = self.picture_bytes.saturating_add(bytes as u64);
    }

    /// A PDF.
    pub(super) fn add_pages(&mut self, pages: u64, bytes: usize) {
        self.pages = self.pages.saturating_add(pages);
        self.picture_bytes = self.picture_bytes.saturating_add(bytes as u64);
    }

    /// Something that a model wrote in an earlier call, and that is not in the body.
    pub(super) fn add_written_before(&mut self) {
        self.written_before = self.written_before.saturating_add(1);
    }

    /// A tool that the provider runs, by its name in the catalog, and its own cap on uses where it names one.
    pub(super) fn add_tool(&mut self, (name, rule): (&str, &ToolRule), cap: Option<u64>) {
        let cause = || format!("a tool of the provider, `{name}`");
        self.searches_as = rule.searches_as.or(self.searches_as);
        if rule.outside {
            self.outside(cause);
        }
        if rule.unbounded {
            self.unbounded(cause);
        }
        if rule.other_models {
            self.other_models("tools");
        }
        if rule.unbounded || !rule.is_loop() {
            return;
        }
        let fee = rule.fee.map_or(NanoUsd::ZERO, |fee| fee.0);
        // The first run of the model is every call's.
        let runs = rule.runs.map_or(0, |runs| runs.saturating_sub(1));
        let uses = if rule.once { Some(1) } else { cap.filter(|cap| *cap > 0 && rule.cap.is_some()) };
        match uses {
            Some(uses) => {
                self.tools.fees = self.tools.fees.saturating_add(fee.saturating_mul(uses));
                self.tools.passes = self.tools.passes.saturating_add(uses.max(runs));
            }
            // The provider's own bound counts runs of the model, each of which may use the tool many times.
            None if fee == NanoUsd::ZERO && rule.runs.is_some() => {
                self.tools.passes = self.tools.passes.saturating_add(runs);
            }
            None => {
                let cap = rule.cap.as_deref().map(|cap| format!(" without `{cap}`"));
                self.tools.capped.get_or_insert_with(|| (cause() + &cap.unwrap_or_default()).into());
                self.tools.capped_fee = self.tools.capped_fee.max(fee);
            }
        }
    }

    pub(super) fn other_models(&mut self, name: &str) {
        let detail = format!("`{name}` names models beside the one of the call, and those cannot be limited");
        self.obstruct(Denial::new(Reason::ModelNotAllowed, detail));
    }

    pub(super) fn obstruct(&mut self, denial: Denial) {
        self.obstacle.get_or_insert(denial);
    }

    /// Where this part of the body stands.
    pub(super) fn range(&self, value: &'de RawValue) -> Range<usize> {
        let start = value.get().as_ptr() as usize - self.text.as_ptr() as usize;
        start..start + value.get().len()
    }

    pub(super) fn finish(mut self) -> ReadBody {
        self.finish_tools();
        let cap = if self.whole { Some(UNIT_MAX) } else { self.cap.map(|cap| cap.max(self.budget)) };
        let tier = self
            .tiers
            .iter()
            .filter(|word| !word.is_empty())
            .map(AsRef::as_ref)
            .collect::<Vec<_>>()
            .join("+");
        let marks = Marks {
            opening: memchr::memchr(b'{', self.text.as_bytes()).map_or(0, |brace| brace + 1),
            has_members: self.has_members,
            usage: self.usage_mark(),
            cap: self.cap_mark(),
            model: self.model_at.clone(),
        };
        let facts = Facts {
            actions: Actions::default(),
            model: self.model.as_deref().map(Into::into),
            stream: self.stream,
            body_bytes: self.text.len() as u64,
            output_cap: cap,
            choices: self.choices,
            outside: self.outside,
            passes: self.tools.passes.saturating_mul(self.choices).saturating_add(1),
            inputs: self.inputs,
            images: self.images,
            pages: self.pages,
            picture_bytes: self.picture_bytes,
            written_before: self.written_before,
            predicted: self.predicted,
            tool_fees: self.tools.fees.saturating_mul(self.choices),
            unbounded: self.unbounded,
            tier: (!tier.is_empty()).then(|| tier.into()),
            characters: self.characters,
            searches_as: self.searches_as,
            causes: self.causes,
        };
        ReadBody { facts, marks, obstacle: self.obstacle }
    }

    /// One cap of the body counts the uses of all tools that have none of their own.
    fn finish_tools(&mut self) {
        let Some(tool) = self.tools.capped.take() else { return };
        match self.call_cap {
            Some(calls) => {
                let fees = self.tools.capped_fee.saturating_mul(calls);
                self.tools.fees = self.tools.fees.saturating_add(fees);
                self.tools.passes = self.tools.passes.saturating_add(calls);
            }
            None => {
                let cap = self.rules.tools.call_cap().first();
                let missing = cap.map(|cap| format!(" without `{cap}`")).unwrap_or_default();
                self.unbounded(|| format!("{tool}{missing}"));
            }
        }
    }

    fn usage_mark(&self) -> UsageMark {
        if !self.stream {
            return UsageMark::Leave;
        }
        let option = self.rules.members().find_map(|(name, member)| match member {
            Member::UsageOption(option) => Some((name, option)),
            _ => None,
        });
        let Some((name, option)) = option else { return UsageMark::Leave };
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

/// A member's name for people: what is printed of it, and not much.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).filter(|c| *c != '`').take(json::NAME_SHOWN).collect()
}
