//! The framing of server-sent events.

use crate::fuzz::input::{FuzzInput, cuts};
use crate::metering::sse::{Framer, Piece};

/// Of a name, what is kept.
const NAME_MAX: usize = 64;

/// An event: its name, and its data lines.
type Event = (Option<String>, Vec<Vec<u8>>);

/// However a stream is cut, its events are those that a reader of whole lines finds, and no byte is passed over.
pub fn sse(data: &[u8]) {
    let Some(input) = FuzzInput::of(data) else { return };
    let expected = lines(input.bytes);
    let [whole, cut, bytes] = cuts(&input, input.bytes).map(|pieces| framed(&pieces));
    assert_eq!(whole.iter().map(|(event, _)| event).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
    for other in [cut, bytes] {
        assert_eq!(whole.len(), other.len());
        for ((event, end), (other, other_end)) in whole.iter().zip(&other) {
            assert_eq!(event, other);
            // A cut between CR and LF leaves the LF to the next event.
            assert!(other_end == end || other_end + 1 == *end);
        }
    }
}

/// The events that the framer finds in these pieces, and where each ends.
fn framed(pieces: &[&[u8]]) -> Vec<(Event, usize)> {
    let mut framer = Framer::new();
    let (mut events, mut lines, mut line, mut offset) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for chunk in pieces {
        let mut at = 0;
        while let Some((piece, next)) = framer.next(chunk, at) {
            assert!(next > at && next <= chunk.len(), "it goes on, and not past the end");
            match piece {
                Piece::Data { from, to } => {
                    assert!(at <= from && from < to && to == next, "data lies in its piece");
                    line.extend_from_slice(&chunk[from..to]);
                }
                Piece::DataEnd => lines.push(std::mem::take(&mut line)),
                Piece::Named => {}
                Piece::Between => assert!(!framer.is_open()),
                Piece::End => {
                    let event = (framer.name().map(str::to_owned), std::mem::take(&mut lines));
                    events.push((event, offset + next));
                    framer.next_event();
                }
            }
            at = next;
        }
        offset += chunk.len();
    }
    events
}

/// The same, after the algorithm of the HTML standard (section 9.2.6), with the stream held whole.
fn lines(stream: &[u8]) -> Vec<Event> {
    let (mut events, mut event, mut is_open): (Vec<Event>, Event, bool) =
        (Vec::new(), Event::default(), false);
    let mut rest = stream.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(stream);
    // What only begins as a byte-order mark is read as a comment.
    let mut is_cut_mark = rest.len() == stream.len() && stream.starts_with(b"\xEF");
    while let Some(end) = rest.iter().position(|byte| b"\r\n".contains(byte)) {
        let line = &rest[..end];
        let is_crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(is_crlf)..];
        if std::mem::take(&mut is_cut_mark) {
            continue;
        }
        if line.is_empty() {
            if std::mem::take(&mut is_open) {
                events.push(std::mem::take(&mut event));
            }
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let value = colon.map(|colon| &line[colon + 1..]);
        let value = value.map(|value| value.strip_prefix(b" ").unwrap_or(value));
        match (&line[..colon.unwrap_or(line.len())], value) {
            (b"", _) => continue,
            (b"data", value) => event.1.push(value.unwrap_or_default().to_vec()),
            (b"event", Some(name)) => {
                let name = (name.len() <= NAME_MAX).then_some(name);
                event.0 = name.and_then(|name| std::str::from_utf8(name).ok()).map(str::to_owned);
            }
            _ => {}
        }
        is_open = true;
    }
    events
}
