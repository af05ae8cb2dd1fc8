//! How an answer says what it did cost.

use serde::Deserialize;

use super::Problems;
use super::tree::{Path, Slot, Take, Tree};
use crate::price::Item;

/// Where an answer reports its usage, as trees of JSON paths that fill numbered slots.
#[derive(Debug, Default)]
pub struct ResponseRules {
    /// For an answer that is one JSON text.
    pub buffered: Reading,
    /// For an answer that is a stream of server-sent events; each event is one JSON text.
    pub streamed: Option<(StreamRules, Reading)>,
}

/// What to take out of a JSON text, and what it means.
#[derive(Debug, Default)]
pub struct Reading {
    /// The paths.
    pub tree: Tree,
    /// Numbers of usage. Those that count the same stand side by side.
    pub usage: Vec<UsageSlots>,
    /// The model that answered, as the provider names it: text slots, the last one filled counts.
    pub model: Vec<Slot>,
    /// How the call was served.
    pub tiers: Vec<TierSlots>,
    /// Numbers of what is billed and has no price here: another model's tokens.
    pub unpriced: Vec<Slot>,
    /// Seen where the answer is an error.
    pub error: Option<Slot>,
    /// Counts the bytes of text that the model wrote.
    pub text: Option<Slot>,
    /// The type of a stream's event.
    pub kind: Option<Slot>,
    /// The array that is empty in the extra event of forced usage.
    pub empty: Option<Slot>,
}

/// One number of usage.
#[derive(Debug)]
pub struct UsageSlots {
    /// The unit that it counts.
    pub unit: Item,
    /// The unit whose number includes this one.
    pub within: Option<Item>,
    /// The most that it can be.
    pub at_most: Option<u64>,
    /// It is counted from what the answer holds, not told in a report: what a report tells of the same goes before it.
    pub is_tally: bool,
    /// It is a report by itself, where there is none of tokens.
    pub is_report: bool,
    /// Counted out of it: items that are of no cost.
    pub except: Vec<Slot>,
    /// Where it stands in the event that opens a stream: a first value, which a later event may replace.
    pub opening: Option<Slot>,
    /// Where it stands in the final report.
    pub closing: Slot,
}

impl UsageSlots {
    /// What it counts: the unit, and the one that includes it.
    pub const fn counts(&self) -> (Item, Option<Item>) {
        (self.unit, self.within)
    }
}

/// One word of how a call was served.
#[derive(Debug)]
pub struct TierSlots {
    /// Text slots; the last one filled counts.
    pub slots: Vec<Slot>,
    /// Words that say nothing.
    pub not: Vec<Box<str>>,
}

/// How a stream of server-sent events is read.
#[derive(Debug)]
pub struct StreamRules {
    /// Which event says that the answer is complete.
    pub terminal: Terminal,
    /// Types of events that report an error.
    pub errors: Vec<Box<str>>,
}

/// The event that ends a stream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Terminal {
    /// One whose data is exactly this, which is no JSON.
    Data(Box<str>),
    /// One of these types.
    Types(Vec<Box<str>>),
}

/// The rules as a catalog file has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ResponseText {
    usage: Vec<UsageText>,
    model: Option<Path>,
    tiers: Vec<TierRule>,
    unpriced: Vec<UnpricedText>,
    error: Option<Path>,
    stream: Option<StreamText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageText {
    at: Path,
    unit: Item,
    within: Option<Item>,
    /// Instead of a number: how often this word stands at the path, or any string where it is `*`.
    counts: Option<Box<str>>,
    /// It is a report by itself, where there is none of tokens.
    #[serde(default)]
    reports: bool,
    /// How often one of some words stands elsewhere is taken off the count.
    except: Option<ExceptText>,
    /// The number may have a fraction, and a unit that was begun counts.
    #[serde(default)]
    rounded_up: bool,
    at_most: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExceptText {
    at: Path,
    is: Vec<Box<str>>,
}

/// A number, or how often a word stands somewhere: where it is not zero, something is billed that has no price.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnpricedText {
    at: Path,
    counts: Option<Box<str>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TierRule {
    at: Path,
    #[serde(default)]
    not: Vec<Box<str>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamText {
    terminal: Terminal,
    /// Where, in an event, stands what a buffered answer is at its top: the final report.
    at: Path,
    /// The same for the event that opens the stream.
    opens_at: Option<Path>,
    /// Where an event's type stands.
    kind: Option<Path>,
    #[serde(default)]
    errors: Vec<Box<str>>,
    /// Where the model's text stands, from the top of an event.
    #[serde(default)]
    text: Vec<Path>,
    /// The array that is empty in the extra event of forced usage.
    empty: Option<Path>,
}

impl ResponseText {
    pub(super) fn rules(&self, field: &str, problems: &mut Problems) -> ResponseRules {
        let buffered = self.reading(&[&Path::default()], None);
        let streamed = self.stream.as_ref().map(|stream| {
            let mut reading = self.reading(&stream.roots(), Some(stream));
            reading.kind = stream.kind.as_ref().map(|path| reading.tree.text(path));
            (stream.rules(), reading)
        });
        let depth = streamed.iter().map(|(_, reading)| reading.tree.depth()).max().unwrap_or(0);
        if depth.max(buffered.tree.depth()) > super::tree::MAX_DEPTH {
            problems.push((field.to_owned(), format!("paths have at most {} steps", super::tree::MAX_DEPTH)));
        }
        ResponseRules { buffered, streamed }
    }

    /// `roots` are where the report stands, the opening one first where there are two.
    fn reading(&self, roots: &[&Path], stream: Option<&StreamText>) -> Reading {
        let mut reading = Reading::default();
        let tree = &mut reading.tree;
        for usage in &self.usage {
            let mut slots = roots.iter().map(|root| {
                let path = root.join(&usage.at);
                match &usage.counts {
                    Some(word) => tree.take(&path, Take::Count(word.clone())),
                    None if usage.rounded_up => tree.take(&path, Take::RoundedUp),
                    None if path.has_each() => tree.take(&path, Take::Sum),
                    None => tree.take(&path, Take::Number),
                }
            });
            let (first, second) = (slots.next(), slots.next());
            let (opening, closing) = if second.is_some() { (first, second) } else { (None, first) };
            let except = usage.except.iter().flat_map(|except| {
                let path = roots.last().map(|root| root.join(&except.at)).unwrap_or_default();
                except.is.iter().map(move |word| (path.clone(), Take::Count(word.clone())))
            });
            let except = except.collect::<Vec<_>>();
            let except = except.into_iter().map(|(path, take)| tree.take(&path, take)).collect();
            if let Some(closing) = closing {
                reading.usage.push(UsageSlots {
                    unit: usage.unit,
                    within: usage.within,
                    at_most: usage.at_most,
                    is_tally: usage.counts.is_some(),
                    is_report: usage.reports,
                    except,
                    opening,
                    closing,
                });
            }
        }
        let counted: Vec<_> = reading.usage.iter().map(UsageSlots::counts).collect();
        reading.usage.sort_by_key(|usage| counted.iter().position(|counts| *counts == usage.counts()));
        reading.model = self
            .model
            .iter()
            .flat_map(|path| roots.iter().map(|root| root.join(path)))
            .map(|path| tree.text(&path))
            .collect();
        for tier in &self.tiers {
            let slots = roots.iter().map(|root| tree.text(&root.join(&tier.at))).collect();
            reading.tiers.push(TierSlots { slots, not: tier.not.clone() });
        }
        for unpriced in &self.unpriced {
            let take = || unpriced.counts.clone().map_or(Take::Number, Take::Count);
            let slots = roots.iter().map(|root| tree.take(&root.join(&unpriced.at), take()));
            reading.unpriced.extend(slots);
        }
        reading.error = self.error.as_ref().map(|path| tree.take(path, Take::Present));
        if let Some(stream) = stream {
            reading.text = tree.lengths(&stream.text);
            reading.empty = stream.empty.as_ref().map(|path| tree.take(path, Take::Empty));
        }
        reading
    }
}

impl StreamText {
    fn roots(&self) -> Vec<&Path> {
        self.opens_at.iter().chain(std::iter::once(&self.at)).collect()
    }

    fn rules(&self) -> StreamRules {
        let terminal = match &self.terminal {
            Terminal::Data(data) => Terminal::Data(data.clone()),
            Terminal::Types(types) => Terminal::Types(types.clone()),
        };
        StreamRules { terminal, errors: self.errors.clone() }
    }
}
