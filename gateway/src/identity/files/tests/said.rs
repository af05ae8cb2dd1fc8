//! What the Workload API says.

use rcgen::KeyIdMethod;
use rustls::pki_types::PrivatePkcs8KeyDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::super::super::workload_api::{OwnSvid, X509Context};
use super::revoked::{leaf, list, list_naming, pem_bytes};
use super::*;

/// A gateway of `prod.acme` that is federated with `partner.example`, and has both bundles and its SVID of the Workload API.
fn gateway() -> IdentityFiles {
    let domains =
        ["prod.acme", "partner.example"].map(|name| (name.parse().unwrap(), TrustDomainSettings::default()));
    let files = IdentityFiles::load(settings(None, domains.into()), Path::new("/"), HomeCluster::default());
    files.unwrap()
}

/// What the API says to a workload of `own` that is federated with `others`.
fn context(own: &Domain, others: &[(&Domain, Result<(), &str>)]) -> X509Context {
    let (leaf, key) = own.leaf();
    let chain = vec![leaf.der().clone()];
    let id = spiffe_id(&chain[0]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key =
        rustls::sign::CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider())
            .unwrap();
    let bundle = |domain: &Domain| vec![domain.issuer.der().clone()];
    let others = others.iter().map(|(domain, is_good)| {
        let bundle = is_good.map(|()| bundle(domain)).map_err(str::to_owned);
        (domain.name.parse().unwrap(), bundle)
    });
    let bundles = others.chain([(own.name.parse().unwrap(), Ok(bundle(own)))]).collect();
    X509Context { svid: OwnSvid { id, key: Arc::new(key) }, bundles, lists: Vec::new() }
}

fn say(files: &mut IdentityFiles, context: X509Context) -> Vec<String> {
    let state = X509State { said: Some(Arc::new(context)), fault: None };
    files.api.as_ref().unwrap().tell(state);
    let mut taken = files.take_said();
    // Behind its id is when it ends.
    for one in &mut taken {
        one.truncate(one.find(", which ends").unwrap_or(one.len()));
    }
    taken
}

const SVID: &str = "SVID spiffe://prod.acme/ns/a/sa/b";

#[test]
fn the_gateway_is_ready_once_the_workload_api_has_said_its_svid_and_as_long_as_that_lasts() {
    let (mut files, prod) = (gateway(), Domain::new("prod.acme"));
    let now = Timestamp::now();
    let standing = files.standing();
    let why = standing.unready(now).unwrap();
    assert!(why.contains("unix:///run/api.sock") && why.contains("no SVID yet"), "{why}");
    assert!(files.certificate.0.load().is_none(), "there is nothing to show");
    assert_eq!(say(&mut files, context(&prod, &[])), [SVID, "trust bundle of prod.acme"]);
    assert_eq!(standing.unready(now), None);
    let gone = X509State { fault: Some("it ended its answer".into()), ..files.api.as_ref().unwrap().peek() };
    files.api.as_ref().unwrap().tell(gone);
    assert!(files.take_said().is_empty());
    assert_eq!((standing.unready(now), verdict(&files, &prod)), (None, Ok(())), "what it said last serves");
    let later = Validity::of_chain(&files.certificate.0.load().as_ref().unwrap().cert).unwrap().ends;
    let why = standing.unready(later).unwrap();
    assert!(why.contains("the SVID ended at") && why.contains("it ended its answer"), "{why}");
    let heard: Vec<_> =
        standing.all().iter().filter(|(_, stands)| !stands).map(|(field, _)| field.clone()).collect();
    assert!(heard.contains(&WORKLOAD_API.to_owned()), "{heard:?}");
}

#[test]
fn each_trust_domain_is_accepted_through_its_own_bundle_of_the_workload_api_alone() {
    let [prod, partner, stranger] = ["prod.acme", "partner.example", "stranger.example"].map(Domain::new);
    let mut files = gateway();
    say(&mut files, context(&prod, &[(&partner, Ok(())), (&stranger, Ok(()))]));
    assert_eq!((verdict(&files, &prod), verdict(&files, &partner)), (Ok(()), Ok(())));
    assert_eq!(verdict(&files, &stranger), Err(Refusal::UnknownTrustDomain), "it is not in the settings");
    // A partner's authority that speaks for us, and ours for the partner.
    let forger = |of: &Domain, name| {
        let key = KeyPair::from_pem(&of.issuer.key().serialize_pem()).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Domain { name, issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    };
    for forged in [forger(&partner, "prod.acme"), forger(&prod, "partner.example")] {
        assert!(verdict(&files, &forged).is_err(), "{}", forged.name);
    }
}

#[test]
fn what_the_lists_of_the_workload_api_revoke_is_refused_and_those_of_others_revoke_nothing_here() {
    // Their authorities have one name, as those of SPIRE do.
    let [prod, partner] = ["prod.acme", "partner.example"].map(Domain::new);
    let (good, bad) = (leaf(&prod.issuer, 2), leaf(&prod.issuer, 3));
    let mut files = gateway();
    let verdicts = |files: &IdentityFiles| {
        [&good, &bad].map(|leaf| files.trust.verify(std::slice::from_ref(leaf), UnixTime::now()).map(drop))
    };
    say(&mut files, context(&prod, &[(&partner, Ok(()))]));
    assert_eq!(verdicts(&files), [Ok(()), Ok(())]);
    let revoking = |of: &Domain, serials: &[u64]| pem_bytes(&list(&of.issuer, serials, 3600));
    let generation = files.trust.generation();
    let lists = vec![revoking(&partner, &[2]), revoking(&prod, &[3])];
    say(&mut files, X509Context { lists, ..context(&prod, &[(&partner, Ok(()))]) });
    assert!(files.trust.generation() > generation, "connections verify again");
    assert_eq!(verdicts(&files), [Ok(()), Err(Refusal::Revoked)]);
    say(&mut files, context(&prod, &[(&partner, Ok(()))]));
    assert_eq!(verdicts(&files), [Ok(()), Ok(())], "the API says no list any more");
}

#[test]
fn a_list_that_no_authority_has_signed_leaves_the_last_good_one_in_force_and_holds_up_no_authority() {
    let [prod, partner] = ["prod.acme", "partner.example"].map(Domain::new);
    let of = |serials: &[u64]| pem_bytes(&list(&prod.issuer, serials, 3600));
    let mut unsigned = of(&[]);
    *unsigned.last_mut().unwrap() ^= 1;
    // The next key of our authority, or one below it of the same name, which the API does not say.
    let next_key = pem_bytes(&list(&Domain::new("prod.acme").issuer, &[], 3600));
    for (unknown, problem) in [
        (next_key, "of another issuer"),
        (unsigned, "is not signed by its issuer"),
        (b"nonsense".to_vec(), "cannot be read"),
    ] {
        let mut files = gateway();
        let verdicts = |files: &IdentityFiles, serials: [u64; 2]| {
            serials.map(|serial| files.trust.verify(&[leaf(&prod.issuer, serial)], UnixTime::now()).map(drop))
        };
        let both = [(&partner, Ok(()))];
        say(&mut files, X509Context { lists: vec![of(&[3])], ..context(&prod, &both) });
        assert_eq!(verdicts(&files, [2, 3]), [Ok(()), Err(Refusal::Revoked)]);
        assert_eq!(files.faults().count(), 0);
        // New authorities beside it are taken.
        let next = Domain::new("prod.acme");
        let mut said = X509Context { lists: vec![unknown.clone()], ..context(&prod, &both) };
        let authorities = vec![prod.issuer.der().clone(), next.issuer.der().clone()];
        said.bundles.insert("prod.acme".parse().unwrap(), Ok(authorities));
        assert!(say(&mut files, said).contains(&"trust bundle of prod.acme".to_owned()), "{problem}");
        assert_eq!(verdict(&files, &next), Ok(()), "{problem}");
        assert_eq!(verdicts(&files, [2, 3]), [Ok(()), Err(Refusal::Revoked)], "{problem}");
        let faults: Vec<_> = files.faults().map(ToString::to_string).collect();
        let told =
            faults.iter().find(|fault| fault.starts_with("identity.trustDomains.prod.acme.bundleFile"));
        assert!(told.is_some_and(|fault| fault.contains(problem)), "{faults:?}");
        // So it stays with the next answer, and a list that can be verified is taken beside it.
        say(&mut files, X509Context { lists: vec![unknown.clone()], ..context(&prod, &[]) });
        assert_eq!(verdicts(&files, [2, 3]), [Ok(()), Err(Refusal::Revoked)], "{problem}");
        say(&mut files, X509Context { lists: vec![unknown, of(&[2, 3])], ..context(&prod, &both) });
        assert_eq!(verdicts(&files, [2, 3]), [Err(Refusal::Revoked), Err(Refusal::Revoked)], "{problem}");
        say(&mut files, X509Context { lists: vec![of(&[])], ..context(&prod, &both) });
        assert_eq!(verdicts(&files, [2, 3]), [Ok(()), Ok(())], "{problem}");
        assert_eq!(files.faults().count(), 0);
    }
}

#[test]
fn a_partners_list_that_looks_like_ours_is_the_partners_once_its_bundle_verifies_it() {
    let [prod, partner] = ["prod.acme", "partner.example"].map(Domain::new);
    let (good, bad) = (leaf(&prod.issuer, 2), leaf(&prod.issuer, 3));
    // It names the key of ours.
    let (_, read) = X509Certificate::from_der(prod.issuer.der()).unwrap();
    let named = read.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(KeyIdMethod::PreSpecified(id.0.to_vec())),
        _ => None,
    });
    let theirs = pem_bytes(&list_naming(named.unwrap(), &partner.issuer, &[2], 3600));
    let lists = vec![theirs, pem_bytes(&list(&prod.issuer, &[3], 3600))];
    let mut files = gateway();
    let verdicts = |files: &IdentityFiles| {
        [&good, &bad].map(|leaf| files.trust.verify(std::slice::from_ref(leaf), UnixTime::now()).map(drop))
    };
    let taken =
        say(&mut files, X509Context { lists: lists.clone(), ..context(&prod, &[(&partner, Ok(()))]) });
    assert!(taken.contains(&"trust bundle of prod.acme".to_owned()), "{taken:?}");
    assert_eq!(verdicts(&files), [Ok(()), Err(Refusal::Revoked)]);
    assert_eq!(files.faults().count(), 0);
    // Nobody verifies it where its bundle is not said: ours count all the same.
    say(&mut files, X509Context { lists, ..context(&prod, &[]) });
    assert_eq!(verdicts(&files), [Ok(()), Err(Refusal::Revoked)]);
    let faults: Vec<_> = files.faults().map(ToString::to_string).collect();
    assert!(faults.iter().any(|fault| fault.contains("is not signed by its issuer")), "{faults:?}");
}

#[test]
fn a_partners_bundle_that_cannot_be_read_holds_up_nobody_else_and_one_that_is_gone_trusts_nobody() {
    let [prod, partner] = ["prod.acme", "partner.example"].map(Domain::new);
    let mut files = gateway();
    say(&mut files, context(&prod, &[(&partner, Ok(()))]));
    let generation = files.trust.generation();
    assert_eq!(say(&mut files, context(&prod, &[(&partner, Ok(()))])), [SVID], "only it is another");
    assert_eq!(files.trust.generation(), generation, "nobody has to be verified again");
    let next = Domain::new("prod.acme");
    let taken = say(&mut files, context(&next, &[(&partner, Err("no DER"))]));
    assert_eq!(taken, [SVID, "trust bundle of prod.acme"]);
    assert_eq!(
        (verdict(&files, &next), verdict(&files, &partner)),
        (Ok(()), Ok(())),
        "its last good one serves"
    );
    let faults: Vec<_> = files.faults().map(ToString::to_string).collect();
    assert_eq!(faults, ["identity.trustDomains.partner.example.bundleFile: the Workload API: no DER"]);
    let taken = say(&mut files, context(&next, &[]));
    assert_eq!(taken, [SVID, "trust bundle of partner.example, which trusts nobody,"]);
    assert_eq!(verdict(&files, &partner), Err(Refusal::UnknownIssuer));
    let fault = files.faults().map(ToString::to_string).next().unwrap();
    assert!(fault.contains("federate the entry of this process with it"), "{fault}");
}
