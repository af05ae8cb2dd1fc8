//! URI name constraints of certificate authorities (RFC 5280, section 4.2.1.10): which hosts, so which trust domains, what is below them may name.
//!
//! webpki refuses every URI below a constraint of that form, whatever it says. So it is shown the certificate with each URI base marked as
//! a form that no SPIFFE certificate has a name of, in the same bytes otherwise, and the signature is checked over the certificate as it was
//! signed ([`Signed`]). What the constraint says is judged here.
//!
//! **Invariant:** only bases that were read are marked: what could not be understood stays, and webpki refuses it. What webpki is shown
//! stands for one certificate: none is altered that has the mark already.

use std::net::Ipv4Addr;

use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree};

/// DER tags of general names (RFC 5280, section 4.2.1.6): `[6]`, and `[8]`, which webpki refuses a name of where it is constrained.
const URI: u8 = 0x86;
const REGISTERED_ID: u8 = 0x88;

/// Which hosts the URIs below a certificate authority may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UriConstraints {
    permitted: Vec<Box<str>>,
    excluded: Vec<Box<str>>,
}

impl UriConstraints {
    /// Whether the URI may stand below. One without a host name does not, as the RFC has it.
    pub(super) fn allow(&self, uri: &str) -> bool {
        if self.permitted.is_empty() && self.excluded.is_empty() {
            return true;
        }
        let Some(host) = host(uri) else { return false };
        let has = |bases: &[Box<str>]| bases.iter().any(|base| is_within(host, base));
        !has(&self.excluded) && (self.permitted.is_empty() || has(&self.permitted))
    }
}

/// The constraints on URIs of a certificate, and the certificate without them; `None` where it has none, or none that can be understood.
pub(super) fn apart(
    der: &CertificateDer<'_>,
    read: &X509Certificate<'_>,
) -> Option<(CertificateDer<'static>, UriConstraints)> {
    let constraints = read.name_constraints().ok()??.value;
    let mut bytes = der.to_vec();
    let mut apart = UriConstraints::default();
    for (subtrees, bases) in [
        (&constraints.permitted_subtrees, &mut apart.permitted),
        (&constraints.excluded_subtrees, &mut apart.excluded),
    ] {
        for GeneralSubtree { base } in subtrees.iter().flatten() {
            let base = match base {
                GeneralName::URI(base) => base,
                // What is shown could then stand for another certificate too, which has fewer of the constraints that are judged here.
                GeneralName::RegisteredID(_) | GeneralName::Invalid(..) => return None,
                _ => continue,
            };
            if !is_base(base) {
                return None;
            }
            *bytes.get_mut(tag_of(der, base)?)? = REGISTERED_ID;
            bases.push((*base).into());
        }
    }
    let has_any = !apart.permitted.is_empty() || !apart.excluded.is_empty();
    has_any.then(|| (bytes.into(), apart))
}

/// Where in `der` the tag of this URI is: before its length, which takes one byte.
fn tag_of(der: &[u8], uri: &str) -> Option<usize> {
    let start = uri.as_ptr().addr().checked_sub(der.as_ptr().addr())?;
    let tag = start.checked_sub(2)?;
    let is_there = der.get(tag..start)?
        == [URI, u8::try_from(uri.len()).ok().filter(|length| *length < 128)?]
        && der.get(start..start + uri.len())? == uri.as_bytes();
    is_there.then_some(tag)
}

/// A host, or with a period before it the hosts below it.
fn is_base(base: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    base.strip_prefix('.').unwrap_or(base).split('.').all(is_label)
}

fn host(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_name = !host.is_empty() && !host.starts_with('[') && host.parse::<Ipv4Addr>().is_err();
    is_name.then_some(host)
}

fn is_within(host: &str, base: &str) -> bool {
    if !base.starts_with('.') {
        return host.eq_ignore_ascii_case(base);
    }
    let (host, base) = (host.as_bytes(), base.as_bytes());
    let from = host.len().checked_sub(base.len()).filter(|before| *before > 0);
    from.and_then(|from| host.get(from..)).is_some_and(|end| end.eq_ignore_ascii_case(base))
}

/// What webpki is shown of a certificate, beside what was signed: the part that the signature is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Altered<'a> {
    pub(super) shown: &'a [u8],
    pub(super) signed: &'a [u8],
}

/// An algorithm that checks the signature of an altered certificate over what was signed.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    pub(super) algorithm: &'static dyn SignatureVerificationAlgorithm,
    pub(super) altered: &'a [Altered<'a>],
}

impl SignatureVerificationAlgorithm for Signed<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let signed = self.altered.iter().find(|altered| altered.shown == message);
        self.algorithm.verify_signature(
            public_key,
            signed.map_or(message, |altered| altered.signed),
            signature,
        )
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constraints(permitted: &[&str], excluded: &[&str]) -> UriConstraints {
        let bases = |bases: &[&str]| bases.iter().map(|base| (*base).into()).collect();
        UriConstraints { permitted: bases(permitted), excluded: bases(excluded) }
    }

    #[test]
    fn a_host_is_meant_alone_and_with_a_period_what_is_below_it() {
        let exact = constraints(&["prod.acme"], &[]);
        assert!(exact.allow("spiffe://prod.acme/ns/a") && exact.allow("spiffe://PROD.acme"));
        for other in ["spiffe://a.prod.acme/x", "spiffe://prod.acme.evil/x", "spiffe://xprod.acme/x"] {
            assert!(!exact.allow(other), "{other}");
        }
        let below = constraints(&[".acme"], &["dev.acme"]);
        assert!(below.allow("spiffe://prod.acme/x") && below.allow("spiffe://a.b.acme/x"));
        for other in ["spiffe://acme/x", "spiffe://dev.acme/x", "spiffe://.acme/x", "spiffe://xacme/x"] {
            assert!(!below.allow(other), "{other}");
        }
        assert!(constraints(&[], &["dev.acme"]).allow("spiffe://prod.acme/x"));
    }

    #[test]
    fn a_uri_without_a_host_name_stands_below_no_constraint() {
        for uri in ["urn:x", "spiffe:///x", "spiffe://10.0.0.1/x", "https://[::1]/x", "mailto:a@prod.acme"] {
            assert!(!constraints(&[], &["dev.acme"]).allow(uri), "{uri}");
            assert!(constraints(&[], &[]).allow(uri), "{uri}");
        }
        assert!(constraints(&["prod.acme"], &[]).allow("https://user@prod.acme:443/x"));
        assert!(!constraints(&["prod.acme"], &[]).allow("https://prod.acme@evil/x"));
    }

    #[test]
    fn what_is_no_host_is_not_understood() {
        for base in ["", ".", "a..b", "spiffe://prod.acme", "*.acme", "prod.acme/x", "prod.acme."] {
            assert!(!is_base(base), "{base}");
        }
    }
}
