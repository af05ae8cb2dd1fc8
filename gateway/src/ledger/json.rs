//! JSON objects written member by member: a record's shape is known, so nothing stands between it and the buffer.
//!
//! **Invariant:** what is written is JSON whatever the values hold. A member is named by a literal that begins with its comma, except the
//! first of an object.

use jiff::Timestamp;

use crate::swar::has_escapes;

/// An object that is being written at the end of a buffer.
#[derive(Debug)]
pub(crate) struct Json<'a> {
    out: &'a mut Vec<u8>,
    calendar: &'a mut Calendar,
}

/// The name of a member, as it stands behind another one.
macro_rules! member {
    ($name:expr) => {
        concat!(",\"", $name, "\":")
    };
}
pub(crate) use member;

/// What writes itself as one object.
pub(crate) trait JsonObject {
    fn write(&self, json: &mut Json<'_>);
}

impl<'a> Json<'a> {
    pub(crate) const fn new(out: &'a mut Vec<u8>, calendar: &'a mut Calendar) -> Self {
        Self { out, calendar }
    }

    /// Punctuation and names, as they are.
    #[inline]
    pub(crate) fn raw(&mut self, text: &'static str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    #[inline]
    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        self.raw(name);
        self.string(value);
    }

    /// Text that is not empty.
    #[inline]
    pub(crate) fn some(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    /// A value whose own grammar leaves nothing to escape: a name, an id, an address, a word of ours.
    #[inline]
    pub(crate) fn word(&mut self, name: &'static str, value: &str) {
        debug_assert!(!has_escapes(value));
        self.raw(name);
        self.out.push(b'"');
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b'"');
    }

    /// A string, quoted.
    pub(crate) fn string(&mut self, value: &str) {
        self.out.push(b'"');
        if has_escapes(value) {
            value.chars().for_each(|char| self.escaped(char));
        } else {
            self.out.extend_from_slice(value.as_bytes());
        }
        self.out.push(b'"');
    }

    fn escaped(&mut self, char: char) {
        match char {
            '"' | '\\' => self.out.extend_from_slice(&[b'\\', char as u8]),
            '\0'..='\x1f' => {
                let mut digits = [0; 2];
                tollgate_secrets::hex::encode(&[char as u8], &mut digits);
                self.raw("\\u00");
                self.out.extend_from_slice(&digits);
            }
            _ => self.out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }

    #[inline]
    pub(crate) fn number(&mut self, name: &'static str, value: i64) {
        self.raw(name);
        self.integer(value);
    }

    pub(crate) fn integer(&mut self, value: i64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A whole object.
    pub(crate) fn line(&mut self, object: &[u8]) {
        self.out.extend_from_slice(object);
    }

    /// An array, unless it is empty.
    pub(crate) fn list<T>(
        &mut self,
        name: &'static str,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        let mut is_any = false;
        for item in items {
            self.raw(if is_any { "," } else { name });
            self.raw(if is_any { "" } else { "[" });
            write(self, item);
            is_any = true;
        }
        if is_any {
            self.raw("]");
        }
    }

    /// RFC 3339 in UTC, with microseconds.
    pub(crate) fn time(&mut self, name: &'static str, at: Timestamp) {
        self.raw(name);
        let (second, micros) = (at.as_second(), at.subsec_microsecond());
        // Before the epoch the parts count backwards.
        let (second, micros) = if micros < 0 { (second - 1, micros + 1_000_000) } else { (second, micros) };
        let mut fraction = *b".000000Z\"";
        let mut rest = micros.unsigned_abs();
        for digit in fraction[1..7].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
            rest /= 10;
        }
        self.out.push(b'"');
        self.out.extend_from_slice(self.calendar.second(second));
        self.out.extend_from_slice(&fraction);
    }
}

/// The date and time of the second that was last asked for: consecutive records share it.
#[derive(Debug, Default)]
pub(crate) struct Calendar {
    second: i64,
    text: String,
}

impl Calendar {
    /// `2026-11-23T09:58:07`, for seconds since the epoch.
    fn second(&mut self, second: i64) -> &[u8] {
        if self.text.is_empty() || second != self.second {
            let at = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
            self.text = at.to_string();
            self.text.pop();
            self.second = second;
        }
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn written(write: impl FnOnce(&mut Json<'_>)) -> Value {
        let (mut out, mut calendar) = (Vec::new(), Calendar::default());
        let mut json = Json::new(&mut out, &mut calendar);
        json.raw("{\"first\":1");
        write(&mut json);
        json.raw("}");
        serde_json::from_slice(&out).unwrap()
    }

    proptest! {
        #[test]
        fn any_text_and_number_reads_back(text in any::<String>(), number in any::<i64>()) {
            let read = written(|json| {
                json.text(member!("text"), &text);
                json.number(member!("number"), number);
            });
            prop_assert_eq!(read["text"].as_str(), Some(&*text));
            prop_assert_eq!(read["number"].as_i64(), Some(number));
        }

        #[test]
        fn any_time_reads_back_to_the_microsecond(micros in -62_135_596_800_000_000_i64..253_402_207_200_000_000) {
            let at = Timestamp::from_microsecond(micros).unwrap();
            let read = written(|json| json.time(member!("at"), at));
            prop_assert_eq!(read["at"].as_str().unwrap().parse::<Timestamp>().unwrap(), at);
        }
    }

    #[test]
    fn controls_quotes_and_backslashes_are_escaped() {
        let read = written(|json| json.text(member!("t"), "\0\n\u{1f}\"\\é"));
        assert_eq!(read["t"], "\0\n\u{1f}\"\\é");
    }
}
