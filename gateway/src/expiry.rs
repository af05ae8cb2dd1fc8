//! When certificates end: the own one, the roots of bundles, what is shown to destinations and what these are verified with.
//!
//! **Invariant:** nothing here decides on trust: it is what people are told before callers notice.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// A certificate that ends sooner than this is told of, and sooner than a fifth of its life: who lives for hours is replaced within these.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
const LAST_PART: i32 = 5;

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) begins: Timestamp,
    pub(crate) ends: Timestamp,
}

/// Where in its life a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    NotYet,
    Valid,
    EndsSoon,
    Ended,
}

impl Validity {
    /// Dates beyond those that can be counted are the first and the last of these: the end of what never ends (RFC 5280, section
    /// 4.1.2.5) is one of them.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let read = certificate.validity();
        let at = |seconds: i64| {
            let bound = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
            Timestamp::from_second(seconds).unwrap_or(bound)
        };
        Self { begins: at(read.not_before.timestamp()), ends: at(read.not_after.timestamp()) }
    }

    /// What those of a chain have in common that can be read.
    pub(crate) fn of_chain(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let read = chain.iter().filter_map(|der| X509Certificate::from_der(der).ok());
        read.map(|(_, read)| Self::of(&read)).reduce(Self::and)
    }

    /// What both have in common.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { begins: self.begins.max(other.begins), ends: self.ends.min(other.ends) }
    }

    /// What begins within `skew` has begun.
    pub(crate) fn age(&self, now: Timestamp, skew: Duration) -> Age {
        let skewed = now.saturating_add(skew).unwrap_or(Timestamp::MAX);
        let soon = SOON.min(self.begins.duration_until(self.ends) / LAST_PART);
        if self.ends < now {
            Age::Ended
        } else if self.begins > skewed {
            Age::NotYet
        } else if now.duration_until(self.ends) < soon {
            Age::EndsSoon
        } else {
            Age::Valid
        }
    }
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Shown to callers.
    Own,
    /// A root that callers of a trust domain are verified with.
    Bundle,
    /// What an authority of a trust domain has revoked.
    RevocationList,
    /// Shown to a destination.
    Client,
    /// A root that a destination is verified with.
    Destination,
    /// The authority that signs for hosts whose TLS is intercepted.
    Interception,
}

impl Purpose {
    /// For metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Bundle => "bundle",
            Self::RevocationList => "crl",
            Self::Client => "client",
            Self::Destination => "destination",
            Self::Interception => "interception",
        }
    }

    /// What comes of it when it is not in date.
    const fn consequence(self) -> &'static str {
        match self {
            Self::Own => "callers refuse the gateway",
            Self::Bundle | Self::Destination => "what it signed is not trusted",
            Self::RevocationList => "whoever its issuer has certified is refused",
            Self::Client => "destinations may refuse it",
            Self::Interception => "callers refuse what it signs",
        }
    }
}

/// A certificate that is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dated {
    pub(crate) purpose: Purpose,
    /// The setting, trust domain, credential or destination that it belongs to.
    pub(crate) name: String,
    /// The file or the certificate, for people.
    pub(crate) title: String,
    pub(crate) validity: Validity,
}

impl Dated {
    /// What there is to say of it, if anything.
    pub(crate) fn warning(&self, now: Timestamp, skew: Duration) -> Option<String> {
        let Self { title, purpose, validity: Validity { begins, ends }, .. } = self;
        let consequence = purpose.consequence();
        match self.validity.age(now, skew) {
            Age::Valid => None,
            Age::NotYet => Some(format!("{title} is not valid before {begins}: until then {consequence}")),
            Age::EndsSoon => Some(format!("{title} ends soon, on {ends}: from then on {consequence}")),
            Age::Ended => Some(format!("{title} expired on {ends}: {consequence}")),
        }
    }
}

/// A certificate of a file as people find it again: its place in it, from 1, and its subject.
pub(crate) fn title(index: usize, certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject().to_string();
    let subject: String = subject.chars().filter(|c| !c.is_control()).take(128).collect();
    match subject.as_str() {
        "" => format!("certificate {}", index + 1),
        subject => format!("certificate {} ({subject})", index + 1),
    }
}

/// When each ends, by purpose and name: where there are several roots, the last of them.
pub(crate) fn ends(all: &[Dated]) -> Vec<(Purpose, String, Timestamp)> {
    let mut ends: Vec<(Purpose, String, Timestamp)> = Vec::new();
    for Dated { purpose, name, validity, .. } in all {
        match ends.iter_mut().find(|(of, called, _)| of == purpose && called == name) {
            Some((_, _, end)) => *end = validity.ends.max(*end),
            None => ends.push((*purpose, name.clone(), validity.ends)),
        }
    }
    ends
}

/// What was said already: each thing is said once, and again after it was gone.
#[derive(Debug, Default)]
pub(crate) struct SaidWarnings(HashSet<String>);

impl SaidWarnings {
    /// What is new since it was last asked.
    pub(crate) fn news(&mut self, all: Vec<String>) -> Vec<String> {
        let before = std::mem::replace(&mut self.0, all.iter().cloned().collect());
        all.into_iter().filter(|one| !before.contains(one)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).unwrap()
    }

    fn dated(title: &str, begins: i64, ends: i64) -> Dated {
        let validity = Validity { begins: at(begins), ends: at(ends) };
        Dated { purpose: Purpose::Bundle, name: "prod.acme".into(), title: title.into(), validity }
    }

    #[test]
    fn soon_is_the_last_fifth_of_a_life_and_a_month_at_most() {
        let day = Validity { begins: at(0), ends: at(20) };
        let age = |validity: Validity, hour| validity.age(at(hour), Duration::ZERO);
        assert_eq!(
            [-1, 0, 15, 17, 20, 21].map(|hour| age(day, hour)),
            [Age::NotYet, Age::Valid, Age::Valid, Age::EndsSoon, Age::EndsSoon, Age::Ended]
        );
        assert_eq!(day.age(at(-1), Duration::from_secs(3600)), Age::Valid);
        let years = Validity { begins: at(0), ends: at(10 * 365 * 24) };
        assert_eq!(age(years, (10 * 365 - 31) * 24), Age::Valid);
        assert_eq!(age(years, (10 * 365 - 29) * 24), Age::EndsSoon);
    }

    #[test]
    fn each_change_of_a_certificate_is_said_once() {
        let mut said = SaidWarnings::default();
        let all = [dated("a.pem", 0, 20), dated("b.pem", 0, 90)];
        let mut news = |all: &[Dated], hour| {
            said.news(all.iter().filter_map(|dated| dated.warning(at(hour), Duration::ZERO)).collect())
        };
        assert!(news(&all, 1).is_empty());
        let soon = news(&all, 18);
        assert!(
            matches!(soon.as_slice(), [one] if one.starts_with("a.pem ends soon, on 1970-01-01T20:00:00Z")),
            "{soon:?}"
        );
        assert!(news(&all, 19).is_empty());
        let ended = news(&all, 21);
        assert_eq!(ended, ["a.pem expired on 1970-01-01T20:00:00Z: what it signed is not trusted"]);
        assert!(news(&all, 22).is_empty());
        assert!(news(&[dated("a.pem", 20, 90)], 23).is_empty());
    }

    #[test]
    fn a_bundle_ends_with_its_last_root() {
        let all = [dated("1", 0, 20), dated("2", 0, 90), dated("3", 0, 30)];
        assert_eq!(ends(&all), [(Purpose::Bundle, "prod.acme".to_owned(), at(90))]);
    }
}
