//! A raise, written into the file that a Budget stands in, with everything else as it was.
//!
//! **Invariant:** what is made says the same as before but for the one raise more, or it is not made.

use serde_json::Value;
use tollgate_policy::name::{Name, ResourceId};

/// Why a raise is not written into a file.
const BRACES: &str = "`spec` is written in braces";
const OTHERWISE: &str = "`raises` is neither a list of lines nor one in brackets on a line";
const UNSURE: &str = "the file is written in a way that is not changed safely";

/// The text with one raise more of this Budget; `None` where it is not in it. `item` is the raise as YAML in braces.
pub(super) fn with_raise(text: &str, id: &ResourceId, item: &str) -> Result<Option<String>, &'static str> {
    let lines: Vec<&str> = text.split('\n').collect();
    let Some((first, last)) = documents(&lines).into_iter().find(|range| is_it(&lines, *range, id)) else {
        return Ok(None);
    };
    let mut made: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    match place(&lines, first, last)? {
        Place::Line(at, line) => made.insert(at, format!("{line}{item}")),
        Place::List(at, indent) => {
            made.insert(at, format!("{indent}raises:"));
            made.insert(at + 1, format!("{indent}  - {item}"));
        }
        Place::Brackets(at, before, after) => {
            let comma = if before.trim_end().ends_with('[') { "" } else { ", " };
            if let Some(line) = made.get_mut(at) {
                *line = format!("{before}{comma}{item}{after}");
            }
        }
    }
    let made = made.join("\n");
    let (Some(before), Some(after)) = (values(text), values(&made)) else { return Err(UNSURE) };
    let raise: Value = serde_saphyr::from_str(item).map_err(|_| UNSURE)?;
    (expected(before, id, &raise).as_ref() == Some(&after)).then_some(Some(made)).ok_or(UNSURE)
}

/// Where the raise goes.
enum Place {
    /// A line of its own there, behind this.
    Line(usize, String),
    /// A list of its own there, with this indentation.
    List(usize, String),
    /// Into the brackets of this line, between these.
    Brackets(usize, String, String),
}

fn place(lines: &[&str], first: usize, last: usize) -> Result<Place, &'static str> {
    let range = lines.get(first..last).unwrap_or_default();
    let spec = range.iter().position(|line| line.starts_with("spec:")).ok_or(UNSURE)?;
    if !is_nothing(range.get(spec).and_then(|line| line.get(5..)).unwrap_or_default()) {
        return Err(BRACES);
    }
    let inside = |line: &&&str| is_nothing(line) || indent(line) > 0;
    let length = range.iter().skip(spec + 1).take_while(inside).count();
    let (begin, mut end) = (first + spec + 1, first + spec + 1 + length);
    while end > begin && lines.get(end - 1).is_some_and(|line| is_nothing(line)) {
        end -= 1;
    }
    let said = |line: &&str| !is_nothing(line);
    let body = lines.get(begin..end).unwrap_or_default();
    let child = body.iter().copied().find(said).map(indent).ok_or(UNSURE)?;
    let is_raises = |line: &&str| indent(line) == child && line.trim_start().starts_with("raises:");
    let Some(at) = body.iter().position(is_raises) else {
        return Ok(Place::List(end, " ".repeat(child)));
    };
    let line = body.get(at).copied().unwrap_or_default();
    let rest = line.trim_start().get("raises:".len()..).unwrap_or_default();
    if is_nothing(rest) {
        let is_of_it = |line: &&&str| {
            is_nothing(line)
                || indent(line) > child
                || (indent(line) == child && line.trim_start().starts_with("- "))
        };
        let mut items = body.iter().skip(at + 1).take_while(is_of_it).count();
        while items > 0 && body.get(at + items).is_some_and(|line| is_nothing(line)) {
            items -= 1;
        }
        let known = body.iter().skip(at + 1).take(items).copied().find(said);
        let indent = known.map_or(child + 2, indent);
        return Ok(Place::Line(begin + at + 1 + items, format!("{}- ", " ".repeat(indent))));
    }
    let (open, close) = (line.find('[').ok_or(OTHERWISE)?, line.rfind(']').ok_or(OTHERWISE)?);
    if !rest.trim_start().starts_with('[')
        || !is_nothing(line.get(close + 1..).unwrap_or_default())
        || close < open
    {
        return Err(OTHERWISE);
    }
    let (before, after) = line.split_at(close);
    Ok(Place::Brackets(begin + at, before.to_owned(), after.to_owned()))
}

/// The documents of a file: of each its first line, and the one behind its last.
fn documents(lines: &[&str]) -> Vec<(usize, usize)> {
    let is_border = |line: &&str| line.starts_with("---") && is_nothing(line.get(3..).unwrap_or_default());
    let borders = lines.iter().enumerate().filter(|(_, line)| is_border(line)).map(|(at, _)| at);
    let mut found = Vec::new();
    let mut begin = 0;
    for border in borders.chain([lines.len()]) {
        found.push((begin, border));
        begin = border + 1;
    }
    found
}

fn is_it(lines: &[&str], (first, last): (usize, usize), id: &ResourceId) -> bool {
    let text = lines.get(first..last).unwrap_or_default().join("\n");
    serde_saphyr::from_str::<Value>(&text).is_ok_and(|value| is_budget(&value, id))
}

fn is_budget(value: &Value, id: &ResourceId) -> bool {
    let member = |name: &str| value.pointer(&format!("/metadata/{name}")).and_then(Value::as_str);
    let name = |name: &str| member(name).and_then(|text| text.parse::<Name>().ok());
    value["kind"] == "Budget"
        && name("name").is_some_and(|own| ResourceId::new(name("namespace").as_ref(), &own) == *id)
}

fn values(text: &str) -> Option<Vec<Value>> {
    let lines: Vec<&str> = text.split('\n').collect();
    let document = |(first, last): (usize, usize)| {
        let text = lines.get(first..last)?.join("\n");
        if text.lines().all(is_nothing) { Some(Value::Null) } else { serde_saphyr::from_str(&text).ok() }
    };
    documents(&lines).into_iter().map(document).collect()
}

/// The documents with one raise more.
fn expected(mut documents: Vec<Value>, id: &ResourceId, raise: &Value) -> Option<Vec<Value>> {
    let budget = documents.iter_mut().find(|value| is_budget(value, id))?;
    let spec = budget.get_mut("spec")?.as_object_mut()?;
    let raises = spec.entry("raises").or_insert_with(|| Value::Array(Vec::new()));
    if raises.is_null() {
        *raises = Value::Array(Vec::new());
    }
    raises.as_array_mut()?.push(raise.clone());
    Some(documents)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Whether a line, or the rest of one, says nothing.
fn is_nothing(text: &str) -> bool {
    let text = text.trim();
    text.is_empty() || text.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = "{tokens: 5, until: \"2030-01-01T00:00:00Z\", by: \"alice\", reason: \"launch: now\"}";

    fn raised(text: &str) -> Result<Option<String>, &'static str> {
        with_raise(text, &"shop/team".parse().unwrap(), ITEM)
    }

    fn budget(rest: &str) -> String {
        format!(
            "# The team's.\nkind: Grant\nmetadata: {{name: team}}\nspec: {{}}\n---\nkind: Budget\nmetadata:\n  namespace: shop\n  name: team\nspec:\n{rest}\n---\nkind: Budget\nmetadata: {{name: team}}\nspec:\n  limits: []\n"
        )
    }

    #[test]
    fn a_raise_goes_where_raises_are_and_nothing_else_changes() {
        for (rest, made) in [
            (
                "  limits: [{tokens: 1, per: day}] # few\n",
                "  limits: [{tokens: 1, per: day}] # few\n  raises:\n    - ITEM\n",
            ),
            ("  raises: []\n  parent: org\n", "  raises: [ITEM]\n  parent: org\n"),
            ("  raises: [{tokens: 1}]  # one\n", "  raises: [{tokens: 1}, ITEM]  # one\n"),
            (
                "    raises:\n      # The first.\n      - tokens: 1\n        by: bob\n\n    parent: org\n",
                "    raises:\n      # The first.\n      - tokens: 1\n        by: bob\n      - ITEM\n\n    parent: org\n",
            ),
            (
                "  raises:\n  - {tokens: 1}\n  parent: org\n",
                "  raises:\n  - {tokens: 1}\n  - ITEM\n  parent: org\n",
            ),
            ("  raises:\n  parent: org\n", "  raises:\n    - ITEM\n  parent: org\n"),
        ] {
            let made = budget(made).replace("ITEM", ITEM);
            assert_eq!(raised(&budget(rest)).unwrap().unwrap(), made);
        }
    }

    #[test]
    fn what_cannot_be_changed_safely_is_not() {
        assert_eq!(raised("kind: Budget\nmetadata: {name: team}\nspec:\n  limits: []\n"), Ok(None));
        let flow = "kind: Budget\nmetadata: {name: team, namespace: shop}\nspec: {limits: []}\n";
        assert_eq!(raised(flow), Err(BRACES));
        assert_eq!(raised(&budget("  raises: &all\n    - {tokens: 1}\n")), Err(OTHERWISE));
        assert_eq!(
            raised(&budget("  note: |\n    raises:\n")).unwrap().unwrap().matches("raises:").count(),
            2
        );
        assert_eq!(
            raised(&budget("  note: |\n    text\n     more")).unwrap().unwrap().matches("raises:").count(),
            1
        );
    }
}
