//! How a request says what it may cost.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::Problems;
use super::names::Names;
use crate::price::{Item, NanoUsd};

/// What each top-level member of an endpoint's JSON request means for its cost.
#[derive(Debug, Default)]
pub struct RequestRules {
    members: Names<Member>,
    /// The member that an output cap is written to where the request names none.
    pub cap_written_to: Option<Box<str>>,
    /// What the members of class [`Member::Content`] may hold.
    pub content: ContentRules,
    /// What the members of class [`Member::Tools`] may hold.
    pub tools: ToolRules,
    /// The body may be a form (`multipart/form-data`) whose fields have the names of these members.
    pub may_be_form: bool,
    /// The model writes, and no member caps how much.
    pub is_uncapped: bool,
}

/// What one top-level member means. One that has no rule is treated as [`Member::Whole`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// Names the model.
    Model,
    /// Asks for a streamed answer.
    Stream,
    /// An object whose option of this name asks a stream to report usage. It is forced to `true`.
    UsageOption(Box<str>),
    /// Caps the tokens of one choice. Of several the largest counts.
    Cap,
    /// An object whose member of this name is a number of tokens that may be spent whatever the caps say.
    Budget(Box<str>),
    /// How many choices are generated.
    Choices,
    /// Says how the call is to be served: what each value pins, in words that prices know; empty where it leaves it
    /// open. A value that is not listed counts as a word of its own, which no price knows.
    Tier(BTreeMap<Box<str>, Box<str>>),
    /// Text for the model, which may refer to more.
    Content,
    /// Text that is billed by its characters.
    Characters,
    /// Tools, some of which the provider runs itself.
    Tools,
    /// Caps how often the provider runs tools.
    CallCap,
    /// Is a tool by being there.
    Tool(ToolRule),
    /// Loads content that is not in the body: the input may be the whole context window.
    Outside,
    /// May change anything: the whole context window, and the model's maximum output whatever the caps say.
    Whole,
    /// Multiplies the cost without a bound.
    Unbounded,
    /// Where it is `true`, the call is billed after the answer.
    Deferred,
    /// Names models beside the one that was checked.
    OtherModels,
    /// Changes nothing about the cost.
    Inert,
}

impl Member {
    /// Whether it must be read the same way by everyone: it may stand in a body once, and in no other letter case.
    pub const fn is_deciding(&self) -> bool {
        !matches!(self, Self::Inert)
    }
}

/// What content members may hold. Where something in them is not listed as plain, it counts as outside.
#[derive(Debug, Default)]
pub struct ContentRules {
    members: Names<ContentMember>,
    /// Each item of the member's list has at least one member that identifies it, or it only refers to something stored.
    pub items_need_one: bool,
    /// Values of `type` that hold all of their content.
    pub plain: Vec<Box<str>>,
    /// Values of `type` that hold it only with this member.
    pub only_with: BTreeMap<Box<str>, Box<str>>,
    unbounded: Vec<Box<str>>,
}

/// What a member within content means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentMember {
    /// An item that has it is there whole.
    pub identifies: bool,
    /// Some type of content is whole only with it.
    pub completes: bool,
    /// It points to content elsewhere.
    pub refers: bool,
    /// Its value is the caller's own data: nothing in it is looked at.
    pub is_opaque: bool,
}

impl ContentRules {
    /// What this member means, at any depth.
    pub fn member(&self, name: &str) -> ContentMember {
        self.members.get(name).copied().unwrap_or_default()
    }

    /// Whether this `type` multiplies the cost without a bound.
    pub fn is_unbounded(&self, kind: &str) -> bool {
        self.unbounded.iter().any(|name| matches(name, kind))
    }
}

/// What tools cost by their `type`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolRules {
    members: Vec<Box<str>>,
    call_cap: Option<Box<str>>,
    /// A tool without a `type`.
    pub untyped: Option<ToolRule>,
    types: BTreeMap<Box<str>, ToolRule>,
}

/// What one type of tool costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ToolRule {
    /// It brings content that is not in the body.
    pub outside: bool,
    /// What the provider charges for each use.
    pub fee: Option<NanoUsdText>,
    /// It is charged once at most.
    pub once: bool,
    /// Its member that caps its uses.
    pub cap: Option<Box<str>>,
    /// It multiplies the cost without a bound.
    pub unbounded: bool,
    /// It names a model beside the one that was checked.
    pub other_models: bool,
    /// What searches of the web are billed as, where a request has it.
    pub searches_as: Option<Item>,
}

/// An amount such as `0.01 USD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NanoUsdText(pub NanoUsd);

impl TryFrom<String> for NanoUsdText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("{text:?}: {error}"))
    }
}

impl ToolRules {
    /// Whether some type of tool has a member of this name that caps its uses.
    pub fn is_cap(&self, name: &str) -> bool {
        self.types.values().any(|rule| rule.cap.as_deref() == Some(name))
    }

    /// The rule for a tool of this type; `None` where nothing is known of it.
    pub fn rule(&self, kind: Option<&str>) -> Option<&ToolRule> {
        match kind {
            None => self.untyped.as_ref(),
            Some(kind) => self.types.get(kind).or_else(|| {
                self.types
                    .iter()
                    .find(|(name, _)| name.ends_with('*') && matches(name, kind))
                    .map(|(_, rule)| rule)
            }),
        }
    }
}

fn matches(name: &str, kind: &str) -> bool {
    name.strip_suffix('*').map_or(name == kind, |prefix| kind.starts_with(prefix))
}

impl RequestRules {
    /// Whether nothing is known of this endpoint's request body.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What this member means; `None` where the catalog does not know it.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.get(name)
    }

    /// All members that the catalog knows, in no order.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.members.iter().map(|(name, member)| (&**name, member))
    }

    /// Whether the answer is tokens that a model writes, which a cap or the model's maximum can bound.
    pub fn writes_tokens(&self) -> bool {
        self.is_uncapped || self.members.iter().any(|(_, member)| matches!(member, Member::Cap))
    }

    /// Whether a streamed answer reports usage only if the request asks for it.
    pub fn forces_usage(&self) -> bool {
        self.members.iter().any(|(_, member)| matches!(member, Member::UsageOption(_)))
    }
}

/// The rules as a catalog file has them: members by class.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RequestText {
    model: Option<Box<str>>,
    stream: Option<Box<str>>,
    usage_option: Option<UsageOptionText>,
    output: OutputText,
    choices: Vec<Box<str>>,
    tiers: BTreeMap<Box<str>, BTreeMap<Box<str>, Box<str>>>,
    content: ContentText,
    characters: Vec<Box<str>>,
    form: bool,
    tools: ToolRules,
    tool_members: BTreeMap<Box<str>, ToolRule>,
    outside: Vec<Box<str>>,
    whole: Vec<Box<str>>,
    unbounded: Vec<Box<str>>,
    deferred: Vec<Box<str>>,
    other_models: Vec<Box<str>>,
    inert: Vec<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ContentText {
    members: Vec<Box<str>>,
    items_need: Vec<Box<str>>,
    plain: Vec<Box<str>>,
    only_with: BTreeMap<Box<str>, Box<str>>,
    /// One that ends in `*` is a prefix.
    unbounded: Vec<Box<str>>,
    references: Vec<Box<str>>,
    opaque: Vec<Box<str>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageOptionText {
    member: Box<str>,
    option: Box<str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OutputText {
    caps: Vec<Box<str>>,
    budgets: BTreeMap<Box<str>, Box<str>>,
    written_to: Option<Box<str>>,
    /// No member caps it: the model's maximum.
    uncapped: bool,
}

impl ContentText {
    fn rules(self) -> ContentRules {
        let mut members: BTreeMap<Box<str>, ContentMember> = BTreeMap::new();
        let items_need_one = !self.items_need.is_empty();
        for name in self.items_need {
            members.entry(name).or_default().identifies = true;
        }
        for name in self.only_with.values() {
            members.entry(name.clone()).or_default().completes = true;
        }
        for name in self.references {
            members.entry(name).or_default().refers = true;
        }
        for name in self.opaque {
            members.entry(name).or_default().is_opaque = true;
        }
        ContentRules {
            members: members.into_iter().collect(),
            items_need_one,
            plain: self.plain,
            only_with: self.only_with,
            unbounded: self.unbounded,
        }
    }
}

impl RequestText {
    pub(super) fn rules(self, field: &str, problems: &mut Problems) -> RequestRules {
        let mut members = HashMap::new();
        let mut class = |names: &[Box<str>], member: Member| {
            for name in names {
                if name
                    .bytes()
                    .any(|byte| !byte.is_ascii_lowercase() && !byte.is_ascii_digit() && byte != b'_')
                {
                    let problem =
                        format!("{name:?} must be lower case, digits and `_`, so that case folding finds it");
                    problems.push((field.to_owned(), problem));
                }
                if members.insert(name.clone(), member.clone()).is_some() {
                    problems.push((field.to_owned(), format!("the member {name:?} has two classes")));
                }
            }
        };
        class(self.model.as_slice(), Member::Model);
        class(self.stream.as_slice(), Member::Stream);
        if let Some(usage) = self.usage_option {
            class(&[usage.member], Member::UsageOption(usage.option));
        }
        class(&self.output.caps, Member::Cap);
        for (name, budget) in self.output.budgets {
            class(&[name], Member::Budget(budget));
        }
        class(&self.choices, Member::Choices);
        for (name, words) in self.tiers {
            class(&[name], Member::Tier(words));
        }
        class(&self.content.members, Member::Content);
        class(&self.characters, Member::Characters);
        class(&self.tools.members, Member::Tools);
        class(self.tools.call_cap.as_slice(), Member::CallCap);
        for (name, rule) in self.tool_members {
            class(&[name], Member::Tool(rule));
        }
        class(&self.outside, Member::Outside);
        class(&self.whole, Member::Whole);
        class(&self.unbounded, Member::Unbounded);
        class(&self.deferred, Member::Deferred);
        class(&self.other_models, Member::OtherModels);
        class(&self.inert, Member::Inert);
        if let Some(name) = &self.output.written_to
            && members.get(name) != Some(&Member::Cap)
        {
            problems.push((field.to_owned(), format!("written_to: {name:?} is not one of the caps")));
        }
        RequestRules {
            members: members.into_iter().collect(),
            cap_written_to: self.output.written_to,
            content: self.content.rules(),
            tools: self.tools,
            may_be_form: self.form,
            is_uncapped: self.output.uncapped,
        }
    }
}
