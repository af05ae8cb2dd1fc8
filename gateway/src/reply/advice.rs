//! What a refusal asks of the connection and of the next request.

use http::header::{ALLOW, CONNECTION, PROXY_AUTHENTICATE, UPGRADE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use tollgate_policy::denial::{Denial, Reason};

use crate::identity::ShownTo;
use crate::quota::{RATE_LIMIT, rate_limit_of_refusal};

/// Adds it; `status` is the reason's own.
pub(super) fn advise(headers: &mut HeaderMap, denial: &Denial, status: StatusCode, answers_as: ShownTo) {
    let challenges = match answers_as {
        ShownTo::Server => WWW_AUTHENTICATE,
        ShownTo::Proxy => PROXY_AUTHENTICATE,
    };
    if answers_as == ShownTo::Proxy && status == StatusCode::UNAUTHORIZED {
        // What programs send that take their proxy's credentials from its URL, some of them only once they are asked.
        headers.append(PROXY_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"tollgate\""));
    }
    match denial.reason {
        Reason::NoProof => {
            // RFC 6750, section 3.1: who has shown nothing is told of no error.
            headers.append(challenges, HeaderValue::from_static("Bearer realm=\"tollgate\""));
        }
        Reason::TokenExpired
        | Reason::TokenAudience
        | Reason::TokenIssuerUnknown
        | Reason::TokenInvalid
        | Reason::ProofsDisagree => {
            // What may stand between the quotes (RFC 6750, section 3).
            let is_plain = |c: &char| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
            let said: String = denial.detail.chars().filter(is_plain).collect();
            let challenge =
                format!("Bearer realm=\"tollgate\", error=\"invalid_token\", error_description=\"{said}\"");
            if let Ok(challenge) = HeaderValue::try_from(challenge) {
                headers.append(challenges, challenge);
            }
        }
        Reason::MethodRefused => {
            // RFC 9110, section 15.5.6.
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
        Reason::UpgradeRefused => {
            // What is spoken here instead (RFC 9110, section 15.5.22).
            headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        _ => {}
    }
    headers.extend(denial.limit.as_deref().and_then(rate_limit_of_refusal).map(|left| (RATE_LIMIT, left)));
}
