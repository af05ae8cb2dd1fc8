//! What Tollgate itself answers: the one table from reason to status, and the problem body around it.
//!
//! **Invariant:** an answer of ours says that it is ours (`x-tollgate-reason`) and names nothing of a secret or its store.

mod advice;
mod aws;
mod form;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::dialect::ErrorForm;
use tollgate_policy::operation::HttpRequest;

use self::aws::AwsProtocol;
use self::form::RefusalText;
use crate::identity::{RequestHead, ShownTo};
use crate::injection;
use crate::ledger::RecordId;

/// Names the request in every answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-tollgate-request-id");
const REASON: HeaderName = HeaderName::from_static("x-tollgate-reason");
/// Read by the OpenAI and Anthropic SDKs before they retry.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Read by the SDKs of AWS that do not look into a body for the kind of an error.
const AWS_ERROR: HeaderName = HeaderName::from_static("x-amzn-errortype");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE_FIELD: HeaderName = HeaderName::from_static("grpc-message");
/// What is escaped in it (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
const GRPC_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// The status of a reason.
pub(crate) const fn status(reason: Reason) -> StatusCode {
    use Reason as R;
    match reason {
        R::NoCertificate
        | R::CertificateExpired
        | R::NoProof
        | R::TokenExpired
        | R::TokenAudience
        | R::TokenIssuerUnknown
        | R::TokenInvalid
        | R::ProofsDisagree => StatusCode::UNAUTHORIZED,
        R::BadRequest
        | R::AmbiguousPath
        | R::AmbiguousAuthority
        | R::AmbiguousBody
        | R::BodyInvalid
        | R::TlsInTunnel
        | R::TlsExpected
        | R::SniMissing
        | R::UnboundedCost => StatusCode::BAD_REQUEST,
        R::HeaderRefused => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        R::UnknownHost | R::SniMismatch => StatusCode::MISDIRECTED_REQUEST,
        R::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
        // Who asks for WebSocket and may do without takes this for "use HTTP", and asks again at once.
        R::UpgradeRefused => StatusCode::UPGRADE_REQUIRED,
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
        | R::GrantSuspended
        | R::NotApproved
        | R::BrokenConfiguration
        | R::Withdrawn
        | R::UnpricedModel => StatusCode::FORBIDDEN,
        R::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        R::UnsupportedMediaType | R::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        R::RateLimited | R::ConcurrencyLimited | R::BudgetHeld | R::BudgetExhausted | R::KeysCooling => {
            StatusCode::TOO_MANY_REQUESTS
        }
        R::TunnelIdle | R::TunnelLifetime => StatusCode::REQUEST_TIMEOUT,
        R::NotReady
        | R::Overloaded
        | R::LedgerUnavailable
        | R::LimitsUnavailable
        | R::SecretUnavailable
        | R::SourceUnavailable
        | R::CircuitOpen
        | R::TokenKeysUnavailable
        | R::Drained => StatusCode::SERVICE_UNAVAILABLE,
        R::AddressRefused
        | R::DnsFailed
        | R::UpstreamUnreachable
        | R::UpstreamTls
        | R::UpstreamReset
        | R::UpstreamError
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

/// How the caller's client reads a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErrorFormat {
    form: Form,
    /// The answer to HEAD has no body (RFC 9110, section 9.3.2).
    is_head: bool,
    /// What the client takes the gateway for.
    answers_as: ShownTo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Problem,
    Grpc,
    Openai,
    Anthropic,
    Google,
    Aws(AwsProtocol),
}

impl ErrorFormat {
    /// What the request alone tells.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let form = if injection::is_grpc(request.headers()) { Form::Grpc } else { Form::Problem };
        Self { form, is_head: request.method() == Method::HEAD, answers_as: ShownTo::Server }
    }

    /// Of a request for a tunnel: no client reads anything of a refused one but its status.
    pub(crate) const fn of_tunnel() -> Self {
        Self { form: Form::Problem, is_head: false, answers_as: ShownTo::Server }
    }

    /// Of a client that takes the gateway for that.
    pub(crate) fn to(self, answers_as: ShownTo) -> Self {
        Self { answers_as, ..self }
    }

    /// The status as this client has to see it: a proxy asks for proof with one of its own (RFC 9110, section 15.5.8).
    fn status(self, reason: Reason) -> StatusCode {
        match (status(reason), self.answers_as) {
            (StatusCode::UNAUTHORIZED, ShownTo::Proxy) => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            (status, _) => status,
        }
    }

    /// Where the client looks for the id of a request.
    fn id_header(self) -> Option<HeaderName> {
        match self.form {
            Form::Openai => Some(HeaderName::from_static("x-request-id")),
            Form::Anthropic => Some(HeaderName::from_static("request-id")),
            Form::Aws(protocol) => Some(HeaderName::from_static(protocol.id_header())),
            Form::Problem | Form::Grpc | Form::Google => None,
        }
    }

    /// Who signs for AWS reads the errors of AWS, whatever is called.
    pub(crate) fn read(&mut self, head: &RequestHead) {
        if let Some(scope) = head.aws_scope.as_ref().filter(|_| self.form == Form::Problem) {
            self.form = Form::Aws(AwsProtocol::of(scope, &head.headers));
        }
    }

    /// Everybody else, those of the destination's API.
    pub(crate) fn addressed(&mut self, request: &HttpRequest) {
        if self.form == Form::Problem {
            self.form = match request.destination().dialect.errors() {
                ErrorForm::Problem => Form::Problem,
                ErrorForm::Openai => Form::Openai,
                ErrorForm::Anthropic => Form::Anthropic,
                ErrorForm::Google => Form::Google,
            };
        }
    }
}

/// The answer to a refused call. `closes`: the connection ends with it, because what follows on it will not be read.
pub(crate) fn refusal(denial: &Denial, id: RecordId, format: ErrorFormat, closes: bool) -> Response<Bytes> {
    let id = id.to_string();
    let (word, message) = (denial.reason.as_str(), denial.to_string());
    let text = RefusalText { denial, status: format.status(denial.reason), id: &id, message: &message };
    let (kind, body) = match format.form {
        Form::Problem => ("application/problem+json", text.problem()),
        Form::Grpc => ("application/grpc", Bytes::new()),
        Form::Openai => ("application/json", text.openai()),
        Form::Anthropic => ("application/json", text.anthropic()),
        Form::Google => ("application/json", text.google()),
        Form::Aws(protocol) => protocol.render(text),
    };
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = if format.form == Form::Grpc { StatusCode::OK } else { text.status };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REASON, HeaderValue::from_static(word));
    if let Ok(value) = HeaderValue::try_from(&id) {
        headers.extend(format.id_header().map(|name| (name, value.clone())));
        headers.insert(REQUEST_ID, value);
    }
    match format.form {
        Form::Grpc => {
            headers.insert(GRPC_STATUS, HeaderValue::from_static(form::canonical(text.status).0));
            let message = utf8_percent_encode(&message, GRPC_MESSAGE).to_string();
            headers.extend(HeaderValue::try_from(message).ok().map(|message| (GRPC_MESSAGE_FIELD, message)));
        }
        Form::Aws(protocol) => {
            headers.insert(AWS_ERROR, HeaderValue::from_static(word));
            if protocol == AwsProtocol::Cbor {
                headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
            }
        }
        _ => {}
    }
    if let Some(after) = denial.retry_after {
        // A caller that waits that long finds room (RFC 9110, section 10.2.3).
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(after).max(1)));
    }
    advice::advise(headers, denial, status(denial.reason), format.answers_as);
    if closes || is_malformed(denial.reason) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let repeatable =
        denial.repeatable.or_else(|| (denial.reason == Reason::BudgetExhausted).then_some(false));
    if let Some(repeatable) = repeatable {
        let word = if repeatable { "true" } else { "false" };
        response.headers_mut().insert(SHOULD_RETRY, HeaderValue::from_static(word));
    }
    if format.is_head {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    } else {
        *response.body_mut() = body;
    }
    response
}

/// Whole seconds, rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::WWW_AUTHENTICATE;
    use serde_json::{Value, json};
    use tollgate_policy::limit::{
        Limit, LimitKey, LimitKind, LimitState, OnExhausted, Owner, StoreFailure, Unit, Usage,
    };

    use super::*;

    const FORMS: [Form; 11] = [
        Form::Problem,
        Form::Grpc,
        Form::Openai,
        Form::Anthropic,
        Form::Google,
        Form::Aws(AwsProtocol::Json),
        Form::Aws(AwsProtocol::RestJson),
        Form::Aws(AwsProtocol::Query),
        Form::Aws(AwsProtocol::Ec2),
        Form::Aws(AwsProtocol::S3),
        Form::Aws(AwsProtocol::Cbor),
    ];

    fn exhausted() -> Denial {
        let limit = Limit {
            id: "grant/a/tokens/day/shared".into(),
            owner: Owner::Grant("a".parse().unwrap()),
            unit: Unit::Tokens,
            amount: 100,
            kind: LimitKind::Concurrent,
            key: LimitKey::Shared,
            on_exhausted: OnExhausted::Deny,
            raises: std::sync::Arc::default(),
            store_failure: StoreFailure::Deny,
        };
        let state = LimitState::new(&limit, Usage { spent: 90, held: 5 }, 20);
        let state = state.resets_in(Some(Duration::from_millis(1_200)));
        Denial::new(Reason::BudgetExhausted, "used <up>").retry_after(Duration::from_millis(1_200)).by(state)
    }

    fn said(denial: &Denial, form: Form) -> (HeaderMap, StatusCode, Bytes) {
        let format = ErrorFormat { form, is_head: false, answers_as: ShownTo::Server };
        let (head, body) = refusal(denial, RecordId::new(), format, false).into_parts();
        (head.headers, head.status, body)
    }

    fn members(form: Form) -> Value {
        let (headers, status, body) = said(&exhausted(), form);
        assert_eq!(
            (status.as_u16(), &headers[CONTENT_TYPE]),
            (429, &HeaderValue::from_static("application/json"))
        );
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&json["reason"], &json["detail"]), (&json!("budget_exhausted"), &json!("used <up>")));
        assert_eq!(json["request_id"], headers[REQUEST_ID].to_str().unwrap());
        json
    }

    #[test]
    fn a_refusal_is_a_problem_that_sdks_can_show() {
        let (headers, status, body) = said(&exhausted(), Form::Problem);
        assert_eq!((status.as_u16(), &headers[RETRY_AFTER]), (429, &HeaderValue::from_static("2")));
        assert_eq!(
            (&headers[REASON], &headers[SHOULD_RETRY]),
            (&"budget_exhausted".parse().unwrap(), &"false".parse().unwrap())
        );
        assert_eq!(headers["ratelimit"], "\"grant/a/tokens/day/shared\";r=5;t=2");
        let json: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["type"], "https://tollgate.dev/problems/budget_exhausted");
        assert_eq!((&json["status"], &json["detail"]), (&json!(429), &json!("used <up>")));
        for message in [&json["message"], &json["error"]["message"]] {
            assert_eq!(message, "budget_exhausted: used <up>");
        }
        assert_eq!(
            json["limit"],
            json!({"id": "grant/a/tokens/day/shared", "owner": "grant/a", "unit": "tokens", "amount": 100, "used": 90, "held": 5, "needed": 20, "resets_in": 2})
        );
    }

    #[test]
    fn clients_of_openai_anthropic_and_google_find_what_they_look_for() {
        let openai = members(Form::Openai);
        assert_eq!(
            openai["error"],
            json!({"message": "budget_exhausted: used <up>", "type": "tollgate_refusal", "param": null, "code": "budget_exhausted"})
        );
        let anthropic = members(Form::Anthropic);
        assert_eq!(anthropic["type"], "error");
        assert_eq!(
            anthropic["error"],
            json!({"type": "rate_limit_error", "message": "budget_exhausted: used <up>"})
        );
        let google = members(Form::Google)["error"].take();
        assert_eq!((&google["code"], &google["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));
        assert_eq!(google["details"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
        assert_eq!(google["details"][0]["reason"], "BUDGET_EXHAUSTED");
        assert_eq!(
            google["details"][2],
            json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"})
        );
    }

    #[test]
    fn sdks_of_aws_find_code_and_message_in_every_protocol() {
        for (protocol, kind, text) in [
            (
                AwsProtocol::S3,
                "application/xml",
                "<Error><Code>budget_exhausted</Code><Message>budget_exhausted: used &lt;up&gt;</Message>",
            ),
            (
                AwsProtocol::Query,
                "application/xml",
                "<ErrorResponse><Error><Type>Sender</Type><Code>budget_exhausted</Code>",
            ),
            (AwsProtocol::Ec2, "application/xml", "<Response><Errors><Error><Code>budget_exhausted</Code>"),
            (
                AwsProtocol::Json,
                "application/x-amz-json-1.1",
                "{\"__type\":\"budget_exhausted\",\"message\":\"budget_exhausted: used <up>\"",
            ),
            (AwsProtocol::RestJson, "application/json", "\"message\":\"budget_exhausted: used <up>\""),
            (AwsProtocol::Cbor, "application/cbor", "__typepbudget_exhausted"),
        ] {
            let (headers, _, body) = said(&exhausted(), Form::Aws(protocol));
            let body = String::from_utf8_lossy(&body).into_owned();
            assert!(body.contains(text), "{body}");
            assert_eq!(
                (&headers[CONTENT_TYPE], &headers[AWS_ERROR]),
                (&kind.parse().unwrap(), &"budget_exhausted".parse().unwrap())
            );
        }
    }

    #[test]
    fn grpc_callers_get_a_trailers_only_answer_that_says_why() {
        let denial = Denial::new(Reason::NoGrant, "100% no\né");
        let response = refusal(
            &denial,
            RecordId::new(),
            ErrorFormat { form: Form::Grpc, is_head: false, answers_as: ShownTo::Server },
            false,
        );
        assert_eq!(
            (response.status(), &response.headers()[GRPC_STATUS], &response.headers()[GRPC_MESSAGE_FIELD]),
            (
                StatusCode::OK,
                &HeaderValue::from_static("7"),
                &HeaderValue::from_static("no_grant: 100%25 no%0A%C3%A9")
            )
        );
        assert!(response.body().is_empty());
    }

    #[test]
    fn a_head_is_refused_without_a_body_in_every_form() {
        for form in FORMS {
            let (_, _, body) = said(&exhausted(), form);
            let response = refusal(
                &exhausted(),
                RecordId::new(),
                ErrorFormat { form, is_head: true, answers_as: ShownTo::Server },
                false,
            );
            assert!(response.body().is_empty(), "{form:?}");
            assert_eq!(response.headers()[CONTENT_LENGTH], body.len().to_string(), "{form:?}");
            assert_eq!(response.headers()[REASON], "budget_exhausted", "{form:?}");
        }
    }

    #[test]
    fn a_token_that_proves_nobody_is_challenged_and_says_nothing_that_ends_its_quotes() {
        let challenge = |reason| {
            let (headers, status, _) = said(&Denial::new(reason, "expired: \"a\\b\"\r\né"), Form::Openai);
            assert_eq!(status, StatusCode::UNAUTHORIZED);
            headers.get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned())
        };
        let realm = "Bearer realm=\"tollgate\"";
        assert_eq!(challenge(Reason::NoProof).unwrap(), realm);
        let told = format!("{realm}, error=\"invalid_token\", error_description=\"expired: ab\"");
        assert_eq!(challenge(Reason::TokenExpired).unwrap(), told);
        assert_eq!(challenge(Reason::NoCertificate), None);
    }

    #[test]
    fn every_reason_has_an_error_status() {
        for reason in Reason::ALL {
            assert!(status(*reason).is_client_error() || status(*reason).is_server_error());
        }
    }
}
