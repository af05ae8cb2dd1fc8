//! Tools: which of them the provider runs itself, and what that may cost.

use std::borrow::Cow;

use super::body::Draft;
use super::reader::{Halt, Reader};
use super::{content, json};

/// Reads a list of tools, or `null`.
pub(super) fn read<'de>(draft: &mut Draft<'_, 'de>, reader: &mut Reader<'de>) -> Result<(), Halt> {
    match reader.peek()? {
        b'n' => reader.scalar(),
        _ => reader.items(|reader| tool(draft, reader)),
    }
}

fn tool<'de>(draft: &mut Draft<'_, 'de>, reader: &mut Reader<'de>) -> Result<(), Halt> {
    let rules = &draft.rules().tools;
    let mut kind: Option<Option<Cow<'_, str>>> = None;
    let mut caps: Vec<(Cow<'_, str>, &str)> = Vec::new();
    reader.members(|reader, name| {
        let folded = json::folded(&name);
        let plain = folded.as_deref().unwrap_or(&name);
        let is_cap = rules.is_cap(plain);
        let is_again = (name == "type" && kind.is_some()) || caps.iter().any(|(seen, _)| *seen == name);
        if (folded.is_some() && (plain == "type" || is_cap)) || is_again {
            return draft.refuse(json::ambiguous(&format!("tools[].{plain}")));
        }
        if name == "type" {
            kind = Some(content::kind(reader)?);
        } else if is_cap {
            caps.push((name, reader.value()?));
        } else {
            reader.value()?;
        }
        Ok(())
    })?;
    let Some(rule) = rules.rule(kind.flatten().as_deref()) else {
        draft.outside = true;
        draft.unbounded = true;
        return Ok(());
    };
    let cap = caps.iter().find(|(name, _)| rule.cap.as_deref() == Some(&**name));
    match cap.map(|(name, value)| json::count(value, &format!("tools[].{name}"))).transpose() {
        Ok(cap) => draft.add_tool(rule, cap.flatten()),
        Err(denial) => return draft.refuse(denial),
    }
    Ok(())
}
