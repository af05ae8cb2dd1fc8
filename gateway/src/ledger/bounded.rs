//! Text that somebody else chose, made safe to write down and to show.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::swar::is_visible;

/// A string of others: at most 128 bytes, without control characters, terminal escapes, or characters that reorder or hide text.
///
/// There is no way to make one that skips the cleaning, reading one back included. One that was cut ends in `…`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Bounded(Arc<str>);

impl Bounded {
    /// The longest, in bytes of UTF-8.
    pub const MAX: usize = 128;

    /// `text`, cleaned.
    pub fn new(text: &str) -> Self {
        Self(match clean(text) {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        })
    }

    /// A path, cleaned, without the query and fragment that may follow it.
    pub fn path(text: &Arc<str>) -> Self {
        let end = memchr::memchr2(b'?', b'#', text.as_bytes());
        end.and_then(|end| text.get(..end)).map_or_else(|| Self::from(text), Self::new)
    }

    /// The cleaned text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Without a copy where there is nothing to clean.
impl From<&Arc<str>> for Bounded {
    fn from(text: &Arc<str>) -> Self {
        match clean(text) {
            Cow::Borrowed(_) => Self(Arc::clone(text)),
            Cow::Owned(text) => Self(text.into()),
        }
    }
}

impl fmt::Display for Bounded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl fmt::Debug for Bounded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, out)
    }
}

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Ok(Self::new(&<Cow<'de, str>>::deserialize(input)?))
    }
}

fn clean(text: &str) -> Cow<'_, str> {
    if text.len() <= Bounded::MAX && is_visible(text) {
        return Cow::Borrowed(text);
    }
    const CUT: char = '…';
    let mut kept = String::with_capacity(text.len().min(Bounded::MAX));
    for char in text.chars().filter(|char| shows(*char)) {
        if kept.len() + char.len_utf8() > Bounded::MAX {
            while kept.len() + CUT.len_utf8() > Bounded::MAX {
                kept.pop();
            }
            kept.push(CUT);
            break;
        }
        kept.push(char);
    }
    Cow::Owned(kept)
}

/// False for what has no glyph of its own but acts on its neighbours or on the terminal: Unicode's controls (Cc), the format
/// characters (Cf: bidirectional overrides, joiners, soft hyphen, tags, byte-order mark), line and paragraph separators, private use
/// and noncharacters.
pub(crate) fn shows(char: char) -> bool {
    !(char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}'
            | '\u{13430}'..='\u{13455}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_as_it_is() {
        for text in ["gpt-5-mini", "", "a b", "modèle-é", "日本語"] {
            assert_eq!(Bounded::new(text).as_str(), text);
        }
    }

    #[test]
    fn terminal_escapes_bidi_and_hidden_characters_are_gone() {
        assert_eq!(Bounded::new("\x1b[31mred\x1b]0;title\x07\u{9b}2J").as_str(), "[31mred]0;title2J");
        assert_eq!(
            Bounded::new("a\u{202e}b\u{2066}c\u{200b}d\u{feff}e\u{e0041}f\u{2028}g\r\n\t\0h").as_str(),
            "abcdefgh"
        );
    }

    #[test]
    fn a_long_text_is_cut_at_a_character_and_says_so() {
        for text in ["x".repeat(129), "é".repeat(200), "日".repeat(43), "𝄞".repeat(4000)] {
            let bounded = Bounded::new(&text);
            assert!(bounded.as_str().len() <= Bounded::MAX);
            assert!(bounded.as_str().len() > Bounded::MAX - 4);
            assert!(bounded.as_str().ends_with('…'));
        }
        assert_eq!(Bounded::new(&"x".repeat(128)).as_str(), "x".repeat(128));
    }

    #[test]
    fn a_path_loses_its_query() {
        assert_eq!(Bounded::path(&"/v1/models?key=canary#x".into()).as_str(), "/v1/models");
        assert_eq!(Bounded::path(&"?key=canary".into()).as_str(), "");
    }

    #[test]
    fn reading_one_back_cleans_it_again() {
        let read: Bounded = serde_json::from_str(r#""a\u001b[2J\u202eb""#).unwrap();
        assert_eq!(read.as_str(), "a[2Jb");
    }

    #[test]
    fn a_shared_string_that_is_clean_is_not_copied() {
        let text: Arc<str> = "gpt-5".into();
        assert!(Arc::ptr_eq(&Bounded::from(&text).0, &text));
    }
}
