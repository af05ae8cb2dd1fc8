//! A value with something wrong in it.

use proptest::sample::Index;
use serde_json::{Value, json};

/// Breaks what stands at some place below `spec`, and gives the place. What comes out may still be right.
pub(crate) fn break_at(
    value: &mut Value,
    place: &str,
    picks: &mut dyn Iterator<Item = Index>,
    how: usize,
) -> String {
    let deeper = picks.next().is_some_and(|pick| pick.index(3) > 0);
    let keys: Vec<String> = match &*value {
        Value::Object(members) => members.keys().cloned().collect(),
        Value::Array(elements) => (0..elements.len()).map(|index| index.to_string()).collect(),
        _ => Vec::new(),
    };
    if !keys.is_empty() && deeper {
        let key = &keys[picks.next().map_or(0, |pick| pick.index(keys.len()))];
        let place = format!("{place}/{key}");
        if let (0, Value::Object(members)) = (how, &mut *value) {
            let member = members.remove(key).unwrap();
            members.insert(format!("{key}x"), member);
            return place;
        }
        if let (1, Value::Object(members)) = (how, &mut *value) {
            members.remove(key);
            return place;
        }
        let child = match value {
            Value::Object(members) => members.get_mut(key).unwrap(),
            Value::Array(elements) => &mut elements[key.parse::<usize>().unwrap()],
            _ => return place,
        };
        return break_at(child, &place, picks, how);
    }
    *value = [json!(7), json!("!!"), json!({"x": 1}), json!([])][how % 4].clone();
    place.to_owned()
}
