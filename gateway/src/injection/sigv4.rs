//! AWS Signature Version 4 with a key that the caller never had
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).
//!
//! **Invariant:** signed last, over the host that the peer was verified for and what is sent, for a region and a service that the
//! credential lists. The secret access key only makes signing keys; of those the last ones are kept, for the day that they hold.

mod canonical;
mod chunks;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue, Request};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::policy::SigV4;
use tollgate_secrets::Secret;
use tollgate_secrets::digest::sha256;
use tollgate_secrets::sigv4::{Moment, SigningKey, Stamp};
use zeroize::Zeroizing;

use self::chunks::{ChunkTrailer, Resigner};
use super::{bug, form};
use crate::identity::{AwsScope, same_name};
use crate::upstream::OutBody;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
pub(super) const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// How the name of a header begins and ends that names another object.
const AMZ: &str = "x-amz-";
const SOURCE: &str = "-source";
/// Signing keys that a core keeps: the scopes of one credential are few.
const KEPT: usize = 16;

/// The payload words that stand for a body which the signature does not cover.
const UNSIGNED: [&str; 2] = ["UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"];
const CHUNKED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const CHUNKED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";

/// One version of an access key.
pub(super) struct SigV4Signer {
    id: Zeroizing<String>,
    secret: Zeroizing<Vec<u8>>,
    token: Option<HeaderValue>,
    keys: Mutex<Vec<DaysKey>>,
}

struct DaysKey {
    date: [u8; 8],
    scope: AwsScope,
    key: SigningKey,
}

impl fmt::Debug for SigV4Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigV4Signer").finish_non_exhaustive()
    }
}

/// The region and service to sign for: those that the caller's own signature named, or the only ones that there are.
///
/// # Errors
/// `no_grant` for others than the credential lists, `bad_request` where there is a choice and none was made, or the payload cannot be signed.
pub(super) fn scope(
    aws: &SigV4,
    named: Option<&AwsScope>,
    payload: Option<&HeaderValue>,
) -> Result<AwsScope, Denial> {
    if let Some(word) = payload
        && !is_known(word.as_bytes())
    {
        let detail = "x-amz-content-sha256 is none of the payload forms that are signed";
        return Err(Denial::new(Reason::BadRequest, detail));
    }
    match (named, &*aws.regions, &*aws.services) {
        (Some(scope), regions, services) => {
            let is_listed = regions.iter().any(|region| **region == *scope.region)
                && services.iter().any(|service| **service == *scope.service);
            let detail =
                "the credential does not sign for the region and service that the request's signature names";
            is_listed.then(|| scope.clone()).ok_or_else(|| Denial::new(Reason::NoGrant, detail))
        }
        (None, [region], [service]) => {
            Ok(AwsScope { region: region.as_str().into(), service: service.as_str().into() })
        }
        (None, ..) => {
            let detail = "sign the request with any key, so that it names its region and service";
            Err(Denial::new(Reason::BadRequest, detail))
        }
    }
}

/// Whether the query has a signature of its own, which would stand against ours.
pub(super) fn is_presigned(query: &str) -> bool {
    let name =
        |pair: &str| percent_decode_str(pair.split('=').next().unwrap_or_default()).collect::<Vec<u8>>();
    query.split('&').any(|pair| name(pair).eq_ignore_ascii_case(b"x-amz-algorithm"))
}

/// Whether a header names an object beside the one of the path (S3's `CopyObject`, `UploadPartCopy`, `RenameObject` and what may follow
/// them), which our signature would open.
pub(super) fn reads_elsewhere(headers: &HeaderMap) -> bool {
    let is_source = |name: &str| {
        let parts =
            name.get(..AMZ.len()).zip(name.len().checked_sub(SOURCE.len()).and_then(|at| name.get(at..)));
        parts.is_some_and(|(first, last)| same_name(first, AMZ) && same_name(last, SOURCE))
    };
    headers.keys().any(|name| is_source(name.as_str()))
}

/// Whether the head says something that AWS's signature takes in place of the body.
pub(crate) fn has_digest(headers: &HeaderMap) -> bool {
    headers.contains_key(CONTENT_SHA256)
}

fn is_known(word: &[u8]) -> bool {
    let words = UNSIGNED.iter().chain(&[CHUNKED, CHUNKED_TRAILER]);
    words.into_iter().any(|known| known.as_bytes() == word) || is_digest(word)
}

fn is_digest(word: &[u8]) -> bool {
    word.len() == 64 && word.iter().all(u8::is_ascii_hexdigit)
}

impl SigV4Signer {
    /// `None` where the secret lacks a field, or an id or token could not stand in a header.
    pub(super) fn new(aws: &SigV4, secret: &Secret) -> Option<Self> {
        let id = std::str::from_utf8(secret.expose(Some(&aws.access_key_id))?).ok()?;
        if !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let token = match &aws.session_token {
            Some(field) => Some(form::header("", secret.expose(Some(field))?)?),
            None => None,
        };
        Some(Self {
            id: Zeroizing::new(id.to_owned()),
            secret: Zeroizing::new(secret.expose(Some(&aws.secret_access_key))?.to_vec()),
            token,
            keys: Mutex::default(),
        })
    }

    /// Signs a request that is otherwise complete, for `host` as the provider will read it.
    pub(super) fn sign(
        &self,
        request: &mut Request<OutBody>,
        host: &str,
        scope: &AwsScope,
        now: Timestamp,
    ) -> Result<(), Denial> {
        let stamp = self.stamp(scope, now)?;
        let is_s3 = scope.is_s3();
        let payload = payload(request, is_s3).ok_or_else(|| bug("the body cannot be signed"))?;
        let headers = request.headers_mut();
        headers.insert(DATE, value(stamp.time())?);
        if let Some(token) = &self.token {
            headers.insert(SECURITY_TOKEN, token.clone());
        }
        let (canonical, signed) = canonical::request(request, host, &payload, is_s3);
        let (authorization, signature) = stamp.authorization(self.id.as_bytes(), &signed, &canonical);
        let header = form::header("", &authorization).ok_or_else(|| bug("no authorization"))?;
        request.headers_mut().insert(AUTHORIZATION, header);
        let trailer = match &*payload {
            CHUNKED => ChunkTrailer::Absent,
            CHUNKED_TRAILER => ChunkTrailer::Signed,
            _ => return Ok(()),
        };
        let body = std::mem::replace(request.body_mut(), OutBody::Whole(Bytes::new()));
        *request.body_mut() = body
            .recoded(Box::new(Resigner::new(stamp, signature, trailer)))
            .map_err(|_| Denial::new(Reason::BodyInvalid, "the body is not in signed chunks"))?;
        Ok(())
    }

    fn stamp(&self, scope: &AwsScope, now: Timestamp) -> Result<Stamp, Denial> {
        let AwsScope { region, service } = scope;
        let moment = Moment::at(now);
        let date = moment.date();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = keys.iter().find(|kept| kept.date == date && kept.scope == *scope) {
            return Ok(Stamp::new(moment, region, service, kept.key.clone()));
        }
        let key =
            SigningKey::new(&self.secret, &date, region, service).ok_or_else(|| bug("no signing key"))?;
        keys.retain(|kept| kept.date == date);
        if keys.len() < KEPT {
            keys.push(DaysKey { date, scope: scope.clone(), key: key.clone() });
        }
        Ok(Stamp::new(moment, region, service, key))
    }
}

/// The word that stands for the body in the signature; the header that repeats it is put where the service wants one.
fn payload(request: &mut Request<OutBody>, is_s3: bool) -> Option<String> {
    let written = request.headers().get(CONTENT_SHA256).map(|value| value.to_str().map(str::to_owned));
    let word = match (written, request.body()) {
        (Some(word), _) if word.as_ref().is_ok_and(|word| !is_digest(word.as_bytes())) => return word.ok(),
        // A body that is held may have been edited since its digest was taken.
        (_, OutBody::Whole(bytes)) => sha256(bytes),
        (Some(word), _) => return word.ok(),
        (None, _) if is_s3 => UNSIGNED[0].to_owned(),
        (None, _) => return None,
    };
    if is_s3 || request.headers().contains_key(CONTENT_SHA256) {
        request.headers_mut().insert(CONTENT_SHA256, HeaderValue::from_str(&word).ok()?);
    }
    Some(word)
}

fn value(text: &str) -> Result<HeaderValue, Denial> {
    HeaderValue::from_str(text).map_err(|_| bug("a signed header cannot be written"))
}

#[cfg(test)]
mod tests;
