//! Places in a JSON text, and trees of them that fill numbered slots.

use std::str::FromStr;

use serde::Deserialize;

/// The most steps that a path may have: what a scanner has to remember.
pub const MAX_DEPTH: usize = 12;

/// A place in a JSON text: members by name, and every element of an array: `output[].type`. Empty is the text itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(Box<str>),
    Each,
}

impl FromStr for Path {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        for part in text.split('.').filter(|_| !text.is_empty()) {
            let name = part.trim_end_matches("[]");
            if name.is_empty() || name.contains(['[', ']']) {
                return Err(format!("{text:?}: a path is like usage.input_tokens or output[].type"));
            }
            steps.push(Step::Member(name.into()));
            steps.extend((0..(part.len() - name.len()) / 2).map(|_| Step::Each));
        }
        Ok(Self(steps))
    }
}

impl TryFrom<String> for Path {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Path {
    pub(super) fn join(&self, rest: &Self) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }

    /// The string that stands there.
    pub(super) fn text<'a>(&self, json: &'a serde_json::Value) -> Option<&'a str> {
        let found = self.0.iter().try_fold(json, |at, step| match step {
            Step::Member(name) => at.get(&**name),
            Step::Each => None,
        });
        found?.as_str()
    }

    pub(super) fn has_each(&self) -> bool {
        self.0.contains(&Step::Each)
    }
}

/// Where what was found is kept: an index below [`Tree::slots`].
pub type Slot = usize;

/// What is kept of the value at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// A whole number that is not negative. Of several, in one text or in the events of a stream, the largest counts: they are counts of all
    /// that came before.
    Number,
    /// The same of a number that may have a fraction, which counts as a whole unit.
    RoundedUp,
    /// The sum of such numbers over an array.
    Sum,
    /// How often it is this word, or how often any string where that is `*`.
    Count(Box<str>),
    /// A short string; the last one counts.
    Text,
    /// How many bytes all its strings have, as they are written.
    Length,
    /// That it is there and not `null`.
    Present,
    /// Whether it is an array with nothing in it.
    Empty,
}

/// A node of a [`Tree`]: one place.
#[derive(Debug, Default)]
pub struct Node {
    members: Vec<(Box<str>, usize)>,
    each: Option<usize>,
    takes: Vec<(Slot, Take)>,
}

impl Node {
    /// The place of this member.
    pub fn member(&self, name: &[u8]) -> Option<usize> {
        self.members.iter().find(|(member, _)| member.as_bytes() == name).map(|(_, node)| *node)
    }

    /// The place of every element.
    pub const fn each(&self) -> Option<usize> {
        self.each
    }

    /// Whether anything below it is a place of interest.
    pub fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// What is kept of the value here, and in which slot.
    pub fn takes(&self) -> &[(Slot, Take)] {
        &self.takes
    }
}

/// Places in one kind of JSON text. Node 0 is the text itself.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    slots: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], slots: 0 }
    }
}

impl Tree {
    /// The place with this number, which came from the tree itself.
    pub fn node(&self, index: usize) -> Option<&Node> {
        self.nodes.get(index)
    }

    /// How many slots there are to fill.
    pub const fn slots(&self) -> usize {
        self.slots
    }

    /// Whether there is nothing to look for.
    pub const fn is_empty(&self) -> bool {
        self.slots == 0
    }

    pub(super) fn take(&mut self, path: &Path, take: Take) -> Slot {
        let slot = self.slots;
        self.slots += 1;
        self.takes(path).push((slot, take));
        slot
    }

    /// A text slot at the path, which is shared where there is one already.
    pub(super) fn text(&mut self, path: &Path) -> Slot {
        let shared = self.takes(path).iter().find(|(_, take)| *take == Take::Text).map(|(slot, _)| *slot);
        shared.unwrap_or_else(|| self.take(path, Take::Text))
    }

    /// One slot for the bytes of the strings at all these paths.
    pub(super) fn lengths(&mut self, paths: &[Path]) -> Option<Slot> {
        let (first, others) = paths.split_first()?;
        let slot = self.take(first, Take::Length);
        for path in others {
            self.takes(path).push((slot, Take::Length));
        }
        Some(slot)
    }

    pub(super) fn depth(&self) -> usize {
        self.depth_below(0)
    }

    fn depth_below(&self, node: usize) -> usize {
        let Some(node) = self.nodes.get(node) else { return 0 };
        let below = node.members.iter().map(|(_, next)| *next).chain(node.each);
        below.map(|next| 1 + self.depth_below(next)).max().unwrap_or(0)
    }

    fn takes(&mut self, path: &Path) -> &mut Vec<(Slot, Take)> {
        let mut at = 0;
        for step in &path.0 {
            let next = match step {
                Step::Member(name) => self.nodes[at].member(name.as_bytes()),
                Step::Each => self.nodes[at].each,
            };
            at = next.unwrap_or_else(|| {
                let new = self.nodes.len();
                self.nodes.push(Node::default());
                match step {
                    Step::Member(name) => self.nodes[at].members.push((name.clone(), new)),
                    Step::Each => self.nodes[at].each = Some(new),
                }
                new
            });
        }
        &mut self.nodes[at].takes
    }
}
