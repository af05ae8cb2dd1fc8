//! Certificate revocation lists of one trust domain (RFC 5280, section 5).
//!
//! **Invariant:** a list is taken only if an authority of its own trust domain has signed it. One that ended refuses whoever it could name:
//! its issuer may have revoked somebody since.

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor};
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::expiry::Validity;

/// A revocation list whose signature was verified.
#[derive(Debug)]
pub(super) struct RevocationList {
    pub(super) list: CertRevocationList<'static>,
    /// The name of its issuer in DER, and its public key.
    issuer: Box<[u8]>,
    key: Box<[u8]>,
    /// Which of the issuer's certificates it is about, in DER: nothing where it is about all.
    scope: Box<[u8]>,
    begins: Timestamp,
    /// When the next one is due.
    pub(super) ends: Timestamp,
    /// Its place in the file, from 1, and its issuer: for people.
    pub(super) title: String,
}

/// Why a revocation list is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListFault {
    #[error("revocation list {0} cannot be read: {1}")]
    Malformed(usize, String),
    #[error(
        "{0} is of another issuer than the certificate authorities of this trust domain: name its issuer's certificate beside it if it is one below them"
    )]
    Foreign(String),
    #[error("{0} is not signed by its issuer")]
    Unsigned(String),
    #[error("{0} is signed by an authority that may not sign lists (keyUsage without cRLSign)")]
    MayNotSign(String),
}

impl ListFault {
    /// Whether no authority of its issuer's name and key is known.
    const fn is_foreign(&self) -> bool {
        matches!(self, Self::Foreign(_))
    }
}

impl RevocationList {
    /// Reads the list at this place of a file, which one of `authorities` has to have signed.
    pub(super) fn read(
        index: usize,
        der: &[u8],
        authorities: &[CertificateDer<'_>],
    ) -> Result<Self, ListFault> {
        let place = index + 1;
        let malformed = |error: String| ListFault::Malformed(place, error);
        let (rest, read) =
            CertificateRevocationList::from_der(der).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("there are bytes behind it".to_owned()));
        }
        let issuer = read.tbs_cert_list.issuer.as_raw();
        let name = read.tbs_cert_list.issuer.to_string();
        let name: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
        let title = format!("revocation list {place} ({name})");
        let key = signer(&read, &title, authorities)?;
        let list = OwnedCertRevocationList::from_der(der).map_err(|error| malformed(error.to_string()))?;
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
        let ends = read.tbs_cert_list.next_update.map_or(Timestamp::MAX, |time| at(time.timestamp()));
        let begins = at(read.tbs_cert_list.this_update.timestamp());
        let scope = read.extensions().iter().find(|it| it.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        let scope = scope.map(|scope| scope.value).unwrap_or_default().into();
        Ok(Self { list: list.into(), issuer: issuer.into(), key, scope, begins, ends, title })
    }

    /// Whether it says which certificates of this issuer are revoked.
    pub(super) fn is_of(&self, certificate: &X509Certificate<'_>) -> bool {
        certificate.issuer().as_raw() == &*self.issuer
    }

    /// Whether it is the same list as `old`, or one that came after it.
    pub(super) fn replaces(&self, old: &Self) -> bool {
        let is_of_one = self.issuer == old.issuer && self.key == old.key && self.scope == old.scope;
        is_of_one && self.begins >= old.begins
    }

    /// Whether this root has signed it.
    pub(super) fn is_by(&self, root: &TrustAnchor<'_>) -> bool {
        // An anchor has its key without the tag and the length of the sequence.
        self.key.ends_with(&root.subject_public_key_info)
    }

    /// From when until the next one is due.
    pub(super) const fn validity(&self) -> Validity {
        Validity { begins: self.begins, ends: self.ends }
    }

    /// The newest first: of two by one issuer that one counts.
    pub(super) fn sort(lists: &mut [Self]) {
        lists.sort_by_key(|list| std::cmp::Reverse(list.begins));
    }
}

/// The public key of the authority that has signed it (`SubjectPublicKeyInfo` in DER).
fn signer(
    read: &CertificateRevocationList<'_>,
    title: &str,
    authorities: &[CertificateDer<'_>],
) -> Result<Box<[u8]>, ListFault> {
    let mut fault = ListFault::Foreign(title.to_owned());
    for der in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(der) else { continue };
        if authority.subject().as_raw() != read.tbs_cert_list.issuer.as_raw() {
            continue;
        }
        let may_sign = match authority.key_usage() {
            Ok(None) => true,
            Ok(Some(usage)) => usage.value.crl_sign(),
            Err(_) => false,
        };
        let key = authority.public_key().subject_public_key.data.as_ref();
        let is_signed = webpki::ALL_VERIFICATION_ALGS.iter().any(|algorithm| {
            algorithm
                .verify_signature(key, read.tbs_cert_list.as_ref(), read.signature_value.data.as_ref())
                .is_ok()
        });
        match (is_signed, may_sign) {
            (true, true) => return Ok(authority.public_key().raw.into()),
            (true, false) => fault = ListFault::MayNotSign(title.to_owned()),
            (false, _) if names_another_key(read, &authority) => {}
            // Another authority of this name may have signed it.
            (false, _) if fault.is_foreign() => fault = ListFault::Unsigned(title.to_owned()),
            (false, _) => {}
        }
    }
    Err(fault)
}

/// Whether the list says that it was signed with a key that is not this authority's: authorities of one name are told apart so (RFC 5280,
/// section 5.2.1), and those of SPIRE have the same in every trust domain.
fn names_another_key(list: &CertificateRevocationList<'_>, authority: &X509Certificate<'_>) -> bool {
    let named = list.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(named) => named.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    });
    let own = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    named.zip(own).is_some_and(|(named, own)| named != own)
}

/// What a PEM file of lists holds: the lists, and the certificates of issuers below the roots. `None`: what is there is not that.
pub(super) fn parts(pem: &[u8]) -> Option<(Vec<Vec<u8>>, Vec<CertificateDer<'static>>)> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let issuers: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let lists: Vec<Vec<u8>> = lists.ok()?.iter().map(|list| list.as_ref().to_vec()).collect();
    Some((lists, issuers.ok()?)).filter(|(lists, _)| !lists.is_empty())
}
