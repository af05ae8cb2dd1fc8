//! The caller's request head once everything is gone that is not the request itself.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Method, Uri, Version, request};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::policy::is_s3;
use tollgate_policy::target::RequestLine;

use super::{CallerCredentials, strip};

/// Most bytes of a request's header fields.
pub(crate) const HEAD_BYTES: usize = 64 << 10;

/// Method, target form and headers of a request, without credentials, identity assertions and hop-by-hop fields.
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// The caller reads the trailers of answers (RFC 9110, section 10.1.4); gRPC servers insist on it.
    pub(crate) takes_trailers: bool,
    authority: Authority,
    path: PathAndQuery,
    query: Option<String>,
    /// What the caller's own AWS signature, which stays behind, was made for.
    pub(crate) aws_scope: Option<AwsScope>,
    /// As it came, in hyper's buffer, which is not zeroized.
    pub(crate) credentials: CallerCredentials,
}

/// Region and service of an AWS signature: no secret, and not believed before the policy lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwsScope {
    pub(crate) region: Box<str>,
    pub(crate) service: Box<str>,
}

impl AwsScope {
    /// Of `AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/SERVICE/aws4_request, …`.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let scope = text.split(',').find_map(|part| part.trim().strip_prefix("Credential="))?;
        let mut parts = scope.rsplit('/');
        let (end, service, region) = (parts.next()?, parts.next()?, parts.next()?);
        let is_word = |word: &str| {
            let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !word.is_empty() && word.bytes().all(is_plain)
        };
        let known = end == "aws4_request" && is_word(service) && is_word(region);
        known.then(|| Self { region: region.into(), service: service.into() })
    }

    /// Whether paths and payloads are signed as S3 does.
    pub(crate) fn is_s3(&self) -> bool {
        is_s3(&self.service)
    }
}

impl Head {
    /// Reads the head and strips it.
    ///
    /// # Errors
    /// `ambiguous_authority` where several authorities disagree or there is none, `method_refused` for methods that are never forwarded.
    pub(crate) fn read(parts: request::Parts) -> Result<Self, Denial> {
        let request::Parts { method, uri, mut headers, version, .. } = parts;
        // TRACE answers with the request it got, which by then holds the secret; CONNECT is a listener's business.
        if [Method::TRACE, Method::CONNECT].contains(&method) || method.as_str().eq_ignore_ascii_case("TRACK")
        {
            return Err(Denial::new(Reason::MethodRefused, "this method is never forwarded"));
        }
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size > HEAD_BYTES {
            return Err(Denial::new(Reason::HeaderRefused, "the request's headers are larger than 64 KiB"));
        }
        if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
            return Err(Denial::new(
                Reason::BadRequest,
                "the request has both a length and a transfer coding",
            ));
        }
        let authority = authority(&uri, &headers, version)?;
        let path = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let query =
            path.query().and_then(|query| strip::query(query, &[], false)).map(std::borrow::Cow::into_owned);
        let aws_scope = AwsScope::of(&headers);
        let credentials = CallerCredentials::of(&headers);
        let takes_trailers = headers.get_all(TE).iter().any(|value| has_trailers(value.as_bytes()));
        strip::headers(&mut headers);
        Ok(Self { method, headers, takes_trailers, authority, path, query, aws_scope, credentials })
    }

    /// What the policy decides on.
    pub(crate) fn line(&self) -> RequestLine<'_> {
        RequestLine {
            authority: self.authority.as_str(),
            path: self.path.path(),
            query: self.query.as_deref(),
        }
    }
}

/// Whether a value of `TE` lists `trailers`.
fn has_trailers(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The one authority of a request: `:authority` or the absolute form, and every `Host`, must agree (RFC 9112, section 3.2).
fn authority(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<Authority, Denial> {
    let refuse = |detail| Denial::new(Reason::AmbiguousAuthority, detail);
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(refuse("more than one Host"));
    }
    let host = match host {
        Some(value) => {
            let text = value.to_str().map_err(|_| refuse("Host is not ASCII"))?;
            Some(text.parse::<Authority>().map_err(|_| refuse("Host is not an authority"))?)
        }
        None if version <= Version::HTTP_11 => return Err(refuse("no Host")),
        None => None,
    };
    match (uri.authority(), host) {
        (Some(named), Some(host)) if !named.as_str().eq_ignore_ascii_case(host.as_str()) => {
            Err(refuse("the request names two authorities"))
        }
        (Some(named), _) => Ok(named.clone()),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(refuse("the request names no authority")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_callers_aws_signature_only_region_and_service_are_kept() {
        let scope = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, text.parse().unwrap());
            AwsScope::of(&headers)
        };
        let signed =
            |scope: &str| format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0");
        let s3 = scope(&signed("AKIA/20260101/eu-central-1/s3/aws4_request")).unwrap();
        assert_eq!((&*s3.region, &*s3.service, s3.is_s3()), ("eu-central-1", "s3", true));
        let bedrock = scope(&signed("A/B/20260101/us-east-1/bedrock/aws4_request")).unwrap();
        assert!(!bedrock.is_s3());
        for wrong in [
            "AKIA/20260101/EU/s3/aws4_request",
            "s3/aws4_request",
            "AKIA/20260101/a b/s3/aws4_request",
            "AKIA/20260101/eu-1/s3/other",
        ] {
            assert_eq!(scope(&signed(wrong)), None, "{wrong}");
        }
        assert_eq!(scope("Bearer Credential=A/20260101/eu-1/s3/aws4_request"), None);
    }
}
