//! What a caller shows of its own: tokens that may prove to the gateway who it is, and the one for a third party, which is given back only
//! where a grant passes it on.
//!
//! **Invariant:** nothing in here is printed, logged or recorded, and what is made of it is zeroized. A token leaves only for the audience that
//! the grant which decided names, and never where it is for the gateway. What a grant passes on is read and not verified: that is the
//! destination's to do.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;
use serde::Deserialize;
use tollgate_policy::decision::Permit;
use tollgate_policy::denial::{Denial, Reason};
use zeroize::Zeroizing;

use super::jwt::{object, parts};
use super::strip::Withheld;

const SCHEME: &[u8] = b"Bearer ";
const BASIC: &[u8] = b"Basic ";
/// Headers of SDKs that hold nothing but a key, or, with AWS, a session's token.
static KEYS: [HeaderName; 4] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
    HeaderName::from_static("x-amz-security-token"),
];
/// Tokens of one request that are looked at; who sends more shows none.
const MOST_TOKENS: usize = 4;

/// The credentials of one request. No `Debug`.
pub(crate) struct CallerCredentials {
    /// The only `Authorization`.
    authorization: Option<HeaderValue>,
    /// What has the shape of a JWT, each once. It is for whomever it says.
    tokens: Vec<ShownToken>,
    shown_to: ShownTo,
}

/// What the gateway is to whoever sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShownTo {
    /// The server that it talks to.
    Server,
    /// Its proxy: what it shows to a proxy is for the gateway as well (RFC 9110, section 11.7).
    Proxy,
}

/// A token in the value of a header.
pub(super) struct ShownToken {
    value: HeaderValue,
    /// Where it begins.
    from: usize,
}

impl ShownToken {
    /// The token alone.
    pub(super) fn bytes(&self) -> &[u8] {
        self.value.as_bytes().get(self.from..).unwrap_or_default()
    }
}

/// What of a JWT decides whether it leaves (RFC 7519, section 4.1). A claim that occurs twice is an error.
#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    aud: Audience<'a>,
    exp: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Several(#[serde(borrow)] Vec<Cow<'a, str>>),
}

/// The header of a JWT, which has to be one.
#[derive(Deserialize)]
struct JwtHeader<'a> {
    #[serde(borrow, rename = "alg")]
    _alg: Cow<'a, str>,
}

impl CallerCredentials {
    /// Those of `headers`.
    pub(crate) fn of(headers: &HeaderMap, shown_to: ShownTo) -> Self {
        Self::withheld(headers, &Withheld::of(headers), shown_to)
    }

    /// The same where it is known what of the head is `withheld`: they are among that.
    pub(super) fn withheld(headers: &HeaderMap, withheld: &Withheld, shown_to: ShownTo) -> Self {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let only = all.next().filter(|_| all.next().is_none());
        let mut authorization = only.cloned();
        authorization.iter_mut().for_each(|value| value.set_sensitive(true));
        match tokens(headers, withheld, shown_to) {
            Some(tokens) => Self { authorization, tokens, shown_to },
            None => Self { authorization: None, tokens: Vec::new(), shown_to },
        }
    }

    /// Whom they were shown to.
    pub(super) const fn shown_to(&self) -> ShownTo {
        self.shown_to
    }

    /// Of whoever shows nothing but a certificate.
    pub(crate) const fn none() -> Self {
        Self { authorization: None, tokens: Vec::new(), shown_to: ShownTo::Server }
    }

    /// What may prove to the gateway who calls.
    pub(super) fn tokens(&self) -> &[ShownToken] {
        &self.tokens
    }

    /// What is for the gateway goes nowhere else, whatever a grant says: that of these tokens.
    pub(super) fn keep(&mut self, at: usize) {
        let token = self.tokens.get(at).map(ShownToken::bytes);
        let is_it = |value: &HeaderValue| bearer(value).map(|(_, bearer)| bearer) == token;
        if self.authorization.as_ref().is_some_and(is_it) {
            self.authorization = None;
        }
    }

    /// The `Authorization` to send, where the permit passes the caller's own token on.
    ///
    /// # Errors
    /// `caller_token` where it does and there is none that is for that audience alone, and not expired.
    pub(crate) fn passed_on(&self, permit: &Permit, now: Timestamp) -> Result<Option<HeaderValue>, Denial> {
        let Some(audience) = &permit.grant().caller_token else { return Ok(None) };
        self.for_audience(audience, now).map(Some)
    }

    pub(super) fn for_audience(&self, audience: &str, now: Timestamp) -> Result<HeaderValue, Denial> {
        let refuse = |detail: &'static str| Denial::new(Reason::CallerToken, detail);
        let missing =
            "the grant passes the caller's own token on: send one `authorization: Bearer` with a JWT";
        let token = self.bearer().ok_or_else(|| refuse(missing))?;
        let claims = claims_of(token).ok_or_else(|| refuse("the caller's token is not a JWT"))?;
        let claims: Claims<'_> = serde_json::from_slice(&claims)
            .map_err(|_| refuse("the caller's token does not say plainly whom it is for and until when"))?;
        let is_for = match &claims.aud {
            Audience::One(one) => one == audience,
            Audience::Several(all) => matches!(all.as_slice(), [one] if one == audience),
        };
        if !is_for {
            return Err(refuse(
                "the caller's token is not for the audience that the grant names, and for no other",
            ));
        }
        // Whole seconds are exact up to 2^53.
        #[expect(clippy::cast_precision_loss, reason = "times of tokens are far below 2^53 seconds")]
        let now = now.as_second() as f64;
        if claims.exp <= now {
            return Err(refuse("the caller's token is expired"));
        }
        let mut text = Zeroizing::new(Vec::with_capacity(SCHEME.len() + token.len()));
        text.extend_from_slice(SCHEME);
        text.extend_from_slice(token);
        let mut value = HeaderValue::from_maybe_shared(Bytes::from_owner(text))
            .map_err(|_| refuse("the caller's token is not a JWT"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// What has the shape of a JWT.
    fn bearer(&self) -> Option<&[u8]> {
        let (_, token) = bearer(self.authorization.as_ref()?)?;
        parts(token).filter(|[.., signature]| !signature.is_empty()).map(|_| token)
    }
}

/// What stands behind the scheme, and where it begins.
fn bearer(value: &HeaderValue) -> Option<(usize, &[u8])> {
    let (scheme, token) = value.as_bytes().split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some((SCHEME.len(), token))
}

/// The password of Basic credentials (RFC 7617): where a program takes its proxy's credentials from a URL, the token can stand nowhere else.
fn password(value: &HeaderValue) -> Option<HeaderValue> {
    let (scheme, encoded) = value.as_bytes().split_at_checked(BASIC.len())?;
    let decoded = Zeroizing::new(STANDARD.decode(encoded.trim_ascii()).ok()?);
    let at = decoded.iter().position(|byte| *byte == b':').filter(|_| scheme.eq_ignore_ascii_case(BASIC))?;
    let password = Zeroizing::new(decoded.get(at + 1..)?.to_vec());
    HeaderValue::from_maybe_shared(Bytes::from_owner(password)).ok()
}

/// What of these headers has the shape of a JWT; `None` where it is too many.
fn tokens(headers: &HeaderMap, withheld: &Withheld, shown_to: ShownTo) -> Option<Vec<ShownToken>> {
    let all =
        |name: &'static HeaderName| withheld.has(name).then(|| headers.get_all(name)).into_iter().flatten();
    let proxied = all(&PROXY_AUTHORIZATION).filter(|_| shown_to == ShownTo::Proxy);
    let proxied = proxied.filter_map(|value| match bearer(value) {
        Some((from, _)) => Some((Cow::Borrowed(value), from)),
        None => password(value).map(|password| (Cow::Owned(password), 0)),
    });
    let bearers =
        all(&AUTHORIZATION).filter_map(|value| bearer(value).map(|(from, _)| (Cow::Borrowed(value), from)));
    let keys = KEYS.iter().flat_map(all).map(|value| (Cow::Borrowed(value), 0));
    let mut tokens: Vec<ShownToken> = Vec::new();
    for (value, from) in proxied.chain(bearers).chain(keys) {
        let token = value.as_bytes().get(from..).unwrap_or_default();
        if parts(token).is_none() || tokens.iter().any(|known| known.bytes() == token) {
            continue;
        }
        if tokens.len() == MOST_TOKENS {
            return None;
        }
        let mut value = value.into_owned();
        value.set_sensitive(true);
        tokens.push(ShownToken { value, from });
    }
    Some(tokens)
}

/// The claims of a token whose header is one.
fn claims_of(token: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let [header, claims, _] = parts(token)?;
    let _: JwtHeader<'_> = serde_json::from_slice(&object(header)?).ok()?;
    object(claims)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const AUDIENCE: &str = "https://api.example.com";

    fn jwt(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#), part(claims), part("signature"))
    }

    fn sent(values: &[&str]) -> Result<HeaderValue, Denial> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        CallerCredentials::of(&headers, ShownTo::Server)
            .for_audience(AUDIENCE, "2026-01-01T00:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_token_for_exactly_the_grants_audience_leaves_as_it_came_and_hides_itself() {
        for claims in [
            r#"{"aud": "https://api.example.com", "exp": 1767225601}"#,
            r#"{"exp": 1767225600.5, "aud": ["https://api.example.com"], "sub": "x"}"#,
            r#"{"aud": "https:\/\/api.example.com", "exp": 1e10}"#,
        ] {
            let token = jwt(claims);
            for scheme in ["Bearer", "bearer"] {
                let value = sent(&[&format!("{scheme} {token}")]).unwrap();
                assert_eq!(value.as_bytes(), format!("Bearer {token}").as_bytes());
                assert_eq!(format!("{value:?}"), "Sensitive");
            }
        }
    }

    #[test]
    fn a_token_that_is_for_others_too_expired_or_unclear_stays() {
        for claims in [
            r#"{"aud": "https://tollgate", "exp": 1867225601}"#,
            r#"{"aud": "https://api.example.com/", "exp": 1867225601}"#,
            r#"{"aud": "HTTPS://api.example.com", "exp": 1867225601}"#,
            r#"{"aud": ["https://api.example.com", "https://tollgate"], "exp": 1867225601}"#,
            r#"{"aud": ["https://api.example.com", "https://api.example.com"], "exp": 1867225601}"#,
            r#"{"aud": [], "exp": 1867225601}"#,
            r#"{"aud": [["https://api.example.com"]], "exp": 1867225601}"#,
            r#"{"exp": 1867225601}"#,
            r#"{"aud": "https://api.example.com"}"#,
            r#"{"aud": "https://api.example.com", "exp": 1767225600}"#,
            r#"{"aud": "https://api.example.com", "exp": "1867225601"}"#,
            r#"{"aud": "https://api.example.com", "exp": null}"#,
            r#"{"aud": "https://tollgate", "aud": "https://api.example.com", "exp": 1867225601}"#,
            r#"{"aud": "https://api.example.com", "exp": 1767225600, "exp": 1867225601}"#,
            r#"{"aud": "https://api.example.com", "exp": 1867225601} {}"#,
            r#"["https://api.example.com", 1867225601]"#,
            "aud",
        ] {
            let refused = sent(&[&format!("Bearer {}", jwt(claims))]).unwrap_err();
            assert_eq!(refused.reason, Reason::CallerToken, "{claims}");
        }
    }

    #[test]
    fn a_token_for_the_gateway_is_never_passed_on() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let token = jwt(r#"{"aud": "https://api.example.com", "exp": 1867225601}"#);
        let other = jwt(r#"{"aud": "tollgate", "exp": 1867225601}"#);
        let shown = |headers: &[(&'static str, &str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            CallerCredentials::of(&headers.collect(), ShownTo::Server)
        };
        let bearer = format!("bearer {token}");
        // Whichever header it was found in first.
        for headers in [
            &[("authorization", &*bearer)][..],
            &[("authorization", &bearer), ("x-api-key", &token)],
            &[("x-goog-api-key", &token), ("authorization", &bearer)],
        ] {
            let mut credentials = shown(headers);
            assert!(credentials.for_audience(AUDIENCE, now).is_ok());
            assert_eq!(credentials.tokens().len(), 1, "the same in two headers is one");
            credentials.keep(0);
            assert_eq!(credentials.for_audience(AUDIENCE, now).unwrap_err().reason, Reason::CallerToken);
        }
        let mut beside = shown(&[("authorization", &bearer), ("api-key", &other)]);
        assert_eq!(beside.tokens()[1].bytes(), other.as_bytes());
        beside.keep(1);
        assert!(beside.for_audience(AUDIENCE, now).is_ok());
    }

    #[test]
    fn what_has_the_shape_of_a_token_is_found_in_headers_of_keys_and_so_many_are_none() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("x-api-key", value.parse().unwrap());
            }
            let credentials = CallerCredentials::of(&headers, ShownTo::Server);
            credentials.tokens().iter().map(|token| token.bytes().to_vec()).collect::<Vec<_>>()
        };
        let good = jwt("{}");
        let unsigned = format!("{}.", good.rsplit_once('.').unwrap().0);
        assert_eq!(of(&[&good, "sk-1", &unsigned, "a.b", "a.b.c.d", "a b.c.d"]).len(), 2);
        let many = ["a.b.c", "a.b.d", "a.b.e", "a.b.f"];
        assert_eq!(of(&many).len(), MOST_TOKENS);
        assert_eq!(of(&[&many[..], &["a.b.g"]].concat()).len(), 0);
    }

    #[test]
    fn what_is_shown_to_a_proxy_is_found_as_a_bearer_or_as_a_password_and_elsewhere_not_at_all() {
        let good = jwt("{}");
        let of = |value: &str, shown_to| {
            let mut headers = HeaderMap::new();
            headers.append(PROXY_AUTHORIZATION, value.parse().unwrap());
            let credentials = CallerCredentials::of(&headers, shown_to);
            credentials.tokens().iter().map(|token| token.bytes().to_vec()).collect::<Vec<_>>()
        };
        let basic = |text: &str| format!("basic {}", STANDARD.encode(text));
        for value in [format!("Bearer {good}"), basic(&format!("token:{good}")), basic(&format!(":{good}"))] {
            assert_eq!(of(&value, ShownTo::Proxy), [good.as_bytes()], "{value}");
            assert!(of(&value, ShownTo::Server).is_empty(), "{value}");
        }
        for value in [basic(&good), basic("token:secret"), format!("Basic {good}"), "Basic !".to_owned()] {
            assert!(of(&value, ShownTo::Proxy).is_empty(), "{value}");
        }
        let mut headers = HeaderMap::new();
        headers.append(PROXY_AUTHORIZATION, basic(&format!("token:{good}")).parse().unwrap());
        let credentials = CallerCredentials::of(&headers, ShownTo::Proxy);
        assert_eq!(format!("{:?}", credentials.tokens()[0].value), "Sensitive");
    }

    #[test]
    fn what_is_no_signed_jwt_or_one_of_two_is_none() {
        let good = jwt(r#"{"aud": "https://api.example.com", "exp": 1867225601}"#);
        let unsigned = good.rsplit_once('.').unwrap().0;
        let bearer = format!("Bearer {good}");
        for wrong in [
            vec![],
            vec![bearer.clone(), bearer],
            vec![format!("Basic {good}")],
            vec![good.clone()],
            vec![format!("Bearer  {good}")],
            vec![format!("Bearer {good} x")],
            vec![format!("Bearer {good}, Bearer {good}")],
            vec![format!("Bearer {unsigned}")],
            vec![format!("Bearer {unsigned}.")],
            vec![format!("Bearer {good}.more")],
            vec![format!("Bearer {good}=")],
            vec!["Bearer sk-1".to_owned()],
        ] {
            let values: Vec<&str> = wrong.iter().map(String::as_str).collect();
            assert_eq!(sent(&values).unwrap_err().reason, Reason::CallerToken, "{wrong:?}");
        }
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let claims = part(r#"{"aud": "https://api.example.com", "exp": 1867225601}"#);
        for header in ["{}", "[]", r#"{"alg": 1}"#, "x"] {
            let token = format!("Bearer {}.{claims}.{}", part(header), part("s"));
            assert_eq!(sent(&[&token]).unwrap_err().reason, Reason::CallerToken, "{header}");
        }
    }
}
