use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType};

use super::*;

struct Domain {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Domain {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn bundle(&self) -> Arc<Bundle> {
        Arc::new(Bundle::of(&[self.issuer.der().clone()]).unwrap().0)
    }

    fn leaf(&self, uris: &[&str], edit: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.issuer).unwrap().der().clone()
    }
}

fn trust(domains: &[(&str, &Domain)]) -> Arc<Trust> {
    let bundles = domains.iter().map(|(name, domain)| (name.parse().unwrap(), domain.bundle()));
    Trust::new(bundles.collect(), Duration::ZERO)
}

fn verdict(trust: &Trust, leaf: CertificateDer<'static>) -> Result<String, Refusal> {
    trust.verify(&[leaf], UnixTime::now()).map(|verified| verified.identity().to_string())
}

#[test]
fn a_chain_of_the_named_domain_proves_the_caller() {
    let acme = Domain::new();
    let trust = trust(&[("prod.acme", &acme)]);
    let leaf = acme.leaf(&["spiffe://prod.acme/ns/a/sa/b"], |_| {});
    assert_eq!(verdict(&trust, leaf), Ok("spiffe://prod.acme/ns/a/sa/b".into()));
}

#[test]
fn a_federated_domain_cannot_speak_for_another() {
    let (acme, partner) = (Domain::new(), Domain::new());
    let trust = trust(&[("prod.acme", &acme), ("partner", &partner)]);
    let forged = partner.leaf(&["spiffe://prod.acme/ns/a/sa/b"], |_| {});
    assert_eq!(verdict(&trust, forged), Err(Refusal::UnknownIssuer));
    let foreign = partner.leaf(&["spiffe://elsewhere/ns/a/sa/b"], |_| {});
    assert_eq!(verdict(&trust, foreign), Err(Refusal::UnknownTrustDomain));
}

#[test]
fn a_leaf_that_may_sign_or_names_several_identities_proves_nothing() {
    let acme = Domain::new();
    let trust = trust(&[("prod.acme", &acme)]);
    let two = acme.leaf(&["spiffe://prod.acme/a", "spiffe://prod.acme/b"], |_| {});
    assert_eq!(verdict(&trust, two), Err(Refusal::NotOneUriSan));
    assert_eq!(verdict(&trust, acme.leaf(&[], |_| {})), Err(Refusal::NotOneUriSan));
    assert_eq!(verdict(&trust, acme.leaf(&["https://prod.acme/a"], |_| {})), Err(Refusal::NotSpiffe));
    let ca = acme.leaf(&["spiffe://prod.acme/a"], |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    assert_eq!(verdict(&trust, ca), Err(Refusal::SigningCertificate));
    let signer = acme.leaf(&["spiffe://prod.acme/a"], |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign));
    assert_eq!(verdict(&trust, signer), Err(Refusal::SigningCertificate));
}

#[test]
fn validity_is_checked_at_the_time_given_and_on_every_new_bundle() {
    let acme = Domain::new();
    let trust = trust(&[("prod.acme", &acme)]);
    let leaf = acme.leaf(&["spiffe://prod.acme/a"], |p| {
        p.not_before = rcgen::date_time_ymd(2020, 1, 1);
        p.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    assert_eq!(verdict(&trust, leaf), Err(Refusal::Expired));

    let good = acme.leaf(&["spiffe://prod.acme/a"], |_| {});
    assert!(verdict(&trust, good.clone()).is_ok());
    let before = trust.generation();
    trust.replace([("prod.acme".parse().unwrap(), Domain::new().bundle())].into());
    assert!(trust.generation() > before);
    assert_eq!(verdict(&trust, good), Err(Refusal::UnknownIssuer));
}

#[test]
fn a_chain_is_verified_anew_when_its_time_its_bundles_or_one_of_its_bytes_are_others() {
    let acme = Domain::new();
    let trust = trust(&[("prod.acme", &acme)]);
    let leaf = |uri: &str| {
        acme.leaf(&[uri], |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    };
    let (day, june) = (86_400, 1_590_969_600);
    let at = |second| UnixTime::since_unix_epoch(Duration::from_secs(second));
    let web = leaf("spiffe://prod.acme/web");
    let verify =
        |chain: &[CertificateDer<'_>], second| trust.verify(chain, at(second)).map(|whom| whom.generation());
    let known = || trust.chains.count();
    assert_eq!(verify(std::slice::from_ref(&web), june), Ok(1));
    assert_eq!((verify(std::slice::from_ref(&web), june + day), known()), (Ok(1), 1));
    assert_eq!(verify(std::slice::from_ref(&web), june + 366 * day), Err(Refusal::Expired));
    assert_eq!(verify(std::slice::from_ref(&web), june - 366 * day), Err(Refusal::NotYetValid));
    let other = leaf("spiffe://prod.acme/other");
    assert_eq!(verify(std::slice::from_ref(&other), june).map(|_| known()), Ok(2));
    // Whatever else it shows, one leaf takes the room of one.
    assert_eq!(verify(&[web.clone(), other.clone()], june).map(|_| known()), Ok(2));
    assert_eq!(verify(&[other, web.clone()], june).map(|_| known()), Ok(2));
    let mut forged = web.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    assert!(verify(&[forged.into()], june).is_err());
    assert_eq!(known(), 2, "what is refused is not remembered");
    trust.replace([("prod.acme".parse().unwrap(), acme.bundle())].into());
    assert_eq!(verify(std::slice::from_ref(&web), june), Ok(2), "not what was found under other bundles");
    trust.replace(HashMap::new());
    assert_eq!(verify(&[web], june), Err(Refusal::UnknownTrustDomain));
}

#[test]
fn the_chains_that_are_remembered_are_bounded_and_each_is_verified_once() {
    let acme = Domain::new();
    let trust = trust(&[("prod.acme", &acme)]);
    let whom = trust.verify(&[acme.leaf(&["spiffe://prod.acme/a"], |_| {})], UnixTime::now()).unwrap();
    let (chains, mut times) = (VerifiedChainCache::default(), 0);
    let mut look = |name: u32| {
        let chain = [CertificateDer::from(name.to_be_bytes().to_vec())];
        let found: Result<_, Refusal> = chains.get_or_verify(&chain, (UnixTime::now(), 1), || {
            times += 1;
            Ok((whom.clone(), whom.expires()))
        });
        assert!(found.is_ok() && chains.count() <= verified_chain_cache::CAPACITY);
        times
    };
    let most = u32::try_from(verified_chain_cache::CAPACITY).unwrap();
    for name in 0..=most {
        assert_eq!((look(name), look(name)), (name + 1, name + 1));
    }
    assert_eq!(look(0), most + 2, "all were forgotten for one more");
}
