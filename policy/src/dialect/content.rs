//! What the content of a request may hold.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::Problems;
use super::names::Names;
use super::tool::matches;

/// What content members may hold. Where something in them is not listed as plain, it counts as outside.
#[derive(Debug, Default)]
pub struct ContentRules {
    members: Names<ContentMember>,
    /// Each item of the member's list has at least one member that identifies it, or it only refers to something stored.
    pub items_need_one: bool,
    /// Values of `type` that hold all of their content.
    pub plain: BTreeSet<Box<str>>,
    /// Values of `type` that hold it only with this member.
    pub only_with: BTreeMap<Box<str>, Box<str>>,
    /// Values of `type` that, where they only refer to it, stand for what a model wrote in one earlier call.
    pub written_before: BTreeSet<Box<str>>,
    /// Values of `type` that are an image.
    pub images: BTreeSet<Box<str>>,
    /// Values of `type` that may be a PDF.
    pub documents: BTreeSet<Box<str>>,
    /// Values of `type` of what is in a document, where that is text.
    pub text_sources: BTreeSet<Box<str>>,
    /// Values of `type` whose member that carries something else's image names no more than where its text is from.
    pub citing: BTreeSet<Box<str>>,
    /// Tokens of text that a page of a PDF may have, beside its image.
    pub page_text: u64,
    unbounded: Vec<Box<str>>,
}

/// What a member within content means. One that the catalog does not know may be anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentMember {
    /// An item that has it is there whole.
    pub identifies: bool,
    /// Some type of content is whole only with it.
    pub completes: bool,
    /// It points to content elsewhere.
    pub refers: bool,
    /// Its value is, or holds, an image or a document in base64 or by its address.
    pub carries: bool,
    /// Within such a value, it is the one that has it.
    pub is_source: bool,
    /// Its value says in which detail an image is read.
    pub details: bool,
    /// Its value is the caller's own data: nothing in it is looked at.
    pub is_opaque: bool,
    /// A bit of its own where it must be read the same way by everyone, so that it may stand in an object once; else 0.
    pub bit: u64,
}

impl ContentMember {
    /// One that means nothing in particular.
    pub const PLAIN: Self = Self {
        identifies: false,
        completes: false,
        refers: false,
        carries: false,
        is_source: false,
        details: false,
        is_opaque: false,
        bit: 0,
    };

    const fn is_deciding(&self) -> bool {
        self.identifies || self.completes || self.refers || self.carries || self.is_source || self.details
    }
}

impl ContentRules {
    /// What this member means, at any depth; `None` where the catalog does not know it.
    pub fn member(&self, name: &str) -> Option<&ContentMember> {
        self.members.get(name)
    }

    /// Whether this `type` multiplies the cost without a bound.
    pub fn is_unbounded(&self, kind: &str) -> bool {
        self.unbounded.iter().any(|name| matches(name, kind))
    }
}

/// The rules as a catalog file has them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ContentText {
    pub(super) members: Vec<Box<str>>,
    items_need: Vec<Box<str>>,
    plain: BTreeSet<Box<str>>,
    only_with: BTreeMap<Box<str>, Box<str>>,
    written_before: BTreeSet<Box<str>>,
    images: BTreeSet<Box<str>>,
    documents: BTreeSet<Box<str>>,
    text_sources: BTreeSet<Box<str>>,
    citing: BTreeSet<Box<str>>,
    page_text: u64,
    /// One that ends in `*` is a prefix.
    unbounded: Vec<Box<str>>,
    references: Vec<Box<str>>,
    carriers: Vec<Box<str>>,
    sources: Vec<Box<str>>,
    details: Vec<Box<str>>,
    opaque: Vec<Box<str>>,
    known: Vec<Box<str>>,
}

impl ContentText {
    pub(super) fn rules(self, field: &str, problems: &mut Problems) -> ContentRules {
        let mut members: BTreeMap<Box<str>, ContentMember> = BTreeMap::new();
        let items_need_one = !self.items_need.is_empty();
        let mut class = |names: Vec<Box<str>>, set: fn(&mut ContentMember)| {
            names.into_iter().for_each(|name| set(members.entry(name).or_default()));
        };
        class(self.items_need, |member| member.identifies = true);
        class(self.only_with.values().cloned().collect(), |member| member.completes = true);
        class(self.references, |member| member.refers = true);
        class(self.carriers, |member| member.carries = true);
        class(self.sources, |member| member.is_source = true);
        class(self.details, |member| member.details = true);
        class(self.opaque, |member| member.is_opaque = true);
        class(self.known, |_| {});
        let mut bits = (0..u64::BITS).map(|bit| 1 << bit);
        for member in members.values_mut().filter(|member| member.is_deciding()) {
            member.bit = bits.next().unwrap_or_default();
            if member.bit == 0 {
                problems
                    .push((format!("{field}.content"), "more members decide than there are bits".to_owned()));
            }
        }
        ContentRules {
            members: members.into_iter().collect(),
            items_need_one,
            plain: self.plain,
            only_with: self.only_with,
            written_before: self.written_before,
            images: self.images,
            documents: self.documents,
            text_sources: self.text_sources,
            citing: self.citing,
            page_text: self.page_text,
            unbounded: self.unbounded,
        }
    }
}
