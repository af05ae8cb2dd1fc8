//! Sessions of AWS roles: what STS is asked, and what it answers
//! (<https://docs.aws.amazon.com/STS/latest/APIReference/welcome.html>).
//!
//! **Invariant:** of an answer the three parts of the session leave this module, of a refusal one of a few fixed words. An element that
//! is there twice is none.

use jiff::Timestamp;
use reqwest::Request;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::time::Instant;
use tollgate_policy::policy::{AwsKey, AwsSession};
use zeroize::Zeroizing;

use super::answer::{LONGEST_TOKEN, expiring, life_until};
use super::form::{self, Form};
use super::{FORM, trimmed};
use crate::digest::sha256;
use crate::error::Failure;
use crate::http::Answer;
use crate::sigv4::{Moment, SigningKey, Stamp};
use crate::store::Fetched;
use crate::value::{Field, Value};

const VERSION: &str = "2011-06-15";
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const XML: HeaderValue = HeaderValue::from_static("text/xml");

/// The form of `AssumeRole`.
pub(super) fn assume_role(session: &AwsSession, external_id: Option<&str>) -> Zeroizing<Vec<u8>> {
    let duration = seconds(session);
    let mut form = asked("AssumeRole", session, duration.as_deref());
    form.add_some("ExternalId", external_id);
    form.encoded()
}

/// The form of `AssumeRoleWithWebIdentity`, which nothing signs: the token is all that is shown.
pub(super) fn web_identity(session: &AwsSession, token: &[u8]) -> Zeroizing<Vec<u8>> {
    let duration = seconds(session);
    let mut form = asked("AssumeRoleWithWebIdentity", session, duration.as_deref());
    form.add_secret("WebIdentityToken", trimmed(token));
    form.encoded()
}

fn seconds(session: &AwsSession) -> Option<String> {
    session.duration.map(|duration| duration.as_secs().to_string())
}

fn asked<'a>(action: &'a str, session: &'a AwsSession, duration: Option<&'a str>) -> Form<'a> {
    let mut form = Form::default();
    form.add("Action", action);
    form.add("Version", VERSION);
    form.add("RoleArn", &session.role_arn);
    form.add("RoleSessionName", &session.name);
    form.add_some("DurationSeconds", duration);
    form.add_some("Policy", session.policy.as_deref());
    form
}

/// The headers of either, for the body that is to be sent.
pub(super) fn describe(request: &mut Request) {
    request.headers_mut().insert(ACCEPT, XML);
    request.headers_mut().insert(CONTENT_TYPE, FORM);
}

/// Signs a request that is complete but for its body.
pub(super) fn sign(
    request: &mut Request,
    body: &[u8],
    (key, region): (&AwsKey, &str),
    stored: &Value,
    now: Timestamp,
) -> Result<(), Failure> {
    const SIGNED: &str = "content-type;host;x-amz-date";
    let field = |name: &str| stored.field(name).map(trimmed).ok_or(Failure::FieldMissing);
    let (id, secret) = (field(&key.access_key_id)?, field(&key.secret_access_key)?);
    if !is_id(id) {
        return Err(Failure::Malformed("its access key id is none: is it the other half?"));
    }
    let moment = Moment::at(now);
    let signing = SigningKey::new(secret, &moment.date(), region, "sts").ok_or(Failure::Internal)?;
    let stamp = Stamp::new(moment, region, "sts", signing);
    let url = request.url();
    let host = url.host_str().ok_or(Failure::Internal)?;
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let path = form::path(url.path());
    let (kind, time, digest) = (FORM, stamp.time(), sha256(body));
    let kind = kind.to_str().map_err(|_| Failure::Internal)?;
    let canonical =
        format!("POST\n{path}\n\ncontent-type:{kind}\nhost:{host}\nx-amz-date:{time}\n\n{SIGNED}\n{digest}");
    let (authorization, _) = stamp.authorization(id, SIGNED, &canonical);
    let authorization = form::sensitive(&[&authorization])?;
    let time = HeaderValue::from_str(time).map_err(|_| Failure::Internal)?;
    request.headers_mut().insert(AUTHORIZATION, authorization);
    request.headers_mut().insert(DATE, time);
    Ok(())
}

/// The session of an answer to a request that was sent at `asked`.
pub(super) fn session(answer: &Answer, asked: Instant) -> Result<Fetched, Failure> {
    let text = std::str::from_utf8(&answer.body).unwrap_or_default();
    if answer.status != 200 {
        return Err(refused(answer.status, text));
    }
    let foreign = Failure::MintNonsense("it is not the XML of a session");
    let given = element(text, "Credentials").ok_or(foreign)?;
    let part = |name: &str| element(given, name).map(str::as_bytes).ok_or(foreign);
    let (id, secret, token) = (part("AccessKeyId")?, part("SecretAccessKey")?, part("SessionToken")?);
    // What needed an escape would have an ampersand, and none of these has.
    let is_plain = |b: &u8| b.is_ascii_alphanumeric() || b"+/=_-.".contains(b);
    let is_good = |part: &[u8]| (1..=LONGEST_TOKEN).contains(&part.len()) && part.iter().all(is_plain);
    if !is_id(id) || !is_good(secret) || !is_good(token) {
        return Err(Failure::MintNonsense("the session has characters that no session has, or too many"));
    }
    let ends = element(given, "Expiration").and_then(|text| text.parse::<Timestamp>().ok());
    let life = life_until(ends.ok_or(Failure::MintNonsense("Expiration is not a time"))?, answer)?;
    let fields: Vec<Field> = AwsSession::FIELDS
        .into_iter()
        .zip([id, secret, token])
        .map(|(name, part)| (name.into(), Zeroizing::new(part.to_vec())))
        .collect();
    expiring(Value::of(fields), life, asked)
}

/// As AWS documents it, with some room: <https://docs.aws.amazon.com/STS/latest/APIReference/API_Credentials.html>.
fn is_id(id: &[u8]) -> bool {
    (16..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_alphanumeric)
}

/// The text of the only element of this name, which has no attributes.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (_, rest) = xml.split_once(&open)?;
    let (inner, after) = rest.split_once(&close)?;
    (!inner.contains(&open) && !after.contains(&open)).then(|| inner.trim())
}

/// Errors that all actions of STS have in common, and those of the two.
fn refused(status: u16, text: &str) -> Failure {
    if !matches!(status, 400 | 401 | 403) {
        return Failure::Status(status);
    }
    let Some(code) = element(text, "Code") else { return Failure::Status(status) };
    Failure::MintRefused(match code {
        "Throttling" | "ThrottlingException" => return Failure::Throttled,
        "AccessDenied" | "AccessDeniedException" => "AccessDenied; does the role trust this key or token?",
        "ExpiredToken" | "ExpiredTokenException" => "ExpiredToken; what was shown is over",
        "IDPCommunicationError" => "IDPCommunicationError; it cannot reach the issuer of the token",
        "IDPRejectedClaim" => "IDPRejectedClaim; is the token revoked, or for another audience?",
        "InvalidClientTokenId" => "InvalidClientTokenId; it does not know the access key",
        "InvalidIdentityToken" => "InvalidIdentityToken; is its issuer a provider of that account?",
        "MalformedPolicyDocument" => "MalformedPolicyDocument; it is about the session policy",
        "PackedPolicyTooLarge" => "PackedPolicyTooLarge; it is about the session policy",
        "RegionDisabledException" => "RegionDisabledException; STS is switched off there",
        "RequestExpired" => "RequestExpired; is the clock right?",
        "SignatureDoesNotMatch" => {
            "SignatureDoesNotMatch; are both halves of one key, is the region right, and the clock?"
        }
        "ValidationError" => "ValidationError; does the role allow sessions that long?",
        _ => "with a code of its own",
    })
}

#[cfg(test)]
mod tests;
