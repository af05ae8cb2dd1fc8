//! The headers `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context-2/>).

use aws_lc_rs::rand;
use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate_secrets::hex;

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;
/// What a vendor should at least pass on of `tracestate` (section 3.3.1.5); more is not passed on.
const STATE_BYTES: usize = 512;
const SAMPLED: u8 = 1;

/// Tells traces apart; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TraceId([u8; 16]);

/// Tells the spans of a trace apart; never all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpanId([u8; 8]);

/// The span of the caller's that a call belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Parent {
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
    pub(super) is_sampled: bool,
    /// `traceparent` as it came.
    pub(super) written: HeaderValue,
    /// `tracestate` as it came: empty where there is none, or it is too long.
    pub(super) state: Vec<HeaderValue>,
}

impl TraceId {
    /// `None` where all are zeros.
    pub(crate) fn of(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As it is written.
    pub(crate) fn hex(self) -> [u8; 32] {
        let mut text = [0; 32];
        hex::encode(&self.0, &mut text);
        text
    }
}

impl SpanId {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut bytes = [0; 8];
        // Without randomness two spans look like one; nothing depends on them.
        let _ = rand::fill(&mut bytes);
        bytes[0] |= 1;
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl Parent {
    /// What a request's head says; `None` where it says nothing, or nothing that can be read in one way.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (written, None) = (all.next()?, all.next()) else { return None };
        let (trace, span, flags) = parse(written.as_bytes())?;
        let state: Vec<_> = headers.get_all(TRACESTATE).iter().cloned().collect();
        let is_short = state.iter().map(HeaderValue::len).sum::<usize>() <= STATE_BYTES;
        let state = if is_short { state } else { Vec::new() };
        Some(Self { trace, span, is_sampled: flags & SAMPLED != 0, written: written.clone(), state })
    }
}

/// A header that names this span as the parent of what follows. It is recorded.
pub(super) fn traceparent(trace: TraceId, span: SpanId) -> Option<HeaderValue> {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    hex::encode(&trace.0, &mut text[3..35]);
    hex::encode(&span.0, &mut text[36..52]);
    HeaderValue::from_bytes(&text).ok()
}

fn parse(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let [version] = digits::<1>(&known[..2])?;
    let dashes = [2, 35, 52].iter().all(|at| known[*at] == b'-');
    // A later version may have more behind a dash.
    let ends = rest.is_empty() || (version > 0 && rest[0] == b'-');
    if version == 0xff || !dashes || !ends {
        return None;
    }
    let trace = TraceId::of(digits(&known[3..35])?)?;
    let span: [u8; 8] = digits(&known[36..52])?;
    let [flags] = digits(&known[53..])?;
    (span != [0; 8]).then_some((trace, SpanId(span), flags))
}

fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode(text, &mut bytes)?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(pairs: &[(&str, &str)]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Parent::of(&headers)
    }

    #[test]
    fn a_context_is_read_as_it_is_written() {
        let parent = of(&[("traceparent", WRITTEN), ("tracestate", "a=1"), ("tracestate", "b=2")]).unwrap();
        assert_eq!(&parent.trace.hex(), b"4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(parent.is_sampled);
        assert_eq!(parent.state, ["a=1", "b=2"]);
        assert_eq!(traceparent(parent.trace, parent.span).unwrap(), WRITTEN);
        assert!(!of(&[("traceparent", &WRITTEN.replace("-01", "-02"))]).unwrap().is_sampled);
        let later = WRITTEN.replacen("00", "cc", 1);
        assert!(of(&[("traceparent", &format!("{later}-what-the-future-brings"))]).is_some());
        let long = "x=".to_owned() + &"1".repeat(511);
        assert!(of(&[("traceparent", WRITTEN), ("tracestate", &long)]).unwrap().state.is_empty());
    }

    #[test]
    fn what_is_of_another_form_is_no_context() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        for wrong in [
            "",
            "00",
            zero_trace,
            zero_span,
            &WRITTEN.to_uppercase(),
            &WRITTEN.replacen("00", "ff", 1),
            &WRITTEN.replace('-', "_"),
            &format!("{WRITTEN}-more"),
            &format!("{WRITTEN}0"),
            &WRITTEN.replace("4bf9", "4bg9"),
        ] {
            assert!(of(&[("traceparent", wrong)]).is_none(), "{wrong}");
        }
        assert!(of(&[("traceparent", WRITTEN), ("traceparent", WRITTEN)]).is_none(), "two of them");
        assert!(of(&[("tracestate", "a=1")]).is_none());
    }
}
