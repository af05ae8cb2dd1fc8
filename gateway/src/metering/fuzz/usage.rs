//! What a provider reports.

use std::sync::Arc;

use bytes::Bytes;
use tollgate_policy::dialect::Endpoint;

use super::{Plain, endpoint};
use crate::fuzz::input::{FuzzInput, cuts};
use crate::metering::usage::{Announced, Output, UsageReader, UsageReading};

/// Above this, what waits depends on the pieces.
const BYTES: usize = 16 * 1024;

/// How an answer is taken.
struct FuzzedAnswer {
    endpoint: Arc<Endpoint>,
    announced: Announced,
    hides_usage: bool,
}

/// However an answer is cut, the same is read of it and the same bytes go on; and what is read of JSON does not depend on how it is
/// written.
pub fn usage(data: &[u8]) {
    let Some(input) = FuzzInput::of(data).filter(|input| input.bytes.len() <= BYTES) else { return };
    let Some(endpoint) = endpoint(input.how) else { return };
    let announced = [Announced::Events, Announced::Either, Announced::Other][usize::from(input.how >> 3) % 3];
    let answer = FuzzedAnswer { endpoint, announced, hides_usage: input.how >= 128 };
    let [whole, cut, bytes] = cuts(&input, input.bytes).map(|pieces| read(&answer, &pieces));
    assert_eq!(whole, cut);
    assert_eq!(whole, bytes);
    let (reading, _, passed) = whole;
    assert!(answer.hides_usage || passed == input.bytes, "every byte goes on");
    assert!(is_subsequence(&passed, input.bytes), "no byte is changed");
    if let Ok(plain) = serde_json::from_slice::<Plain>(input.bytes)
        && matches!(plain, Plain::Object(_))
    {
        let canonical = plain.canonical().to_string();
        let (again, ..) = read(&answer, &[canonical.as_bytes()]);
        // Bytes of text are counted as they are written.
        let reading = UsageReading { output_bytes: again.output_bytes, ..reading };
        assert_eq!(reading, again, "{canonical}");
        assert_eq!(passed, input.bytes, "JSON is no event");
    }
}

/// What is read, whether the answer was found complete, and what goes to the caller.
fn read(answer: &FuzzedAnswer, pieces: &[&[u8]]) -> (UsageReading, bool, Vec<u8>) {
    let mut reader = UsageReader::new(&answer.endpoint, answer.announced, answer.hides_usage);
    let mut output = Output::default();
    for piece in pieces {
        reader.feed(Bytes::copy_from_slice(piece), &mut output);
    }
    let is_complete = output.complete;
    let reading = reader.finish(&mut output);
    output.release();
    (reading, is_complete, output.ready.iter().flatten().copied().collect())
}

fn is_subsequence(part: &[u8], of: &[u8]) -> bool {
    let mut of = of.iter();
    part.iter().all(|byte| of.any(|other| other == byte))
}
