use std::fs;
use std::path::Path;

use tollgate_policy::policy::ClientCertificate;

use super::*;

fn write(directory: &Path, pair: &rcgen::CertifiedKey<rcgen::KeyPair>) {
    fs::write(directory.join("cert"), pair.cert.pem()).unwrap();
    fs::write(directory.join("key"), pair.signing_key.serialize_pem()).unwrap();
}

fn pair() -> rcgen::CertifiedKey<rcgen::KeyPair> {
    rcgen::generate_simple_self_signed(["gateway".to_owned()]).unwrap()
}

#[tokio::test]
async fn files_that_change_are_read_again_and_a_broken_pair_leaves_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let shown = ClientCertificate { cert: directory.path().join("cert"), key: directory.path().join("key") };
    let tls = TlsFiles { ca: None, shown: Some(shown) };
    let http = Http::new(Reach::of_store(tls, Arc::new(|_| true)));
    let absent = Failure::Misconfigured("the client certificate cannot be read");
    assert_eq!(http.client().await.err(), Some(absent));
    write(directory.path(), &pair());
    http.client().await.unwrap();
    let first = http.lock().as_ref().unwrap().stamp.clone();
    http.client().await.unwrap();
    assert_eq!(http.lock().as_ref().unwrap().stamp, first);

    fs::write(directory.path().join("key"), pair().signing_key.serialize_pem()).unwrap();
    http.client().await.unwrap();
    assert_ne!(http.lock().as_ref().unwrap().stamp, first, "looked at, and not taken");
    http.lock().take();
    let unfit = Failure::Misconfigured("the client certificate and its key do not fit");
    assert_eq!(http.client().await.err(), Some(unfit));
    write(directory.path(), &pair());
    http.client().await.unwrap();
}
