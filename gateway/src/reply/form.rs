//! One refusal in the forms that callers' clients read: what goes wrong is said in the exception that they raise.
//!
//! **Invariant:** every form says the reason, the same sentence and the request's id; a choice of form changes no status.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tollgate_policy::denial::Denial;
use tollgate_policy::limit::LimitState;

use crate::quota::quota_unit;

/// What all forms are made of.
#[derive(Clone, Copy)]
pub(super) struct RefusalText<'a> {
    pub(super) denial: &'a Denial,
    pub(super) status: StatusCode,
    pub(super) id: &'a str,
    /// The reason and what there is to say of it: clients show a message, and not always a code.
    pub(super) message: &'a str,
}

/// Members that every form in JSON has beside its own.
#[derive(Serialize)]
struct Common<'a> {
    reason: &'static str,
    detail: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<Limit<'a>>,
}

/// The limit that refused the call.
#[derive(Serialize)]
struct Limit<'a> {
    id: &'a str,
    owner: String,
    /// What the amounts are in, in the words of `RateLimit-Policy`.
    unit: &'static str,
    amount: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
    used: u64,
    held: u64,
    needed: u64,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_in: Option<u64>,
}

impl<'a> From<&'a LimitState> for Limit<'a> {
    fn from(state: &'a LimitState) -> Self {
        let unit = quota_unit(state.unit);
        let &LimitState { ref id, ref owner, amount, burst, used, held, needed, resets_in, .. } = state;
        let resets_in = resets_in.map(super::seconds);
        let owner = owner.to_string();
        Self { id, owner, unit, amount, burst, used, held, needed, resets_in }
    }
}

impl<'a> RefusalText<'a> {
    fn reason(self) -> &'static str {
        self.denial.reason.as_str()
    }

    fn common(self) -> Common<'a> {
        let limit = self.denial.limit.as_deref().map(Limit::from);
        Common { reason: self.reason(), detail: &self.denial.detail, request_id: self.id, limit }
    }

    /// Problem details (RFC 9457), with the members in which most clients look for a message.
    pub(super) fn problem(self) -> Bytes {
        #[derive(Serialize)]
        struct Problem<'a> {
            r#type: String,
            title: &'a str,
            status: u16,
            #[serde(flatten)]
            common: Common<'a>,
            message: &'a str,
            error: Openai<'a>,
        }
        json(&Problem {
            r#type: format!("https://tollgate.dev/problems/{}", self.reason()),
            title: self.status.canonical_reason().unwrap_or("refused"),
            status: self.status.as_u16(),
            common: self.common(),
            message: self.message,
            error: self.error(),
        })
    }

    pub(super) fn openai(self) -> Bytes {
        #[derive(Serialize)]
        struct Form<'a> {
            error: Openai<'a>,
            #[serde(flatten)]
            common: Common<'a>,
        }
        json(&Form { error: self.error(), common: self.common() })
    }

    fn error(self) -> Openai<'a> {
        Openai { message: self.message, r#type: "tollgate_refusal", param: None, code: self.reason() }
    }

    pub(super) fn anthropic(self) -> Bytes {
        #[derive(Serialize)]
        struct Form<'a> {
            r#type: &'static str,
            error: Error<'a>,
            #[serde(flatten)]
            common: Common<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            r#type: &'static str,
            message: &'a str,
        }
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 | 421 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        };
        let error = Error { r#type: kind, message: self.message };
        json(&Form { r#type: "error", error, common: self.common() })
    }

    /// As <https://google.aip.dev/193>, with the time to wait where there is one.
    pub(super) fn google(self) -> Bytes {
        #[derive(Serialize)]
        struct Form<'a> {
            error: Error<'a>,
            #[serde(flatten)]
            common: Common<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            code: u16,
            message: &'a str,
            status: &'static str,
            details: Vec<Detail<'a>>,
        }
        #[derive(Serialize)]
        #[serde(tag = "@type")]
        enum Detail<'a> {
            #[serde(rename = "type.googleapis.com/google.rpc.ErrorInfo")]
            Info { reason: String, domain: &'static str },
            #[serde(rename = "type.googleapis.com/google.rpc.RequestInfo", rename_all = "camelCase")]
            Request { request_id: &'a str },
            #[serde(rename = "type.googleapis.com/google.rpc.RetryInfo", rename_all = "camelCase")]
            Retry { retry_delay: String },
        }
        let reason = self.reason().to_ascii_uppercase();
        let mut details = vec![Detail::Info { reason, domain: "tollgate.dev" }];
        details.push(Detail::Request { request_id: self.id });
        let wait = self.denial.retry_after.map(super::seconds);
        details.extend(wait.map(|wait| Detail::Retry { retry_delay: format!("{wait}s") }));
        let error = Error {
            code: self.status.as_u16(),
            message: self.message,
            status: canonical(self.status).1,
            details,
        };
        json(&Form { error, common: self.common() })
    }
}

#[derive(Serialize)]
struct Openai<'a> {
    message: &'a str,
    r#type: &'static str,
    param: Option<&'static str>,
    code: &'static str,
}

/// The code of a status for callers of gRPC and of Google's APIs, as number and name (google.rpc.Code).
pub(super) const fn canonical(status: StatusCode) -> (&'static str, &'static str) {
    match status.as_u16() {
        400 | 413 | 415 | 431 => ("3", "INVALID_ARGUMENT"),
        401 => ("16", "UNAUTHENTICATED"),
        403 | 405 => ("7", "PERMISSION_DENIED"),
        421 => ("5", "NOT_FOUND"),
        426 => ("12", "UNIMPLEMENTED"),
        429 => ("8", "RESOURCE_EXHAUSTED"),
        504 => ("4", "DEADLINE_EXCEEDED"),
        500 => ("13", "INTERNAL"),
        _ => ("14", "UNAVAILABLE"),
    }
}

pub(super) fn json(form: &impl Serialize) -> Bytes {
    serde_json::to_vec(form).map(Bytes::from).unwrap_or_default()
}
