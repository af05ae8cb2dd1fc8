//! The caller's request head once everything is gone that is not the request itself.

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Method, Uri, Version, request};
use hyper::ext::Protocol;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::operation::{RequestLine, Upgrade};
use tollgate_policy::pattern::is_never_forwarded;
use tollgate_policy::policy::is_s3;

use super::strip::Withheld;
use super::{CallerCredentials, ShownTo, strip};
use crate::in_place::boxed;
use crate::websocket::Offer;

/// Method, target form and headers of a request, without credentials, identity assertions and hop-by-hop fields.
pub(crate) struct RequestHead {
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
    /// What it asks for instead of HTTP on its connection, or what is wrong with that.
    offer: Result<Option<Offer>, Denial>,
}

/// Region and service of an AWS signature: no secret, and not believed before the policy lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwsScope {
    pub(crate) region: Box<str>,
    pub(crate) service: Box<str>,
}

impl AwsScope {
    /// Of `AWS4-HMAC-SHA256 Credential=ID/DATE/REGION/SERVICE/aws4_request, …`.
    fn of(authorization: Option<&HeaderValue>) -> Option<Self> {
        let text = authorization?.to_str().ok()?.strip_prefix("AWS4-HMAC-SHA256 ")?;
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

impl RequestHead {
    /// Reads the head, of at most `most` bytes of fields, and strips it. `shown_to` says whose credentials it may have.
    ///
    /// # Errors
    /// `ambiguous_authority` where several authorities disagree or there is none, `method_refused` for methods that are never forwarded.
    pub(crate) fn read(parts: request::Parts, most: usize, shown_to: ShownTo) -> Result<Box<Self>, Denial> {
        let fields = HeadFields::of(&parts.headers);
        let has_protocol = parts.extensions.get::<Protocol>().is_some();
        let is_offer = has_protocol || fields.withheld.has(&UPGRADE);
        let offer = if is_offer { Offer::read(&parts) } else { Ok(None) };
        // Over HTTP/2 a WebSocket comes as a CONNECT, and is a GET everywhere else (RFC 8441, section 5).
        let is_extended = has_protocol && parts.method == Method::CONNECT;
        let method = if is_extended { Method::GET } else { parts.method };
        check_method(&method)?;
        if fields.bytes > most {
            let detail = "the request's headers are larger than the gateway reads (limits.headBytes)";
            return Err(Denial::new(Reason::HeaderRefused, detail));
        }
        fields.check_framing()?;
        let authority = authority(&parts.uri, fields.host, parts.version)?;
        let path = parts.uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        let query =
            path.query().and_then(|query| strip::query(query, &[], false)).map(std::borrow::Cow::into_owned);
        let HeadFields { authorization, takes_trailers, withheld, .. } = fields;
        let aws_scope = AwsScope::of(authorization.value);
        let mut headers = parts.headers;
        let credentials = CallerCredentials::withheld(&headers, &withheld, shown_to);
        withheld.remove_from(&mut headers);
        Ok(boxed(|| Self {
            method,
            headers,
            takes_trailers,
            authority,
            path,
            query,
            aws_scope,
            credentials,
            offer,
        }))
    }

    /// What it asks to go on with instead of HTTP.
    ///
    /// # Errors
    /// As [`Offer::read`].
    pub(crate) fn upgrade(&self) -> Result<Option<Upgrade>, Denial> {
        match &self.offer {
            Ok(offer) => Ok(offer.as_ref().map(|_| Upgrade::Websocket)),
            Err(denial) => Err(denial.clone()),
        }
    }

    /// Its handshake, where it asks for WebSocket.
    pub(crate) fn offer(&mut self) -> Option<Offer> {
        self.offer.as_mut().ok()?.take()
    }

    /// The target as it came.
    pub(crate) const fn path(&self) -> &PathAndQuery {
        &self.path
    }

    /// What the policy decides on.
    pub(crate) fn line(&self) -> RequestLine<'_> {
        RequestLine {
            authority: self.authority.as_str(),
            method: self.method.as_str(),
            path: self.path.path(),
            query: self.query.as_deref(),
        }
    }
}

fn check_method(method: &Method) -> Result<(), Denial> {
    if !is_never_forwarded(method.as_str()) {
        return Ok(());
    }
    let detail = if method.as_str().eq_ignore_ascii_case("CONNECT") {
        "this listener is no forward proxy (CONNECT): make the gateway the base URL instead, as in \
         https://GATEWAY/DESTINATION/, and set no proxy"
    } else {
        "TRACE and TRACK are never forwarded"
    };
    Err(Denial::new(Reason::MethodRefused, detail))
}

/// What the head itself says of the message, found in one pass over it.
#[derive(Default)]
struct HeadFields<'a> {
    /// As HTTP/1.1 writes them.
    bytes: usize,
    host: Single<'a>,
    length: Single<'a>,
    coding: Single<'a>,
    authorization: Single<'a>,
    takes_trailers: bool,
    /// What may not travel on: all of the fields above are among it.
    withheld: Withheld,
}

/// A field that is to occur once.
#[derive(Clone, Copy, Default)]
struct Single<'a> {
    /// The first.
    value: Option<&'a HeaderValue>,
    is_repeated: bool,
}

impl<'a> HeadFields<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            fields.bytes += name.as_str().len() + value.len() + 4;
            if !fields.withheld.takes(name) {
                continue;
            }
            let field = if *name == HOST {
                &mut fields.host
            } else if *name == CONTENT_LENGTH {
                &mut fields.length
            } else if *name == TRANSFER_ENCODING {
                &mut fields.coding
            } else if *name == AUTHORIZATION {
                &mut fields.authorization
            } else {
                fields.takes_trailers |= *name == TE && has_trailers(value.as_bytes());
                continue;
            };
            field.is_repeated = field.value.is_some();
            field.value = field.value.or(Some(value));
        }
        fields
    }

    /// What says where the body ends says it once, and in the one way that every reader knows (RFC 9112, section 6).
    fn check_framing(&self) -> Result<(), Denial> {
        let refuse = |detail| Err(Denial::new(Reason::BadRequest, detail));
        if let Some(length) = self.length.value.map(HeaderValue::as_bytes) {
            let is_canonical =
                matches!(length, b"0" | [b'1'..=b'9', ..]) && length.iter().all(u8::is_ascii_digit);
            if !is_canonical || self.length.is_repeated {
                return refuse("the request's Content-Length is not one plain number");
            }
        }
        let Some(coding) = self.coding.value else { return Ok(()) };
        if self.length.value.is_some() {
            return refuse("the request has both a length and a transfer coding");
        }
        if self.coding.is_repeated || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return refuse("the request's Transfer-Encoding is not `chunked` alone");
        }
        Ok(())
    }
}

/// Whether a value of `TE` lists `trailers`.
fn has_trailers(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The one authority of a request: `:authority` or the absolute form, and every `Host`, must agree (RFC 9112, section 3.2).
fn authority(uri: &Uri, host: Single<'_>, version: Version) -> Result<Authority, Denial> {
    let refuse = |detail| Denial::new(Reason::AmbiguousAuthority, detail);
    if uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        let detail = "only http:// and https:// are called through the gateway";
        return Err(Denial::new(Reason::BadRequest, detail));
    }
    if host.is_repeated {
        return Err(refuse("more than one Host"));
    }
    let host = match host.value {
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
        let scope = |text: &str| AwsScope::of(Some(&text.parse().unwrap()));
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
