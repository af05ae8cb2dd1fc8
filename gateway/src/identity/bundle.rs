//! The certificate authorities of one trust domain, as SPIFFE has them (X.509-SVID, sections 3 and 4; bundles, section 4.1).
//!
//! **Invariant:** what may not sign is no anchor, whatever file it stands in.

use std::fmt;

use rustls::pki_types::{CertificateDer, TrustAnchor};
use webpki::CertRevocationList;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::constraints::{self, UriConstraints};
use super::revocation::RevocationList;
use crate::expiry::{Validity, title};

/// The roots of one trust domain.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    anchors: Vec<TrustAnchor<'static>>,
    /// Of each anchor, in the same order.
    roots: Vec<Root>,
    revocations: Vec<RevocationList>,
}

/// What an anchor does not say of its certificate.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) validity: Validity,
    pub(super) constraints: UriConstraints,
    /// Its place in the file, from 1, and its subject: for people.
    pub(super) title: String,
}

/// Why a certificate of a bundle is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    title: String,
    fault: &'static str,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: it is left out", self.title, self.fault)
    }
}

impl Bundle {
    /// The authorities among `certificates`, and what is none.
    ///
    /// # Errors
    /// What is wrong with a certificate that cannot be read.
    pub(crate) fn of(certificates: &[CertificateDer<'_>]) -> Result<(Self, Vec<Unfit>), String> {
        let (mut bundle, mut unfit) = (Self::default(), Vec::new());
        for (index, der) in certificates.iter().enumerate() {
            let (_, read) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
            let title = title(index, &read);
            let validity = Validity::of(&read);
            if let Some(fault) = fault(&read) {
                unfit.push(Unfit { title, fault });
                continue;
            }
            let apart = constraints::apart(der, &read);
            let (shown, constraints) =
                apart.unwrap_or_else(|| (der.clone().into_owned(), UriConstraints::default()));
            let anchor = webpki::anchor_from_trusted_cert(&shown).map_err(|error| error.to_string())?;
            bundle.anchors.push(anchor.to_owned());
            bundle.roots.push(Root { validity, constraints, title });
        }
        Ok((bundle, unfit))
    }

    /// With what its authorities have revoked.
    pub(super) fn revoking(mut self, mut lists: Vec<RevocationList>) -> Self {
        RevocationList::sort(&mut lists);
        self.revocations = lists;
        self
    }

    /// The newest first.
    pub(super) fn revocations(&self) -> &[RevocationList] {
        &self.revocations
    }

    /// The anchors, each with the lists that say what is revoked below it: webpki knows an issuer of a list by its name, and the roots of a
    /// trust domain that changes them may all have one.
    pub(super) fn anchors_with_lists(
        &self,
    ) -> Vec<(&[TrustAnchor<'static>], Vec<&CertRevocationList<'static>>)> {
        if self.revocations.is_empty() {
            return vec![(&self.anchors, Vec::new())];
        }
        let is_roots = |list: &&RevocationList| self.anchors.iter().any(|anchor| list.is_by(anchor));
        let each = self.anchors.iter().map(|anchor| {
            let lists = self.revocations.iter().filter(|list| list.is_by(anchor) || !is_roots(list));
            (std::slice::from_ref(anchor), lists.map(|known| &known.list).collect())
        });
        each.collect()
    }

    /// What is known of an anchor.
    pub(super) fn root(&self, anchor: &TrustAnchor<'_>) -> Option<&Root> {
        let at = self.anchors.iter().position(|known| std::ptr::eq(known, anchor))?;
        self.roots.get(at)
    }

    pub(super) fn roots(&self) -> &[Root] {
        &self.roots
    }
}

fn fault(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    if !certificate.is_ca() {
        return Some("is no certificate authority (basicConstraints without CA)");
    }
    let usage = certificate.key_usage();
    match usage {
        Ok(None) => None,
        Ok(Some(usage)) if usage.value.key_cert_sign() => None,
        _ => Some("may not sign certificates (keyUsage without keyCertSign)"),
    }
}
