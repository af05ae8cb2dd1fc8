//! What a scanner found.

use tollgate_policy::dialect::tree::{Slot, Tree};
use tollgate_policy::price::UNIT_MAX;

/// What was found in one JSON text, or in the events of one stream.
#[derive(Debug)]
pub struct Slots {
    numbers: Box<[Number]>,
    texts: Vec<SlotText>,
    event: u32,
}

/// What stands in a number's slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotValue {
    /// Nothing, or `null`.
    #[default]
    Nothing,
    /// A number.
    Number(u64),
    /// Something that is no count of anything: negative, a fraction, too large, another type. It stays so.
    Nonsense,
}

#[derive(Clone, Copy, Debug, Default)]
struct Number {
    found: SlotValue,
    event: u32,
}

#[derive(Debug)]
struct SlotText {
    slot: Slot,
    event: u32,
    /// `false`: there was one that cannot be read, or is too long. The text is empty then.
    is_readable: bool,
    text: String,
}

impl Slots {
    /// Empty slots for the places of this tree.
    pub fn new(tree: &Tree) -> Self {
        Self { numbers: vec![Number::default(); tree.slots()].into(), texts: Vec::new(), event: 0 }
    }

    /// From here on the next event of a stream is read.
    pub fn next_event(&mut self) {
        self.event = self.event.wrapping_add(1);
    }

    /// The number in this slot.
    pub fn number(&self, slot: Slot) -> SlotValue {
        self.numbers.get(slot).map_or(SlotValue::Nothing, |number| number.found)
    }

    /// The number in this slot, where the present event put it there.
    pub fn number_now(&self, slot: Slot) -> Option<u64> {
        let number = self.numbers.get(slot)?;
        match number.found {
            SlotValue::Number(found) if number.event == self.event => Some(found),
            _ => None,
        }
    }

    /// Whether the present event said anything for this slot, nonsense included.
    pub fn is_told_now(&self, slot: Slot) -> bool {
        self.numbers
            .get(slot)
            .is_some_and(|number| number.found != SlotValue::Nothing && number.event == self.event)
    }

    /// The text in this slot; none where it cannot be read.
    pub fn text(&self, slot: Slot) -> Option<&str> {
        self.texts
            .iter()
            .find(|text| text.slot == slot)
            .filter(|text| text.is_readable)
            .map(|text| &*text.text)
    }

    /// The text in this slot, where the present event put it there and it is not empty.
    pub fn text_now(&self, slot: Slot) -> Option<&str> {
        self.texts
            .iter()
            .any(|text| text.slot == slot && text.event == self.event)
            .then(|| self.text(slot))?
            .filter(|text| !text.is_empty())
    }

    pub(super) fn set(&mut self, slot: Slot, number: u64) {
        self.update(slot, |_, _| number);
    }

    /// Of what an event says twice the smaller number stays: it may have been acted on.
    pub(super) fn lower(&mut self, slot: Slot, number: u64) {
        self.update(slot, |least, is_same| if is_same { least.min(number) } else { number });
    }

    /// Counts what is counted up over a stream: the larger number stays.
    pub(super) fn raise(&mut self, slot: Slot, number: u64) {
        self.update(slot, |most, _| most.max(number));
    }

    /// Adds within one event; a later event starts anew.
    pub(super) fn add(&mut self, slot: Slot, number: u64) {
        self.update(slot, |sum, is_same| if is_same { sum.saturating_add(number) } else { number });
    }

    /// Adds over all events.
    pub(super) fn lengthen(&mut self, slot: Slot, bytes: u64) {
        self.update(slot, |sum, _| sum.saturating_add(bytes).min(UNIT_MAX));
    }

    pub(super) fn spoil(&mut self, slot: Slot) {
        if let Some(number) = self.numbers.get_mut(slot) {
            *number = Number { found: SlotValue::Nonsense, event: self.event };
        }
    }

    /// Of what an event says twice the first stays: it may have been acted on.
    pub(super) fn set_text(&mut self, slot: Slot, text: Option<&str>) {
        let event = self.event;
        match (self.texts.iter_mut().find(|kept| kept.slot == slot), text) {
            (Some(kept), _) if kept.event == event => {}
            (Some(kept), text) => {
                kept.event = event;
                kept.is_readable = text.is_some();
                kept.text.clear();
                kept.text.push_str(text.unwrap_or_default());
            }
            // One that cannot be read is kept as well, so that it stays the first.
            (None, text) => {
                let is_readable = text.is_some();
                let text = text.unwrap_or_default().to_owned();
                self.texts.push(SlotText { slot, event, is_readable, text });
            }
        }
    }

    fn update(&mut self, slot: Slot, new: impl FnOnce(u64, bool) -> u64) {
        let Some(number) = self.numbers.get_mut(slot) else { return };
        let (old, is_same) = match number.found {
            SlotValue::Nonsense => return,
            SlotValue::Nothing => (0, false),
            SlotValue::Number(old) => (old, number.event == self.event),
        };
        let new = new(old, is_same);
        number.event = self.event;
        number.found = if new > UNIT_MAX { SlotValue::Nonsense } else { SlotValue::Number(new) };
    }
}
