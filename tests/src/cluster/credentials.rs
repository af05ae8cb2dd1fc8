//! What an API server and its users know one another by.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_RSA_SHA256, SigningKey};
use rustls::RootCertStore;
use serde_json::Value;

use crate::ca::{Authority, Identity};
use crate::sandbox::{Sandbox, random};

/// The user that may do everything.
pub const ADMIN: &str = "admin";

/// The API server's certificate, and each user's token.
pub(super) struct Credentials {
    folder: PathBuf,
    url: String,
    authority: Authority,
    server: Identity,
    tokens: BTreeMap<String, String>,
}

impl Credentials {
    /// Makes them, and a kubeconfig for each user.
    pub(super) fn new(sandbox: &Sandbox, folder: &Path, port: u16, users: &[&str]) -> Self {
        fs::create_dir_all(folder).expect("cluster folder");
        let authority = Authority::new(sandbox, &format!("cluster-{port}"));
        let server = authority.server(sandbox, &["localhost", "kubernetes.default.svc"]);
        let token = |user: &str| {
            let token = format!("{user}-{:016x}{:016x}", random(), random());
            sandbox.needle(&token);
            (user.to_owned(), token)
        };
        let tokens: BTreeMap<_, _> = [ADMIN].iter().chain(users).map(|user| token(user)).collect();
        let line = |(user, token): (&String, &String)| {
            // The one group that RBAC lets do everything.
            let groups = if user == ADMIN { ",\"system:masters\"" } else { "" };
            format!("{token},{user},{user}{groups}\n")
        };
        fs::write(folder.join("tokens.csv"), tokens.iter().map(line).collect::<String>()).expect("tokens");
        let url = format!("https://127.0.0.1:{port}");
        let credentials = Self { folder: folder.to_owned(), url, authority, server, tokens };
        for (user, token) in &credentials.tokens {
            credentials.write_kubeconfig(user, token);
        }
        credentials
    }

    pub(super) fn flags(&self) -> [String; 3] {
        [
            format!("--tls-cert-file={}", self.server.cert.display()),
            format!("--tls-private-key-file={}", self.server.key.display()),
            format!("--token-auth-file={}", self.folder.join("tokens.csv").display()),
        ]
    }

    /// What it shows, which is good for every port here.
    pub(super) const fn server(&self) -> &Identity {
        &self.server
    }

    pub(super) fn ca(&self) -> &Path {
        self.authority.bundle()
    }

    pub(super) fn roots(&self) -> RootCertStore {
        self.authority.roots()
    }

    pub(super) fn token(&self, user: &str) -> &str {
        self.tokens.get(user).unwrap_or_else(|| panic!("`{user}` was not named when the cluster was started"))
    }

    pub(super) fn kubeconfig(&self, user: &str) -> PathBuf {
        assert!(self.tokens.contains_key(user), "`{user}` was not named when the cluster was started");
        self.folder.join(format!("{user}.kubeconfig"))
    }

    /// A kubeconfig with this token, by the name of whose it is.
    pub(super) fn write_kubeconfig(&self, user: &str, token: &str) -> PathBuf {
        let path = self.folder.join(format!("{user}.kubeconfig"));
        let (url, ca) = (&self.url, self.ca().display());
        let config = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: tests\n\
             clusters: [{{name: tests, cluster: {{server: \"{url}\", certificate-authority: \"{ca}\"}}}}]\n\
             contexts: [{{name: tests, context: {{cluster: tests, user: \"{user}\"}}}}]\n\
             users: [{{name: \"{user}\", user: {{token: \"{token}\"}}}}]\n"
        );
        fs::write(&path, config).expect("kubeconfig");
        path
    }
}

/// The keys of service accounts' tokens: the one that signs, and those that are still known.
pub(super) struct SigningKeys {
    folder: PathBuf,
    /// The newest is the last.
    known: Vec<PathBuf>,
    made: usize,
}

impl SigningKeys {
    pub(super) fn new(folder: &Path) -> Self {
        let mut keys = Self { folder: folder.to_owned(), known: Vec::new(), made: 0 };
        keys.rotate(false);
        keys
    }

    pub(super) fn rotate(&mut self, keep_old: bool) {
        if !keep_old {
            self.known.clear();
        }
        self.made += 1;
        let path = self.folder.join(format!("service-accounts-{}.key", self.made));
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("an RSA key");
        fs::write(&path, key.serialize_pem()).expect("signing key");
        self.known.push(path);
    }

    /// `token` as the API server would have made it two hours ago, for an hour: the least that it makes one for is ten minutes.
    pub(super) fn expired(&self, token: &str) -> String {
        let part = |at: usize| token.split('.').nth(at).expect("a part of a JWT");
        let payload = URL_SAFE_NO_PAD.decode(part(1)).expect("base64url");
        let mut claims: Value = serde_json::from_slice(&payload).expect("claims");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        (claims["iat"], claims["nbf"], claims["exp"]) =
            ((now - 7200).into(), (now - 7200).into(), (now - 3600).into());
        let signed = format!("{}.{}", part(0), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let pem =
            fs::read_to_string(self.known.last().expect("a key is made at first")).expect("signing key");
        let key = KeyPair::from_pem_and_sign_algo(&pem, &PKCS_RSA_SHA256).expect("an RSA key");
        let signature = key.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub(super) fn flags(&self) -> Vec<String> {
        let newest = self.known.last().expect("a key is made at first");
        let signing = format!("--service-account-signing-key-file={}", newest.display());
        let known = self.known.iter().map(|path| format!("--service-account-key-file={}", path.display()));
        known.chain([signing]).collect()
    }
}
