//! From the numbers that a provider reports to billing units that do not overlap.

use tollgate_policy::dialect::tree::Slot;
use tollgate_policy::dialect::{Reading as Places, UsageSlots};
use tollgate_policy::price::{Item, Units};

use crate::metering::scan::{SlotValue, Slots};

/// The units, and whether the final report was among what was read. `None`: nothing was reported, or something that
/// is no count, which is the same.
pub(super) fn count(places: &Places, slots: &Slots) -> Option<(Units, bool)> {
    let mut units = Units::default();
    let (mut is_any, mut is_final, mut is_counted) = (false, false, false);
    for usage in &places.usage {
        let (opening, closing) = (usage.opening.map(|slot| slots.number(slot)), slots.number(usage.closing));
        if opening == Some(SlotValue::Nonsense) || closing == SlotValue::Nonsense {
            return None;
        }
        if usage.is_report {
            is_counted |= closing != SlotValue::Nothing;
        } else if !usage.is_tally {
            is_final |= closing != SlotValue::Nothing;
            is_any |= closing != SlotValue::Nothing || matches!(opening, Some(SlotValue::Number(_)));
        }
        if usage.within.is_none() && !(usage.is_tally && is_reported(places, slots, usage.unit)) {
            let number = usage_of(usage, slots);
            units.set(usage.unit, number.max(units.get(usage.unit)));
        }
    }
    is_final &= is_told(places, slots, Item::Input) && is_told(places, slots, Item::Output);
    divide(&mut units, places, slots);
    (is_any || is_counted).then_some((units, is_final || !is_any))
}

/// Whether the provider itself says how many of this unit it bills: what is counted beside that is not asked.
fn is_reported(places: &Places, slots: &Slots, unit: Item) -> bool {
    let mut reports = places.usage.iter().filter(|usage| usage.unit == unit && !usage.is_tally);
    reports.any(|usage| matches!(slots.number(usage.closing), SlotValue::Number(_)))
}

/// Whether this unit has a number, where there is a place for one: a report that leaves it out reports nothing.
fn is_told(places: &Places, slots: &Slots, unit: Item) -> bool {
    let number = |slot: Slot| matches!(slots.number(slot), SlotValue::Number(_));
    let mut whole =
        places.usage.iter().filter(|usage| usage.unit == unit && usage.within.is_none()).peekable();
    whole.peek().is_none() || whole.any(|usage| number(usage.closing) || usage.opening.is_some_and(number))
}

/// Takes the numbers that others include out of these, each at most what is left, so that the sum stays what it was.
fn divide(units: &mut Units, places: &Places, slots: &Slots) {
    for parts in places.usage.chunk_by(|one, next| one.counts() == next.counts()) {
        let Some(&UsageSlots { unit, within: Some(whole), .. }) = parts.first() else { continue };
        // Of several places for the same part (a total, and a sum over iterations) the largest counts, once.
        let part = parts.iter().map(|part| part_of(part, whole, places, slots)).max().unwrap_or(0);
        let part = part.min(units.get(whole));
        if part > 0 {
            units.set(whole, units.get(whole) - part);
            units.set(unit, units.get(unit).saturating_add(part));
        }
    }
}

/// A part that only the opening event told, where the final report tells the whole: what came since is taken to be of
/// the same kind. Anthropic's cache writes are such: the total grows, the split by time to live is told once.
fn part_of(part: &UsageSlots, whole: Item, places: &Places, slots: &Slots) -> u64 {
    let number = usage_of(part, slots);
    let is_stale = slots.number(part.closing) == SlotValue::Nothing;
    if number == 0 || !is_stale {
        return number;
    }
    let grown = places.usage.iter().filter(|usage| usage.unit == whole && usage.within.is_none());
    let grown = grown.filter_map(|usage| match (slots.number(usage.opening?), slots.number(usage.closing)) {
        (SlotValue::Number(before), SlotValue::Number(after)) => after.checked_sub(before),
        _ => None,
    });
    number.saturating_add(grown.max().unwrap_or(0))
}

/// Both ends of a stream count all that came before, so the larger number is the later one, and a zero takes nothing back.
fn usage_of(usage: &UsageSlots, slots: &Slots) -> u64 {
    let opening = usage.opening.map_or(0, |slot| or_zero(slots.number(slot)));
    let number = opening.max(or_zero(slots.number(usage.closing)));
    let excepted = usage.except.iter().map(|slot| or_zero(slots.number(*slot)));
    let number = number.saturating_sub(excepted.fold(0, u64::saturating_add));
    usage.at_most.map_or(number, |most| number.min(most))
}

pub(super) const fn or_zero(found: SlotValue) -> u64 {
    match found {
        SlotValue::Number(number) => number,
        _ => 0,
    }
}

pub(super) fn last_text<'a>(places: &[Slot], slots: &'a Slots) -> Option<&'a str> {
    places.iter().rev().find_map(|slot| slots.text(*slot).filter(|text| !text.is_empty()))
}

pub(super) fn tier(places: &Places, slots: &Slots) -> Option<String> {
    let mut words = places.tiers.iter().filter_map(|tier| {
        let word = last_text(&tier.slots, slots)?;
        tier.not.iter().all(|silent| **silent != *word).then_some(word)
    });
    let first = words.next()?.to_owned();
    Some(words.fold(first, |tier, word| tier + "+" + word))
}
