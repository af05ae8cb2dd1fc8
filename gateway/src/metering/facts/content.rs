//! Content for the model: whether it is all in the body.

use std::borrow::Cow;

use super::body::Draft;
use super::reader::{Halt, Reader};

/// Where a value of a content member stands.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// It is the member's own.
    Member,
    /// It is an item of the member's list.
    Item,
    Below,
}

/// Reads a whole content member.
pub(super) fn read<'de>(draft: &mut Draft<'_, 'de>, reader: &mut Reader<'de>) -> Result<(), Halt> {
    value(draft, reader, At::Member).map(|_| ())
}

/// Reads a value, at any depth. Says whether it was something other than `null`.
fn value<'de>(draft: &mut Draft<'_, 'de>, reader: &mut Reader<'de>, at: At) -> Result<bool, Halt> {
    let first = reader.peek()?;
    match first {
        b'{' => object(draft, reader, at)?,
        b'[' => {
            let at = if at == At::Member { At::Item } else { At::Below };
            reader.items(|reader| value(draft, reader, at).map(|_| ()))?;
        }
        _ => reader.scalar()?,
    }
    Ok(first != b'n')
}

fn object<'de>(draft: &mut Draft<'_, 'de>, reader: &mut Reader<'de>, at: At) -> Result<(), Halt> {
    let rules = &draft.rules().content;
    let mut is_whole = at != At::Item || !rules.items_need_one;
    // The member without which this type of content is only a reference, until it is seen.
    let mut missing: Option<&str> = None;
    let mut seen = Vec::new();
    reader.members(|reader, name| {
        let member = rules.member(&name);
        is_whole |= member.identifies;
        if name == "type" {
            missing = draft.note_kind(kind(reader)?.as_deref()).or(missing);
            return Ok(());
        }
        let is_something = if member.is_opaque {
            reader.value()?;
            true
        } else {
            value(draft, reader, At::Below)?
        };
        draft.outside |= is_something && member.refers;
        if is_something && member.completes {
            seen.push(name);
        }
        Ok(())
    })?;
    draft.outside |= !is_whole || missing.is_some_and(|needed| !seen.iter().any(|name| name == needed));
    Ok(())
}

impl<'a> Draft<'a, '_> {
    /// Notes the type of a piece of content, and gives the member that it must have to hold all of itself.
    fn note_kind(&mut self, kind: Option<&str>) -> Option<&'a str> {
        let rules = &self.rules().content;
        let kind = kind.unwrap_or_default();
        if rules.plain.iter().any(|plain| **plain == *kind) {
            return None;
        }
        if let Some(needed) = rules.only_with.get(kind) {
            return Some(needed);
        }
        self.outside = true;
        self.unbounded |= rules.is_unbounded(kind);
        None
    }
}

/// Reads a type, or `null`.
pub(super) fn kind<'de>(reader: &mut Reader<'de>) -> Result<Option<Cow<'de, str>>, Halt> {
    match reader.peek()? {
        b'n' => reader.scalar().map(|()| None),
        _ => reader.string().map(Some),
    }
}
