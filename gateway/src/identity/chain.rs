//! The path from a leaf to a root of its bundle: whether there is one, and when it ends.
//!
//! **Invariant:** only the certificates of a path are judged, never what is shown beside it; of several paths the one that lasts longest
//! counts. Signatures, dates, revocation, `CA` and the length of the path are webpki's; here are the dates of the root, who may sign, and
//! constraints on URIs.

use std::cell::Cell;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::bundle::Bundle;
use super::constraints::{self, Altered, Signed, UriConstraints};
use super::refusal::Refusal;
use crate::expiry::Validity;

/// Certificates beside a leaf that are looked at: webpki goes through six on a path.
const MOST_ISSUERS: usize = 16;

/// When the path from `leaf` to a root of `bundle` ends, at `now`. What begins within `skew` from now has begun.
pub(super) fn verify(
    chain: &[CertificateDer<'_>],
    bundle: &Bundle,
    now: UnixTime,
    skew: Duration,
) -> Result<Timestamp, Refusal> {
    let (leaf, issuers) = chain.split_first().ok_or(Refusal::NoCertificate)?;
    let shown = Shown::of(leaf, issuers)?;
    let moment = |at: UnixTime| Moment { at, now: seconds(now), skew: seconds_of(skew) };
    match shown.ends(bundle, moment(now)) {
        Err(Refusal::NotYetValid) if !skew.is_zero() => {
            let later = Duration::from_secs(now.as_secs()).saturating_add(skew);
            shown.ends(bundle, moment(UnixTime::since_unix_epoch(later)))
        }
        done => done,
    }
}

#[derive(Clone, Copy)]
struct Moment {
    /// What webpki takes for now.
    at: UnixTime,
    now: i64,
    skew: i64,
}

/// A chain as the peer showed it.
struct Shown<'a> {
    leaf: &'a CertificateDer<'a>,
    signed: X509Certificate<'a>,
    issuers: Vec<Issuer<'a>>,
    /// The issuers as webpki sees them, in the same order.
    certificates: Vec<CertificateDer<'a>>,
}

struct Issuer<'a> {
    read: X509Certificate<'a>,
    constraints: UriConstraints,
}

impl<'a> Shown<'a> {
    /// A certificate that cannot be read is not part of a path.
    fn of(leaf: &'a CertificateDer<'a>, issuers: &'a [CertificateDer<'a>]) -> Result<Self, Refusal> {
        let (_, signed) = X509Certificate::from_der(leaf).map_err(|_| Refusal::Malformed)?;
        // webpki parses each of them at every step of its search, which anybody can make long.
        if issuers.len() > MOST_ISSUERS {
            return Err(Refusal::Unverified);
        }
        let mut shown = Self { leaf, signed, issuers: Vec::new(), certificates: Vec::new() };
        for der in issuers {
            let Ok((_, read)) = X509Certificate::from_der(der) else { continue };
            let (certificate, constraints) = match constraints::apart(der, &read) {
                Some(apart) => apart,
                None => (CertificateDer::from(der.as_ref()), UriConstraints::default()),
            };
            shown.certificates.push(certificate);
            shown.issuers.push(Issuer { read, constraints });
        }
        Ok(shown)
    }

    fn ends(&self, bundle: &Bundle, moment: Moment) -> Result<Timestamp, Refusal> {
        let mut altered = Vec::new();
        for (certificate, issuer) in self.certificates.iter().zip(&self.issuers) {
            if issuer.constraints != UriConstraints::default() {
                let (_, read) = X509Certificate::from_der(certificate).map_err(|_| Refusal::Malformed)?;
                altered.push((read, issuer.read.tbs_certificate.as_ref()));
            }
        }
        let altered: Vec<_> = altered
            .iter()
            .map(|(shown, signed)| Altered { shown: shown.tbs_certificate.as_ref(), signed })
            .collect();
        if self.has_double(&altered) {
            return Err(Refusal::Unverified);
        }
        let signed: Vec<_> = webpki::ALL_VERIFICATION_ALGS
            .iter()
            .map(|algorithm| Signed { algorithm: *algorithm, altered: &altered })
            .collect();
        let signed: Vec<&dyn SignatureVerificationAlgorithm> = signed.iter().map(|one| one as _).collect();
        let algorithms = if altered.is_empty() { webpki::ALL_VERIFICATION_ALGS } else { &signed };
        self.longest(bundle, algorithms, moment)
    }

    /// Whether a certificate was made to look like what another is altered to: its own constraints would not be asked.
    fn has_double(&self, altered: &[Altered<'_>]) -> bool {
        let all = self.issuers.iter().map(|issuer| &issuer.read).chain([&self.signed]);
        let mut all = all.map(|read| read.tbs_certificate.as_ref());
        let is_one_for_two = |one: &Altered<'_>| {
            altered.iter().any(|other| one.shown == other.shown && one.signed != other.signed)
        };
        all.any(|signed| altered.iter().any(|altered| altered.shown == signed))
            || altered.iter().any(is_one_for_two)
    }

    fn longest(
        &self,
        bundle: &Bundle,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
        moment: Moment,
    ) -> Result<Timestamp, Refusal> {
        let certificate = EndEntityCert::try_from(self.leaf).map_err(|_| Refusal::Malformed)?;
        let own = Validity::of(&self.signed).ends;
        let (longest, refused) = (Cell::new(None), Cell::new(None));
        let judge = |path: &VerifiedPath<'_>| {
            match self.judge(path, bundle, moment) {
                Ok(ends) => longest.set(longest.get().max(Some(ends))),
                Err(refusal) => refused.set(Some(refusal)),
            }
            // None lasts longer than its leaf; else another one is looked for.
            if longest.get() >= Some(own) { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
        };
        let (mut failed, mut is_revoked) = (webpki::Error::UnknownIssuer, false);
        for (anchors, lists) in bundle.anchors_with_lists() {
            // Who has no list has revoked nobody.
            let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
                let options = options.with_status_policy(UnknownStatusPolicy::Allow);
                options.with_expiration_policy(ExpirationPolicy::Enforce).build()
            });
            let verified = certificate.verify_for_usage(
                algorithms,
                anchors,
                &self.certificates,
                moment.at,
                KeyUsage::client_auth(),
                revocation,
                Some(&judge),
            );
            // Another path may know nothing of the list: that of a root which another root vouches for.
            is_revoked |= matches!(verified, Err(webpki::Error::CertRevoked));
            match verified {
                // That a root is not the one says less than what is wrong below the one.
                Err(error) if refusal_of(&failed) == Refusal::UnknownIssuer => failed = error,
                _ => {}
            }
        }
        if is_revoked {
            return Err(refusal_of(&webpki::Error::CertRevoked));
        }
        match (longest.get(), refused.get()) {
            (Some(ends), _) => Ok(ends),
            (None, Some(refusal)) => Err(refusal),
            (None, None) => Err(refusal_of(&failed)),
        }
    }

    /// When a path ends whose signatures are good.
    fn judge(&self, path: &VerifiedPath<'_>, bundle: &Bundle, moment: Moment) -> Result<Timestamp, Refusal> {
        let root = bundle.root(path.anchor()).ok_or(Refusal::Unverified)?;
        if root.validity.begins.as_second() > moment.now.saturating_add(moment.skew)
            || root.validity.ends.as_second() < moment.now
        {
            return Err(Refusal::RootNotInDate);
        }
        let revocable = |certificate: &X509Certificate<'_>| {
            let lists = bundle.revocations().iter().filter(|list| list.is_of(certificate));
            lists.map(|list| list.ends).max().unwrap_or(Timestamp::MAX)
        };
        let mut ends = Validity::of(&self.signed).ends.min(root.validity.ends).min(revocable(&self.signed));
        let mut below = uris(&self.signed)?;
        for certificate in path.intermediate_certificates() {
            let der = certificate.der();
            let at = self.certificates.iter().position(|shown| *shown == der);
            let issuer = at.and_then(|at| self.issuers.get(at)).ok_or(Refusal::Unverified)?;
            if !may_sign(&issuer.read) {
                return Err(Refusal::IssuerMayNotSign);
            }
            if !below.iter().all(|uri| issuer.constraints.allow(uri)) {
                return Err(Refusal::NameNotPermitted);
            }
            ends = ends.min(Validity::of(&issuer.read).ends).min(revocable(&issuer.read));
            below.extend(uris(&issuer.read)?);
        }
        if !below.iter().all(|uri| root.constraints.allow(uri)) {
            return Err(Refusal::NameNotPermitted);
        }
        Ok(ends)
    }
}

/// An authority below the root must be allowed to sign (SPIFFE X.509-SVID, section 4.3); that it is one, webpki has seen.
fn may_sign(issuer: &X509Certificate<'_>) -> bool {
    matches!(issuer.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign())
}

/// `uniformResourceIdentifier` among the general names (RFC 5280, section 4.2.1.6).
const URI_NAME: u32 = 6;

/// The URIs of its subject alternative name. One that cannot be read could be any.
pub(super) fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, Refusal> {
    let names = certificate.subject_alternative_name().map_err(|_| Refusal::Malformed)?;
    let names = names.iter().flat_map(|san| &san.value.general_names);
    let uris = names.filter_map(|name| match name {
        GeneralName::URI(uri) => Some(Ok(*uri)),
        GeneralName::Invalid(tag, _) if tag.0 == URI_NAME => Some(Err(Refusal::Malformed)),
        _ => None,
    });
    uris.collect()
}

fn refusal_of(error: &webpki::Error) -> Refusal {
    match error {
        webpki::Error::CertExpired { .. } => Refusal::Expired,
        webpki::Error::CertNotValidYet { .. } => Refusal::NotYetValid,
        // A root of the same name with another key is not the issuer either.
        webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => Refusal::UnknownIssuer,
        webpki::Error::CaUsedAsEndEntity => Refusal::SigningCertificate,
        webpki::Error::NameConstraintViolation => Refusal::NameNotPermitted,
        webpki::Error::CertRevoked => Refusal::Revoked,
        webpki::Error::CrlExpired { .. } => Refusal::RevocationListEnded,
        _ => Refusal::Unverified,
    }
}

pub(super) fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn seconds_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
