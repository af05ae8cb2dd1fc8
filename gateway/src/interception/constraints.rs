//! For which names an authority may sign (RFC 5280, section 4.2.1.10).
//!
//! **Invariant:** this only foresees what programs find out for themselves when they verify a certificate: it decides on no trust.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, GeneralSubtree};
use x509_parser::prelude::FromDer;

/// The name constraints of the certificates of a chain, which hold together.
#[derive(Debug, Default)]
pub(super) struct Constraints(Vec<Subtrees>);

#[derive(Debug, Default)]
struct Subtrees {
    permitted: Vec<Subtree>,
    excluded: Vec<Subtree>,
}

#[derive(Debug)]
enum Subtree {
    Dns(String),
    /// Address and mask, one behind the other.
    Ip(Vec<u8>),
}

impl Constraints {
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Self {
        let read = chain.iter().filter_map(|der| X509Certificate::from_der(der).ok());
        let all = read.filter_map(|(_, certificate)| {
            let constraints = certificate.name_constraints().ok()??.value;
            Some(Subtrees {
                permitted: subtrees(constraints.permitted_subtrees.as_deref()),
                excluded: subtrees(constraints.excluded_subtrees.as_deref()),
            })
        });
        Self(all.collect())
    }

    /// Whether none of them forbids `name`: a host, `*.` before one, or an address.
    pub(super) fn permit(&self, name: &str) -> bool {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let address: Option<IpAddr> = bare.parse().ok();
        let has = |subtrees: &[Subtree]| subtrees.iter().any(|subtree| subtree.has(name, address));
        let is_limited = |subtrees: &[Subtree]| {
            subtrees.iter().any(|subtree| matches!(subtree, Subtree::Ip(_)) == address.is_some())
        };
        self.0.iter().all(|Subtrees { permitted, excluded }| {
            !has(excluded) && (has(permitted) || !is_limited(permitted))
        })
    }
}

impl Subtree {
    fn has(&self, name: &str, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Dns(base), None) => {
                let name = name.strip_prefix("*.").unwrap_or(name);
                let base = base.strip_prefix('.').unwrap_or(base);
                let above = name.len().checked_sub(base.len()).and_then(|at| name.split_at_checked(at));
                base.is_empty()
                    || above.is_some_and(|(above, tail)| {
                        tail.eq_ignore_ascii_case(base) && (above.is_empty() || above.ends_with('.'))
                    })
            }
            (Self::Ip(base), Some(IpAddr::V4(address))) => is_in(&address.octets(), base),
            (Self::Ip(base), Some(IpAddr::V6(address))) => is_in(&address.octets(), base),
            (Self::Dns(_), Some(_)) | (Self::Ip(_), None) => false,
        }
    }
}

fn is_in(address: &[u8], base: &[u8]) -> bool {
    let (network, mask) = base.split_at(base.len() / 2);
    network.len() == address.len()
        && address
            .iter()
            .zip(network)
            .zip(mask)
            .all(|((address, network), mask)| address & mask == network & mask)
}

fn subtrees(all: Option<&[GeneralSubtree<'_>]>) -> Vec<Subtree> {
    let read = |subtree: &GeneralSubtree<'_>| match subtree.base {
        GeneralName::DNSName(name) => Some(Subtree::Dns(name.to_owned())),
        GeneralName::IPAddress(base) => Some(Subtree::Ip(base.to_vec())),
        _ => None,
    };
    all.unwrap_or_default().iter().filter_map(read).collect()
}
