use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use tollgate_policy::caller::TrustDomain;

use super::super::trust::Trust;
use super::*;

type Ca = CertifiedIssuer<'static, KeyPair>;

const ID: &str = "spiffe://prod.acme/ns/a/sa/b";
const SKEW: Duration = Duration::from_secs(5);

fn at(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
}

fn lasting(params: &mut CertificateParams, (begins, ends): (i64, i64)) {
    params.not_before = at(begins).into();
    params.not_after = at(ends).into();
}

const YEAR: (i64, i64) = (-3600, 365 * 24 * 3600);
const PAST: (i64, i64) = (-7200, -3600);

fn ca(name: &str, valid: (i64, i64)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    lasting(&mut params, valid);
    params
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

fn copy(key: &KeyPair) -> KeyPair {
    KeyPair::from_pem(&key.serialize_pem()).unwrap()
}

fn root(params: CertificateParams) -> Ca {
    Ca::self_signed(params, key()).unwrap()
}

fn below(params: CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Ca {
    Ca::signed_by(params, key(), issuer).unwrap()
}

fn leaf_of(uri: &str, issuer: &Issuer<'_, KeyPair>, valid: (i64, i64)) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    lasting(&mut params, valid);
    params.signed_by(&key(), issuer).unwrap().der().clone()
}

fn leaf(issuer: &Issuer<'_, KeyPair>) -> CertificateDer<'static> {
    leaf_of(ID, issuer, (-60, 3600))
}

fn der(ca: &Ca) -> CertificateDer<'static> {
    ca.der().clone()
}

fn ends(roots: &[&Ca], chain: &[CertificateDer<'_>], skew: Duration) -> Result<i64, Refusal> {
    let roots: Vec<_> = roots.iter().map(|root| der(root)).collect();
    let (bundle, unfit) = Bundle::of(&roots).unwrap();
    assert!(unfit.is_empty());
    let domain: TrustDomain = "prod.acme".parse().unwrap();
    let trust = Trust::new([(domain, Arc::new(bundle))].into(), skew);
    let now = UnixTime::now();
    let peer = trust.verify(chain, now)?;
    Ok(peer.expires().as_second() - seconds(now))
}

fn verdict(roots: &[&Ca], chain: &[CertificateDer<'_>]) -> Result<(), Refusal> {
    ends(roots, chain, SKEW).map(drop)
}

#[test]
fn an_expired_certificate_beside_the_path_says_nothing_of_it() {
    let (good, old) = (root(ca("root", YEAR)), root(ca("old root", PAST)));
    let inter_key = key();
    let inter = Ca::signed_by(ca("inter", YEAR), copy(&inter_key), &good).unwrap();
    let cross = Ca::signed_by(ca("inter", PAST), inter_key, &old).unwrap();
    let leaf = leaf(&inter);
    let junk = CertificateDer::from(vec![0x30, 0x00]);
    for beside in [der(&cross), der(&old), der(&good), junk] {
        for chain in
            [[leaf.clone(), der(&inter), beside.clone()], [leaf.clone(), beside.clone(), der(&inter)]]
        {
            let ends = ends(&[&good], &chain, SKEW).unwrap();
            assert!((3500..=3600).contains(&ends), "it ends with its leaf, not in {ends} s");
        }
    }
}

#[test]
fn what_is_on_the_path_ends_it() {
    let good = root(ca("root", YEAR));
    let short = below(ca("inter", (-60, 600)), &good);
    let ends = |chain: &[CertificateDer<'_>]| ends(&[&good], chain, SKEW);
    assert!((500..=600).contains(&ends(&[leaf(&short), der(&short)]).unwrap()));
    let expired = below(ca("inter", PAST), &good);
    assert_eq!(ends(&[leaf(&expired), der(&expired)]), Err(Refusal::Expired));
    assert_eq!(ends(&[leaf_of(ID, &good, PAST)]), Err(Refusal::Expired));
}

#[test]
fn a_root_that_is_not_in_date_is_not_trusted_and_its_end_ends_the_proof() {
    let expired = root(ca("root", PAST));
    assert_eq!(verdict(&[&expired], &[leaf(&expired)]), Err(Refusal::RootNotInDate));
    let future = root(ca("root", (600, 7200)));
    assert_eq!(verdict(&[&future], &[leaf(&future)]), Err(Refusal::RootNotInDate));
    let inter_key = key();
    let cross = Ca::signed_by(ca("inter", YEAR), copy(&inter_key), &expired).unwrap();
    assert_eq!(verdict(&[&expired], &[leaf(&cross), der(&cross)]), Err(Refusal::RootNotInDate));
    let short = root(ca("root", (-60, 600)));
    assert!((500..=600).contains(&ends(&[&short], &[leaf(&short)], SKEW).unwrap()));
}

#[test]
fn of_several_paths_the_one_that_lasts_longest_counts() {
    let shared = key();
    let roots =
        [PAST, (-60, 600), YEAR].map(|valid| Ca::self_signed(ca("root", valid), copy(&shared)).unwrap());
    let [old, short, long] = &roots;
    for order in [[old, short, long], [long, short, old], [short, long, old]] {
        let ends = ends(&order, &[leaf(short)], SKEW).unwrap();
        assert!(ends > 3500, "{ends}");
    }
}

#[test]
fn what_begins_within_the_tolerance_has_begun_and_nothing_ends_later_for_it() {
    let good = root(ca("root", YEAR));
    let with =
        |skew: u64, valid| ends(&[&good], &[leaf_of(ID, &good, valid)], Duration::from_secs(skew)).map(drop);
    assert_eq!(with(60, (30, 3600)), Ok(()));
    assert_eq!(with(0, (30, 3600)), Err(Refusal::NotYetValid));
    assert_eq!(with(10, (30, 3600)), Err(Refusal::NotYetValid));
    assert_eq!(with(60, (-60, -2)), Err(Refusal::Expired));
    let young = root(ca("root", (30, 7200)));
    let inter = below(ca("inter", (30, 7200)), &young);
    let chain = [leaf_of(ID, &inter, (30, 3600)), der(&inter)];
    assert!(ends(&[&young], &chain, Duration::from_secs(60)).is_ok());
    assert_eq!(ends(&[&young], &chain, Duration::from_secs(10)), Err(Refusal::NotYetValid));
}

#[test]
fn an_issuer_has_to_be_one_that_may_sign() {
    let good = root(ca("root", YEAR));
    let with = |edit: &dyn Fn(&mut CertificateParams)| {
        let (mut params, key) = (ca("inter", YEAR), key());
        edit(&mut params);
        let inter = params.signed_by(&key, &good).unwrap();
        // Who breaks the rule signs all the same.
        let signer = Issuer::new(ca("inter", YEAR), key);
        verdict(&[&good], &[leaf(&signer), inter.der().clone()])
    };
    assert_eq!(with(&|_| {}), Ok(()));
    let may_not = Err(Refusal::IssuerMayNotSign);
    assert_eq!(with(&|params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]), may_not);
    assert_eq!(with(&|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]), may_not);
    assert_eq!(with(&|params| params.key_usages.clear()), may_not);
    assert!(with(&|params| params.is_ca = IsCa::ExplicitNoCa).is_err());
}

/// Name constraints on URIs, in DER (RFC 5280, section 4.2.1.10).
fn constrained(mut params: CertificateParams, permitted: &[&str], excluded: &[&str]) -> CertificateParams {
    let tagged = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128);
        [&[tag, length], content].concat()
    };
    let subtrees = |tag: u8, bases: &[&str]| {
        let each = bases.iter().map(|base| tagged(0x30, &tagged(0x86, base.as_bytes())));
        if bases.is_empty() { Vec::new() } else { tagged(tag, &each.collect::<Vec<_>>().concat()) }
    };
    let content = tagged(0x30, &[subtrees(0xa0, permitted), subtrees(0xa1, excluded)].concat());
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
    params
}

#[test]
fn uri_constraints_of_issuers_and_roots_are_kept_to() {
    let not_permitted = Err(Refusal::NameNotPermitted);
    type Case = (&'static [&'static str], &'static [&'static str], Result<(), Refusal>);
    let cases: [Case; 10] = [
        (&["prod.acme"], &[], Ok(())),
        (&["other", "prod.acme"], &["dev.acme"], Ok(())),
        (&[".acme"], &[], Ok(())),
        (&[], &["dev.acme", ".prod.acme"], Ok(())),
        (&["other"], &[], not_permitted),
        (&[".prod.acme"], &[], not_permitted),
        (&[], &["prod.acme"], not_permitted),
        (&["prod.acme"], &[".acme"], not_permitted),
        // Not understood, so refused by webpki.
        (&["spiffe://prod.acme"], &[], not_permitted),
        (&["prod.acme"], &["spiffe://dev.acme"], not_permitted),
    ];
    let good = root(ca("root", YEAR));
    for (permitted, excluded, expected) in cases {
        let inter = below(constrained(ca("inter", YEAR), permitted, excluded), &good);
        assert_eq!(verdict(&[&good], &[leaf(&inter), der(&inter)]), expected, "{permitted:?} {excluded:?}");
        let last = below(ca("last", YEAR), &inter);
        let chain = [leaf(&last), der(&last), der(&inter)];
        assert_eq!(verdict(&[&good], &chain), expected, "above another: {permitted:?} {excluded:?}");
        let root = root(constrained(ca("root", YEAR), permitted, excluded));
        assert_eq!(verdict(&[&root], &[leaf(&root)]), expected, "the root: {permitted:?} {excluded:?}");
    }
}

#[test]
fn the_names_of_issuers_stand_below_constraints_too() {
    let good = root(ca("root", YEAR));
    let inter = below(constrained(ca("inter", YEAR), &["prod.acme"], &[]), &good);
    for (uri, expected) in
        [("spiffe://prod.acme", Ok(())), ("spiffe://other", Err(Refusal::NameNotPermitted))]
    {
        let mut params = ca("last", YEAR);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let last = below(params, &inter);
        assert_eq!(verdict(&[&good], &[leaf(&last), der(&last), der(&inter)]), expected, "{uri}");
    }
}

#[test]
fn a_constraint_cannot_be_taken_off_a_certificate_that_was_signed_with_it() {
    let good = root(ca("root", YEAR));
    let inter = below(constrained(ca("inter", YEAR), &["other"], &[]), &good);
    let signed = der(&inter);
    let (_, read) = X509Certificate::from_der(&signed).unwrap();
    let (altered, _) = constraints::apart(&signed, &read).unwrap();
    let leaf = leaf(&inter);
    for chain in [
        vec![leaf.clone(), altered.clone()],
        vec![leaf.clone(), altered.clone(), signed.clone()],
        vec![leaf.clone(), signed.clone(), altered.clone()],
    ] {
        assert!(verdict(&[&good], &chain).is_err(), "it is shown without, beside the one with it");
    }
    // Another signature over the same content: only its bytes tell it from the one that was shown.
    let mut other = altered.to_vec();
    *other.last_mut().unwrap() ^= 1;
    let chain = [leaf, CertificateDer::from(other), signed];
    assert!(verdict(&[&good], &chain).is_err());
}

#[test]
fn what_is_shown_for_one_certificate_never_stands_for_another() {
    let good = root(ca("root", YEAR));
    for (permitted, excluded) in [(&["other"][..], &["dev.acme"][..]), (&[], &["prod.acme", "dev.acme"])] {
        let inter = below(constrained(ca("inter", YEAR), permitted, excluded), &good);
        let signed = der(&inter);
        // The first constraint of one copy is marked by hand, under the true signature; the signature of the other is broken.
        let mut broken = signed.to_vec();
        *broken.last_mut().unwrap() ^= 1;
        let first = permitted.iter().chain(excluded).next().unwrap();
        let base = [&[0x86, u8::try_from(first.len()).unwrap()], first.as_bytes()].concat();
        let at = signed.windows(base.len()).position(|bytes| bytes == base).unwrap();
        let mut marked = signed.to_vec();
        marked[at] = 0x88;
        let [broken, marked] = [broken, marked].map(CertificateDer::from);
        let leaf = leaf(&inter);
        for chain in [[leaf.clone(), broken.clone(), marked.clone()], [leaf.clone(), marked, broken]] {
            assert!(verdict(&[&good], &chain).is_err(), "{permitted:?} {excluded:?}");
        }
    }
}

#[test]
fn a_root_that_never_ends_is_one_and_a_chain_of_very_many_is_not_looked_at() {
    let forever = (YEAR.0, 253_402_300_799 - Timestamp::now().as_second());
    let good = root(ca("root", forever));
    let inter = below(ca("inter", YEAR), &good);
    let mut chain = vec![leaf(&inter), der(&inter)];
    assert_eq!(verdict(&[&good], &chain), Ok(()));
    chain.extend((0..16).map(|_| der(&good)));
    assert_eq!(verdict(&[&good], &chain), Err(Refusal::Unverified));
}

#[test]
fn a_constrained_issuer_still_has_to_be_signed() {
    let (good, evil) = (root(ca("root", YEAR)), root(ca("root", YEAR)));
    let inter = below(constrained(ca("inter", YEAR), &["prod.acme"], &[]), &evil);
    assert_eq!(verdict(&[&good], &[leaf(&inter), der(&inter)]), Err(Refusal::UnknownIssuer));
}
