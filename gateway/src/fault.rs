//! A panic in a stage is a refusal of that one call, and a bug.
//!
//! With the feature `test-faults` a request header raises a panic at a named stage; without it none of that is compiled in.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::Poll;

use http::Request;
use tollgate_policy::denial::{Denial, Reason};

/// Where a panic can be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Identity,
    Target,
    Admit,
    Facts,
    Permit,
    Template,
    Hold,
    Secret,
    Connect,
    Inject,
    Send,
    Scrub,
    Body,
}

/// Runs `route`; a panic in it becomes `internal`. What it says is not repeated: it may quote anything.
pub(crate) async fn caught<T>(
    mut route: Pin<&mut impl Future<Output = Result<T, Denial>>>,
) -> Result<T, Denial> {
    std::future::poll_fn(move |cx| {
        std::panic::catch_unwind(AssertUnwindSafe(|| route.as_mut().poll(cx))).unwrap_or_else(|_| {
            Poll::Ready(Err(Denial::new(Reason::Internal, "an internal error; the call was not completed")))
        })
    })
    .await
}

/// The faults that a request asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    #[cfg(feature = "test-faults")]
    panic_at: Option<Stage>,
}

#[cfg(not(feature = "test-faults"))]
impl Faults {
    pub(crate) const fn of<B>(_: &Request<B>) -> Self {
        Self {}
    }

    pub(crate) const fn at(self, _: Stage) {}
}

#[cfg(feature = "test-faults")]
impl Faults {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        use Stage as S;
        let all = [
            S::Identity,
            S::Target,
            S::Admit,
            S::Facts,
            S::Permit,
            S::Template,
            S::Hold,
            S::Secret,
            S::Connect,
            S::Inject,
            S::Send,
            S::Scrub,
            S::Body,
        ];
        let asked = request.headers().get("x-tollgate-fault").and_then(|value| value.to_str().ok());
        let name = asked.and_then(|text| text.strip_prefix("panic@"));
        Self {
            panic_at: name
                .and_then(|name| all.into_iter().find(|s| format!("{s:?}").eq_ignore_ascii_case(name))),
        }
    }

    #[expect(clippy::panic, reason = "the fault that the tests ask for")]
    pub(crate) fn at(self, stage: Stage) {
        if self.panic_at == Some(stage) {
            panic!("fault raised at {stage:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_refusal() {
        let denial =
            caught(pin!(async { if true { panic!("sk-secret") } else { Ok(()) } })).await.unwrap_err();
        assert_eq!(denial.reason, Reason::Internal);
        assert!(!denial.detail.contains("sk-secret"));
        assert_eq!(caught(pin!(async { Ok(1) })).await.unwrap(), 1);
    }
}
