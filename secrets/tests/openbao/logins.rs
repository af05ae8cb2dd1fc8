//! Every way to log in to a real OpenBao, and what is said where it fails.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tollgate_secrets::Failure;

use crate::bao::{Bao, Setup, free_port};
use crate::{SECOND, becomes, value};

const LOGIN: &[&str] = &["token_policies=egress", "token_ttl=3s", "token_max_ttl=6s"];

/// The life of a login goes by several times; no fetch fails.
async fn outlives_its_logins(setup: &mut Setup) {
    let credential = setup.credential("openai", "llm/openai", "api_key", None);
    let secrets = setup.secrets();
    let began = std::time::Instant::now();
    while began.elapsed() < SECOND * 8 {
        assert_eq!(value(&secrets, &credential).await, Ok("sk-team".into()));
        assert_eq!(secrets.health()[0].error, None);
        tokio::time::sleep(SECOND / 10).await;
    }
}

async fn fails(setup: Setup, expected: &'static str) {
    let mut setup = setup;
    let credential = setup.credential("openai", "llm/openai", "api_key", None);
    let secrets = setup.secrets();
    assert_eq!(value(&secrets, &credential).await, Err(Failure::Login(expected)));
    let health = &secrets.health()[0];
    assert_eq!(
        (health.error, health.cause.clone()),
        (Some("login_failed"), Some(format!("login failed: {expected}")))
    );
}

struct Signer(KeyPair);

impl Signer {
    fn new() -> Self {
        Self(KeyPair::generate().unwrap())
    }

    /// A JWT that is good for `seconds`, or was until so long ago.
    fn jwt(&self, subject: &str, audience: &str, seconds: i64) -> String {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
        let (issued, expires) =
            if seconds < 0 { (now + 2 * seconds - 300, now + seconds) } else { (now, now + seconds) };
        let (namespace, account) = subject.rsplit_once(':').unwrap_or_default();
        let namespace = namespace.rsplit(':').next().unwrap_or_default();
        let claims = format!(
            r#"{{"iss":"https://issuer.example","sub":"{subject}","aud":["{audience}"],"iat":{issued},"nbf":{issued},"exp":{expires},
            "kubernetes.io":{{"namespace":"{namespace}","serviceaccount":{{"name":"{account}","uid":"u1"}}}}}}"#
        );
        let signed =
            [r#"{"alg":"ES256","typ":"JWT"}"#, &claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.0.serialize_der()).unwrap();
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[tokio::test]
async fn a_jwt_svid_logs_in_and_each_refusal_has_its_own_words() {
    let Some(bao) = Bao::start() else { return };
    let team = bao.team();
    let signer = Signer::new();
    let public = bao.write("jwt.pub", &signer.0.public_key_pem());
    bao.run(&["auth", "enable", team, "-path=spiffe/jwt", "jwt"]);
    let keys = format!("jwt_validation_pubkeys=@{}", public.display());
    bao.run(&["write", team, "auth/spiffe/jwt/config", &keys, "bound_issuer=https://issuer.example"]);
    let role = [
        "write",
        team,
        "auth/spiffe/jwt/role/tollgate",
        "role_type=jwt",
        "user_claim=sub",
        "bound_audiences=bao",
    ];
    let subject = "bound_subject=spiffe://prod.acme/ns/egress/sa/tollgate";
    bao.run(&[&role[..], &[subject], LOGIN].concat());
    let svid = |signer: &Signer, audience: &str, seconds| {
        signer.jwt("spiffe://prod.acme/ns/egress/sa/tollgate", audience, seconds)
    };
    let setup = |token: String| {
        let file = bao.write("svid.jwt", &token);
        let login = format!("{{jwt: {{mount: spiffe/jwt, role: tollgate, tokenFile: {file:?}}}}}");
        Setup::new(&bao).namespace("team").login(login)
    };
    outlives_its_logins(&mut setup(svid(&signer, "bao", 600))).await;
    fails(setup(svid(&signer, "bao", -300)), "JWT: the token is expired").await;
    fails(setup(svid(&signer, "elsewhere", 600)), "JWT: the token is for another audience").await;
    let stranger = svid(&Signer::new(), "bao", 600);
    fails(setup(stranger), "JWT: the token's signature is of no key that the vault knows").await;
    let other = setup(signer.jwt("spiffe://prod.acme/ns/shop/sa/web", "bao", 600));
    fails(other, "JWT: the vault refuses the token, or has no such login at that mount").await;
    let file = bao.path("svid.jwt");
    let roleless = format!("{{jwt: {{mount: spiffe/jwt, role: nobody, tokenFile: {file:?}}}}}");
    fails(setup(svid(&signer, "bao", 600)).login(roleless), "JWT: the vault has no such role").await;
    fails(
        Setup::new(&bao).login("{jwt: {role: tollgate, tokenFile: /no/such/file}}".into()),
        "the JWT file cannot be read",
    )
    .await;
}

/// Answers TokenReviews as a cluster does that knows one token. The vault's own checks come before.
async fn cluster(known: Arc<std::sync::Mutex<String>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let known = Arc::clone(&known);
            tokio::spawn(async move {
                let (mut read, mut buffer) = (String::new(), [0; 8192]);
                // The body is one line of JSON that names the token twice at most, after the head's Authorization.
                while !read.contains("\"spec\"") || !read.trim_end().ends_with('}') {
                    let count = connection.read(&mut buffer).await.unwrap();
                    assert!(count > 0);
                    read += std::str::from_utf8(&buffer[..count]).unwrap();
                }
                let good = read.contains(&format!("\"token\":\"{}\"", known.lock().unwrap()));
                let status = if good {
                    r#"{"authenticated":true,"audiences":["bao"],"user":{"username":"system:serviceaccount:egress:tollgate","uid":"u1"}}"#
                } else {
                    r#"{"authenticated":false}"#
                };
                let body = format!(
                    r#"{{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{{}},"status":{status}}}"#
                );
                let head = "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nconnection: close";
                let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                connection.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_logs_in_with_the_token_that_its_file_has_now() {
    let Some(bao) = Bao::start() else { return };
    let team = bao.team();
    let known = Arc::<std::sync::Mutex<String>>::default();
    let port = cluster(Arc::clone(&known)).await;
    let signer = Signer::new();
    let account = |name: &str, audience: &str, seconds| {
        signer.jwt(&format!("system:serviceaccount:egress:{name}"), audience, seconds)
    };
    bao.run(&["auth", "enable", team, "kubernetes"]);
    let host = format!("kubernetes_host=http://127.0.0.1:{port}");
    let ca = format!("kubernetes_ca_cert=@{}", bao.path("vault-ca.pem").display());
    bao.run(&["write", team, "auth/kubernetes/config", &host, &ca, "disable_local_ca_jwt=true"]);
    let role = ["write", team, "auth/kubernetes/role/tollgate", "bound_service_account_names=tollgate"];
    let more = ["bound_service_account_namespaces=egress", "audience=bao"];
    bao.run(&[&role[..], &more, LOGIN].concat());
    let file = bao.path("service-account");
    let setup = |role: &str| {
        let login = format!("{{kubernetes: {{role: {role}, tokenFile: {file:?}}}}}");
        Setup::new(&bao).namespace("team").login(login)
    };
    let first = account("tollgate", "bao", 600);
    bao.write("service-account", &first);
    *known.lock().unwrap() = first;
    outlives_its_logins(&mut setup("tollgate")).await;

    let mut rotating = setup("tollgate");
    let credential = rotating.credential("openai", "llm/openai", "api_key", None);
    let secrets = rotating.secrets();
    assert_eq!(value(&secrets, &credential).await, Ok("sk-team".into()));
    // The kubelet writes another token, and the cluster no longer knows the one before.
    let second = account("tollgate", "bao", 601);
    bao.write("service-account", &second);
    *known.lock().unwrap() = second;
    bao.run(&["kv", "put", team, "secret/llm/openai", "api_key=sk-new"]);
    tokio::time::sleep(SECOND * 7).await;
    assert!(becomes(&secrets, &credential, Ok("sk-new"), SECOND).await);
    assert_eq!(secrets.health()[0].error, None);

    bao.write("service-account", &account("tollgate", "bao", 602));
    fails(
        setup("tollgate"),
        "Kubernetes: the vault or its cluster refuses the service-account token, or no such login is at that mount",
    )
    .await;
    fails(setup("nobody"), "Kubernetes: the vault has no such role").await;
    bao.write("service-account", &account("tollgate", "elsewhere", 600));
    fails(setup("tollgate"), "Kubernetes: the service-account token is for another audience").await;
    bao.write("service-account", &account("tollgate", "bao", -300));
    fails(setup("tollgate"), "Kubernetes: the service-account token is expired").await;
    fs::remove_file(&file).unwrap();
    fails(setup("tollgate"), "the service-account token file cannot be read").await;
}

/// A client certificate of the name in `cert` and `key` below the directory.
fn client_certificate(directory: &Path, name: &str, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(format!("spiffe://prod.acme/{name}").try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer).unwrap();
    fs::write(directory.join("client.crt"), certificate.pem()).unwrap();
    fs::write(directory.join("client.key"), key.serialize_pem()).unwrap();
}

/// A certificate authority, and its certificate in PEM.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

#[tokio::test]
async fn a_client_certificate_logs_in_and_is_read_again_when_its_files_change() {
    let Some(bao) = Bao::start() else { return };
    let team = bao.team();
    let (issuer, pem) = authority();
    let ca = bao.write("clients.pem", &pem);
    bao.run(&["auth", "enable", team, "cert"]);
    let trusted = format!("certificate=@{}", ca.display());
    let names = "allowed_uri_sans=spiffe://prod.acme/tollgate-*";
    bao.run(&[&["write", team, "auth/cert/certs/tollgate", &trusted, names], LOGIN].concat());
    let directory = bao.path("client.crt").parent().unwrap().to_owned();
    let (cert, key) = (bao.path("client.crt"), bao.path("client.key"));
    let setup = |role: &str| {
        let login = format!("{{certificate: {{certFile: {cert:?}, keyFile: {key:?}{role}}}}}");
        Setup::new(&bao).namespace("team").login(login)
    };
    client_certificate(&directory, "tollgate-1", &issuer);
    outlives_its_logins(&mut setup("")).await;
    outlives_its_logins(&mut setup(", role: tollgate")).await;
    fails(setup(", role: nobody"), "certificate: no role of the vault trusts the client certificate").await;

    let mut rotating = setup("");
    let credential = rotating.credential("openai", "llm/openai", "api_key", None);
    let secrets = rotating.secrets();
    assert_eq!(value(&secrets, &credential).await, Ok("sk-team".into()));
    client_certificate(&directory, "tollgate-2", &issuer);
    // From here on a login with the first one would be refused.
    let second = "allowed_uri_sans=spiffe://prod.acme/tollgate-2";
    bao.run(&[&["write", team, "auth/cert/certs/tollgate", &trusted, second], LOGIN].concat());
    bao.run(&["kv", "put", team, "secret/llm/openai", "api_key=sk-new"]);
    tokio::time::sleep(SECOND * 7).await;
    assert!(becomes(&secrets, &credential, Ok("sk-new"), SECOND).await);
    assert_eq!(secrets.health()[0].error, None);
    client_certificate(&directory, "web", &issuer);
    fails(setup(""), "certificate: no role of the vault is for this client certificate").await;
    client_certificate(&directory, "tollgate-3", &authority().0);
    fails(setup(""), "certificate: no role of the vault trusts the client certificate").await;
}

#[tokio::test]
async fn a_vault_that_wants_a_client_certificate_on_every_connection_gets_it_with_any_login() {
    let (issuer, pem) = authority();
    let port = free_port();
    let server = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&server, &issuer).unwrap();
    let started = Bao::start_with(|directory| {
        let path = |name: &str| directory.join(name);
        fs::write(path("own-ca.pem"), &pem).unwrap();
        fs::write(path("own.crt"), certificate.pem()).unwrap();
        fs::write(path("own.key"), server.serialize_pem()).unwrap();
        Some(format!(
            "listener \"tcp\" {{\n address = \"127.0.0.1:{port}\"\n tls_cert_file = {:?}\n tls_key_file = {:?}\n \
             tls_client_ca_file = {:?}\n tls_require_and_verify_client_cert = true\n}}\n",
            path("own.crt"),
            path("own.key"),
            path("own-ca.pem")
        ))
    });
    let Some(bao) = started else { return };
    bao.app_role("token_ttl=3s token_max_ttl=6s");
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-team"]);
    let directory = bao.path("client.crt").parent().unwrap().to_owned();
    let setup = || Setup::new(&bao).listener(port, bao.path("own-ca.pem"));
    let shown = || {
        let (cert, key) = (bao.path("client.crt"), bao.path("client.key"));
        setup().with(&format!("clientCertificate: {{certFile: {cert:?}, keyFile: {key:?}}}"))
    };
    client_certificate(&directory, "tollgate", &issuer);
    outlives_its_logins(&mut shown()).await;

    let refused = async |setup: Setup| {
        let mut setup = setup;
        let credential = setup.credential("openai", "llm/openai", "api_key", None);
        value(&setup.secrets(), &credential).await
    };
    assert_eq!(refused(setup()).await, Err(Failure::Tls("the server wants a client certificate")));
    client_certificate(&directory, "tollgate", &authority().0);
    assert_eq!(
        refused(shown()).await,
        Err(Failure::Tls("the server does not accept the client certificate"))
    );
    fs::remove_file(bao.path("client.key")).unwrap();
    let unreadable = Failure::Misconfigured("the client certificate's key cannot be read");
    assert_eq!(refused(shown()).await, Err(unreadable));
}

const USED: &str = "the wrapping token of the secret id is used or expired: unless this gateway used it before a restart, \
                    somebody else has read the secret id; destroy that one and wrap a new one";
const FOREIGN: &str = "the wrapping token holds no secret id of this AppRole: somebody may have put it in the place of the real one, \
                       and read that; destroy the secret id and wrap a new one";

#[tokio::test]
async fn a_wrapped_secret_id_is_unwrapped_once_and_a_used_wrap_is_an_alarm_and_no_login() {
    let Some(bao) = Bao::start() else { return };
    let team = bao.team();
    bao.run(&["auth", "enable", team, "approle"]);
    bao.run(&[&["write", team, "auth/approle/role/tollgate"], LOGIN].concat());
    let role_id = bao.run(&["read", team, "-field=role_id", "auth/approle/role/tollgate/role-id"]);
    let role_id = bao.write("role-id", &role_id);
    let options = ["write", team, "-f", "-wrap-ttl=5m", "-field=wrapping_token"];
    let wrap = || bao.run(&[&options[..], &["auth/approle/role/tollgate/secret-id"]].concat());
    let file = bao.path("wrapped");
    let setup = || {
        let login = format!("{{appRole: {{roleIdFile: {role_id:?}, wrappedSecretIdFile: {file:?}}}}}");
        Setup::new(&bao).namespace("team").login(login)
    };
    bao.write("wrapped", &wrap());
    // Of many logins of one process only the first shows the wrapping token.
    outlives_its_logins(&mut setup()).await;
    fails(setup(), USED).await;

    let stolen = wrap();
    bao.run(&["unwrap", team, &stolen]);
    bao.write("wrapped", &stolen);
    fails(setup(), USED).await;
    let rewrapped = bao.run(&[
        "write",
        team,
        "-wrap-ttl=5m",
        "-field=wrapping_token",
        "sys/wrapping/wrap",
        "secret_id=x",
    ]);
    bao.write("wrapped", &rewrapped);
    fails(setup(), FOREIGN).await;

    let mut healing = setup();
    let credential = healing.credential("openai", "llm/openai", "api_key", None);
    let secrets = healing.secrets();
    assert_eq!(value(&secrets, &credential).await, Err(Failure::Login(FOREIGN)));
    bao.write("wrapped", &wrap());
    assert!(becomes(&secrets, &credential, Ok("sk-team"), SECOND * 10).await);
    // Whoever cleans up after it does no harm.
    fs::remove_file(&file).unwrap();
    tokio::time::sleep(SECOND * 7).await;
    assert_eq!(value(&secrets, &credential).await, Ok("sk-team".into()));
    assert_eq!(secrets.health()[0].error, None);
}

#[tokio::test]
async fn a_secret_id_that_is_used_up_locks_no_role_and_a_new_one_is_taken_within_seconds() {
    let Some(bao) = Bao::start() else { return };
    bao.app_role("token_ttl=2s token_max_ttl=4s secret_id_num_uses=1");
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-1"]);
    let mut setup = Setup::new(&bao);
    let used = setup.credential("openai", "llm/openai", "api_key", None);
    let secrets = setup.secrets();
    assert_eq!(value(&secrets, &used).await, Ok("sk-1".into()));
    let refused = || {
        secrets.health()[0].cause.clone().is_some_and(|cause| cause.contains("write a good one to its file"))
    };
    let began = std::time::Instant::now();
    while !refused() {
        assert!(began.elapsed() < SECOND * 30, "{:?}", secrets.health()[0].cause);
        assert_eq!(value(&secrets, &used).await, Ok("sk-1".into()), "what is cached serves meanwhile");
        tokio::time::sleep(SECOND / 10).await;
    }
    // Long enough for many more, if the same were shown again.
    tokio::time::sleep(SECOND * 20).await;
    assert_eq!(locked(&bao), 0);
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-2"]);
    let another = bao.run(&["write", "-f", "-field=secret_id", "auth/approle/role/tollgate/secret-id"]);
    bao.write("secret-id", &another);
    assert!(becomes(&secrets, &used, Ok("sk-2"), SECOND * 10).await);
}

/// How many roles are locked.
fn locked(bao: &Bao) -> u64 {
    let said: serde_json::Value =
        serde_json::from_str(&bao.run(&["read", "-format=json", "sys/locked-users"])).unwrap();
    said["data"]["total"].as_u64().unwrap()
}

#[tokio::test]
async fn a_role_that_others_locked_is_told_from_a_wrong_secret_id_and_used_when_it_is_free() {
    let Some(bao) = Bao::start() else { return };
    bao.app_role("token_ttl=1m");
    bao.run(&["kv", "put", "secret/llm/openai", "api_key=sk-1"]);
    bao.run(&["auth", "tune", "-user-lockout-threshold=5", "-user-lockout-duration=20s", "approle"]);
    let role_id = fs::read_to_string(bao.path("role-id")).unwrap();
    let (role, wrong) = (format!("role_id={}", role_id.trim()), "secret_id=wrong");
    for _ in 0..6 {
        assert!(!bao.try_run(&["write", "auth/approle/login", &role, wrong]).status.success());
    }
    let mut setup = Setup::new(&bao);
    let openai = setup.credential("openai", "llm/openai", "api_key", None);
    let secrets = setup.secrets();
    let failure = value(&secrets, &openai).await.unwrap_err();
    assert!(failure.to_string().contains("locked the role"), "{failure}");
    let began = std::time::Instant::now();
    while locked(&bao) > 0 {
        assert!(began.elapsed() < SECOND * 60, "asking does not prolong it");
        assert!(value(&secrets, &openai).await.is_err());
        tokio::time::sleep(SECOND / 2).await;
    }
    // By itself within a minute; sooner where an operator says so.
    let done = secrets.refresh(&openai, 0).await.unwrap();
    assert_eq!(done.failure, None);
    assert_eq!(value(&secrets, &openai).await, Ok("sk-1".into()));
}
