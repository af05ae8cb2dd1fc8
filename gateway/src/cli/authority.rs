//! A certificate authority for trying things out. In a mesh, SPIRE or the mesh's own authority issues certificates.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

const VALID_FOR: Duration = Duration::from_secs(30 * 86_400);
/// Clocks differ.
const BEFORE: Duration = Duration::from_secs(86_400);

/// An authority, and the trust domain that it speaks for.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    domain: &'static str,
}

/// A certificate and its key, both in PEM.
pub(super) struct Leaf {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
}

impl Authority {
    /// A new one, valid for 30 days like all that it issues.
    pub(super) fn new(name: &str, domain: &'static str) -> anyhow::Result<Self> {
        let mut params = params(vec![SanType::URI(format!("spiffe://{domain}").try_into()?)])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer, domain })
    }

    pub(super) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        self.issuer.der()
    }

    /// The SPIFFE id with this path.
    pub(super) fn id(&self, path: &str) -> anyhow::Result<SanType> {
        Ok(SanType::URI(format!("spiffe://{}/{path}", self.domain).try_into()?))
    }

    /// A certificate with these names, for both ends of a connection.
    pub(super) fn leaf(&self, names: Vec<SanType>) -> anyhow::Result<Leaf> {
        let key = KeyPair::generate()?;
        let certificate = leaf_params(names)?.signed_by(&key, &self.issuer)?.pem();
        Ok(Leaf { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }

    /// The same as rustls takes it.
    pub(super) fn leaf_der(
        &self,
        names: Vec<SanType>,
    ) -> anyhow::Result<(CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let key = KeyPair::generate()?;
        let certificate = leaf_params(names)?.signed_by(&key, &self.issuer)?.der().clone();
        Ok((certificate, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }
}

/// A DNS name.
pub(super) fn dns(name: &str) -> anyhow::Result<SanType> {
    Ok(SanType::DnsName(name.try_into()?))
}

fn leaf_params(names: Vec<SanType>) -> anyhow::Result<CertificateParams> {
    let mut params = params(names)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn params(names: Vec<SanType>) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    last(&mut params, VALID_FOR)?;
    params.subject_alt_names = names;
    Ok(params)
}

/// Makes it valid for so long from now, to the day.
pub(super) fn last(params: &mut CertificateParams, lifetime: Duration) -> anyhow::Result<()> {
    let day = |at: Timestamp| {
        let date = at.to_zoned(TimeZone::UTC).date();
        let (month, day) = (u8::try_from(date.month())?, u8::try_from(date.day())?);
        anyhow::Ok(rcgen::date_time_ymd(date.year().into(), month, day))
    };
    let now = Timestamp::now();
    params.not_before = day(now.checked_sub(BEFORE).context("the clock")?)?;
    params.not_after = day(now.checked_add(lifetime).context("the clock")?)?;
    Ok(())
}
