//! The core of AWS Signature Version 4: signing keys, and what is signed with them
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>).
//!
//! It stands here, below all who sign: the gateway its calls, this crate its questions to STS. The crate `aws-sigv4` derives its keys in
//! buffers that nobody zeroizes.
//!
//! **Invariant:** all that lies between a secret access key and a signature is in buffers that are zeroized, or in aws-lc.
//!
//! Deliberately lacks: the canonical request, which depends on what is sent.

use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::digest::{hex, sha256};

/// The kind of string that is signed for a head.
const HEAD: &str = "AWS4-HMAC-SHA256";

/// Makes the signatures of one day, region and service. Aws-lc wipes it when it is dropped.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

/// A time, as signatures name it.
pub struct Moment(String);

/// What the signatures of one request have in common.
pub struct Stamp {
    moment: Moment,
    scope: String,
    key: SigningKey,
}

impl Moment {
    /// `20261124T205800Z`.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self(now.strftime("%Y%m%dT%H%M%SZ").to_string())
    }

    /// `20261124`: a signing key is of one day.
    #[must_use]
    pub fn date(&self) -> [u8; 8] {
        self.0.as_bytes().first_chunk().copied().unwrap_or_default()
    }
}

impl SigningKey {
    /// `None` where aws-lc has no memory left.
    #[must_use]
    pub fn new(secret: &[u8], date: &[u8; 8], region: &str, service: &str) -> Option<Self> {
        let mut first = Zeroizing::new(Vec::with_capacity(4 + secret.len()));
        first.extend_from_slice(b"AWS4");
        first.extend_from_slice(secret);
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, &first);
        for part in [date.as_slice(), region.as_bytes(), service.as_bytes(), b"aws4_request"] {
            let mut tag = Zeroizing::new([0; digest::SHA256_OUTPUT_LEN]);
            hmac::sign_to_buffer(&key, part, &mut *tag).ok()?;
            key = hmac::Key::new(hmac::HMAC_SHA256, &*tag);
        }
        Some(Self(key))
    }
}

impl Stamp {
    /// `key` is of the moment's day, this region and this service.
    #[must_use]
    pub fn new(moment: Moment, region: &str, service: &str, key: SigningKey) -> Self {
        let date = moment.0.get(..8).unwrap_or_default();
        let scope = format!("{date}/{region}/{service}/aws4_request");
        Self { moment, scope, key }
    }

    /// `20261124T205800Z`.
    #[must_use]
    pub fn time(&self) -> &str {
        &self.moment.0
    }

    /// `20261124/eu-central-1/s3/aws4_request`.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The value of `authorization` for a head, and the signature in it. `signed` names the headers that the canonical request has.
    #[must_use]
    pub fn authorization(&self, id: &[u8], signed: &str, canonical: &str) -> (Zeroizing<Vec<u8>>, String) {
        let signature = self.sign(HEAD, &[&sha256(canonical.as_bytes())]);
        let rest = format!("/{}, SignedHeaders={signed}, Signature={signature}", self.scope);
        let parts = [HEAD.as_bytes(), b" Credential=", id, rest.as_bytes()];
        // All at once, so that no smaller buffer with the id is left behind.
        (Zeroizing::new(parts.concat()), signature)
    }

    /// The signature of a string of this kind (`AWS4-HMAC-SHA256` for a head), whose further lines are `rest`.
    #[must_use]
    pub fn sign(&self, kind: &str, rest: &[&str]) -> String {
        let mut context = hmac::Context::with_key(&self.key.0);
        for part in [kind, self.time(), self.scope()] {
            context.update(part.as_bytes());
            context.update(b"\n");
        }
        for (index, part) in rest.iter().enumerate() {
            if index > 0 {
                context.update(b"\n");
            }
            context.update(part.as_bytes());
        }
        hex(context.sign().as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_and_signature_of_the_documentation_come_out() {
        // https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
        let moment = Moment::at("2013-05-24T00:00:00Z".parse().unwrap());
        let secret = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        let key = SigningKey::new(secret, &moment.date(), "us-east-1", "s3").unwrap();
        let stamp = Stamp::new(moment, "us-east-1", "s3", key);
        assert_eq!(stamp.time(), "20130524T000000Z");
        assert_eq!(stamp.scope(), "20130524/us-east-1/s3/aws4_request");
        let canonical = "7344ae5b7ee6c3e7e6b0fe0640412a37625d1fbfff95c48bbb2dc43964946972";
        assert_eq!(
            stamp.sign(HEAD, &[canonical]),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }
}
