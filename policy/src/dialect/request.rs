//! How a request says what it may cost.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::Problems;
use super::content::{ContentRules, ContentText};
use super::names::Names;
use super::tool::{ToolRule, ToolRules};

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
    /// The most tokens that one call reads over all of its inputs. Without it, a call reads one context window for each.
    pub call_input: Option<u64>,
    /// The body may be a form (`multipart/form-data`) whose fields have the names of these members.
    pub may_be_form: bool,
    /// The model writes, and no member caps how much.
    pub is_uncapped: bool,
    has_cap: bool,
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
    /// How many choices are generated. Of several the largest counts.
    Choices,
    /// One input, or a list of them: each may fill a context window of its own.
    Inputs,
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
    /// Text that may be billed as output, beyond what the model writes and whatever the caps say.
    Predicted,
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
    pub const fn writes_tokens(&self) -> bool {
        self.is_uncapped || self.has_cap
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
    inputs: Option<Box<str>>,
    call_input: Option<u64>,
    tiers: BTreeMap<Box<str>, BTreeMap<Box<str>, Box<str>>>,
    content: ContentText,
    characters: Vec<Box<str>>,
    form: bool,
    tools: ToolRules,
    tool_members: BTreeMap<Box<str>, ToolRule>,
    outside: Vec<Box<str>>,
    whole: Vec<Box<str>>,
    predicted: Vec<Box<str>>,
    unbounded: Vec<Box<str>>,
    deferred: Vec<Box<str>>,
    other_models: Vec<Box<str>>,
    inert: Vec<Box<str>>,
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
        class(self.inputs.as_slice(), Member::Inputs);
        for (name, words) in self.tiers {
            class(&[name], Member::Tier(words));
        }
        class(&self.content.members, Member::Content);
        class(self.tools.members(), Member::Tools);
        class(self.tools.call_cap(), Member::CallCap);
        class(&self.characters, Member::Characters);
        for (name, rule) in self.tool_members {
            class(&[name], Member::Tool(rule));
        }
        class(&self.outside, Member::Outside);
        class(&self.whole, Member::Whole);
        class(&self.predicted, Member::Predicted);
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
            content: self.content.rules(field, problems),
            tools: self.tools,
            call_input: self.call_input,
            may_be_form: self.form,
            is_uncapped: self.output.uncapped,
            has_cap: !self.output.caps.is_empty(),
        }
    }
}
