//! What Tollgate itself answers: the one table from reason to status, and the problem body around it.
//!
//! **Invariant:** an answer of ours says that it is ours (`x-tollgate-reason`) and names nothing of a secret or its store.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde::Serialize;
use tollgate_policy::denial::{Denial, Reason};

use crate::ledger::RecordId;
use crate::metering::MeteredBody;
use crate::upstream::BodyError;

/// Names the request in every answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-tollgate-request-id");
const REASON: HeaderName = HeaderName::from_static("x-tollgate-reason");
/// Read by the OpenAI and Anthropic SDKs before they retry.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The status of a reason.
pub(crate) const fn status(reason: Reason) -> StatusCode {
    use Reason as R;
    match reason {
        R::NoCertificate | R::CertificateExpired => StatusCode::UNAUTHORIZED,
        R::BadRequest
        | R::AmbiguousPath
        | R::AmbiguousAuthority
        | R::AmbiguousBody
        | R::BodyInvalid
        | R::UnboundedCost => StatusCode::BAD_REQUEST,
        R::HeaderRefused => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        R::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
        R::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
        R::NoGrant
        | R::CallerToken
        | R::MethodNotAllowed
        | R::PathNotAllowed
        | R::ModelNotAllowed
        | R::ModelRequired
        | R::ActionNotAllowed
        | R::EndpointClass
        | R::UnmeteredEndpoint
        | R::DeferredCost
        | R::UnpricedModel => StatusCode::FORBIDDEN,
        R::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        R::UnsupportedMediaType | R::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        R::RateLimited | R::ConcurrencyLimited | R::BudgetHeld | R::BudgetExhausted | R::KeysCooling => {
            StatusCode::TOO_MANY_REQUESTS
        }
        R::NotReady | R::LedgerUnavailable | R::SecretUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        R::AddressRefused
        | R::DnsFailed
        | R::UpstreamUnreachable
        | R::UpstreamTls
        | R::UpstreamReset
        | R::UpstreamProtocol
        | R::CredentialRejected
        | R::UnsupportedUpgrade
        | R::EncodedAnswer => StatusCode::BAD_GATEWAY,
        R::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
        R::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Whether the request itself is in doubt, so that what follows it on the connection is as well.
const fn is_malformed(reason: Reason) -> bool {
    use Reason as R;
    matches!(
        reason,
        R::BadRequest
            | R::AmbiguousPath
            | R::AmbiguousAuthority
            | R::HeaderRefused
            | R::MethodRefused
            | R::BodyTooLarge
    )
}

/// The code of a reason for gRPC callers (google.rpc.Code).
const fn grpc_code(reason: Reason) -> &'static str {
    match status(reason).as_u16() {
        400 | 413 | 415 => "3",
        401 => "16",
        403 | 405 => "7",
        421 => "5",
        429 => "8",
        504 => "4",
        500 => "13",
        _ => "14",
    }
}

/// RFC 9457 problem details, with the member that LLM SDKs show.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    reason: &'a str,
    request_id: &'a str,
    error: SdkError<'a>,
}

#[derive(Serialize)]
struct SdkError<'a> {
    message: &'a str,
    r#type: &'a str,
    code: &'a str,
}

/// How the caller wants a refusal to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dress {
    Problem,
    Grpc,
}

impl Dress {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let grpc = headers.get(CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
        if grpc { Self::Grpc } else { Self::Problem }
    }
}

/// The answer to a refused call.
pub(crate) fn refusal(denial: &Denial, id: RecordId, dress: Dress) -> Response<ReplyBody> {
    let id = id.to_string();
    let word = denial.reason.as_str();
    let (status, kind, body) = match dress {
        Dress::Problem => (status(denial.reason), "application/problem+json", problem(denial, &id)),
        Dress::Grpc => (StatusCode::OK, "application/grpc", Bytes::new()),
    };
    let mut response = Response::new(ReplyBody::Full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REASON, HeaderValue::from_static(word));
    if let Ok(value) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, value);
    }
    if dress == Dress::Grpc {
        headers.insert("grpc-status", HeaderValue::from_static(grpc_code(denial.reason)));
        headers.insert("grpc-message", HeaderValue::from_static(word));
    }
    if let Some(after) = denial.retry_after {
        // Whole seconds, rounded up: a caller that waits that long finds room (RFC 9110, section 10.2.3).
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if is_malformed(denial.reason) {
        announce_close(&mut response);
    }
    let repeatable = denial.repeatable.or((denial.reason == Reason::BudgetExhausted).then_some(false));
    if let Some(repeatable) = repeatable {
        let word = if repeatable { "true" } else { "false" };
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static(word));
    }
    response
}

/// Says that the connection ends with this answer: what follows on it is in doubt, or will not be read.
pub(crate) fn announce_close(response: &mut Response<ReplyBody>) {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
}

fn problem(denial: &Denial, id: &str) -> Bytes {
    let word = denial.reason.as_str();
    let status = status(denial.reason);
    let problem = Problem {
        r#type: format!("https://tollgate.dev/problems/{word}"),
        title: status.canonical_reason().unwrap_or("refused"),
        status: status.as_u16(),
        detail: &denial.detail,
        reason: word,
        request_id: id,
        error: SdkError { message: &denial.detail, r#type: "tollgate_refusal", code: word },
    };
    serde_json::to_vec(&problem).map(Bytes::from).unwrap_or_default()
}

/// A body for the caller: ours, or the provider's through the meter.
#[derive(Debug)]
pub(crate) enum ReplyBody {
    Full(Bytes),
    Metered(Box<MeteredBody>),
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Metered(body) => Pin::new(body.as_mut()).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Metered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Metered(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_refusal_is_a_problem_that_sdks_can_show() {
        let denial = Denial::new(Reason::BudgetHeld, "the budget is held")
            .retry_after(std::time::Duration::from_millis(1200));
        let response = refusal(&denial, RecordId::new(), Dress::Problem);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()[REASON], "budget_held");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["type"], "https://tollgate.dev/problems/budget_held");
        assert_eq!(json["error"]["message"], "the budget is held");
    }

    #[test]
    fn grpc_callers_get_a_trailers_only_answer() {
        let response = refusal(&Denial::new(Reason::NoGrant, "no"), RecordId::new(), Dress::Grpc);
        assert_eq!(
            (response.status(), &response.headers()["grpc-status"]),
            (StatusCode::OK, &HeaderValue::from_static("7"))
        );
        assert!(response.body().is_end_stream());
    }

    #[test]
    fn every_reason_has_an_error_status() {
        for reason in Reason::ALL {
            assert!(status(*reason).is_client_error() || status(*reason).is_server_error());
        }
    }
}
