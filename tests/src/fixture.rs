//! The smallest setting: one trust domain, one upstream of our own with a key in a file store, one gateway between.

use std::path::PathBuf;
use std::time::Duration;

use crate::ca::{Authority, Identity};
use crate::client::Client;
use crate::gateway::{Gateway, Settings};
use crate::provider;
use crate::resources::{credential, destination, file_store, grant};
use crate::sandbox::Sandbox;
use crate::secret_kinds::SecretKind;
use crate::upstream::{Reply, Seen, Upstream};

/// The caller that the fixture's grant names.
pub const CHECKOUT: &str = "spiffe://prod.acme/ns/checkout/sa/web";

/// The fixture's grant rules for an OpenAI destination, when a scenario has no others.
pub const CHAT_ONLY: &str =
    "  allow: {methods: [POST], paths: [/v1/chat/completions], models: [gpt-5-mini]}\n";

/// Everything that a running fixture consists of.
pub struct Fixture {
    /// The scenario's folder.
    pub sandbox: Sandbox,
    /// The root of trust domain `prod.acme`.
    pub prod: Authority,
    /// The root of server certificates, the gateway's and the upstreams'.
    pub pki: Authority,
    /// The provider's key, known to the store and the upstream.
    pub key: String,
    /// The upstream behind destination `up`, host `api.up.test`.
    pub upstream: Upstream,
    /// The gateway.
    pub gateway: Gateway,
}

/// What to change of the default fixture before it starts.
pub struct Plan {
    /// The scenario's folder.
    pub sandbox: Sandbox,
    /// The root of trust domain `prod.acme`.
    pub prod: Authority,
    /// The root of server certificates.
    pub pki: Authority,
    /// The provider's key.
    pub key: String,
    /// The upstream's certificate, for `api.up.test`.
    pub server: Identity,
    /// Settings; resources are added by [`Plan::start`] unless a file of the same name is there.
    pub settings: Settings,
    /// The destination's dialect.
    pub dialect: &'static str,
    /// The rest of the grant's spec.
    pub grant: String,
    /// How the key is put on.
    pub inject: &'static str,
}

impl Plan {
    /// A plain-HTTP destination that allows everything to `checkout`.
    pub fn new() -> Self {
        let sandbox = Sandbox::new();
        let prod = Authority::new(&sandbox, "prod.acme");
        let pki = Authority::new(&sandbox, "pki");
        let own = pki.server(&sandbox, &["localhost", "tollgate.test"]);
        let settings = Settings::new(&own).trusting("prod.acme", prod.bundle());
        let server = pki.server(&sandbox, &["api.up.test"]);
        let key = sandbox.canary("up");
        sandbox.input("keys/up", &key);
        let grant = "  allow: {methods: [GET, POST, PUT, DELETE], paths: [\"/**\"]}\n".to_owned();
        Self { sandbox, prod, pki, key, server, settings, dialect: "http", grant, inject: "{bearer: {}}" }
    }

    /// An OpenAI destination with this grant.
    pub fn openai(grant: &str) -> Self {
        Self { dialect: "openai", grant: grant.to_owned(), ..Self::new() }
    }

    /// Where the file store reads the key.
    pub fn key_file(&self) -> PathBuf {
        self.sandbox.inputs().join("keys/up")
    }

    /// Starts an upstream over HTTP/1.1 that answers by `respond`, and the gateway.
    pub async fn start(self, respond: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fixture {
        let upstream = Upstream::http(&self.server, &["http/1.1"], respond).await;
        self.start_with(upstream).await
    }

    /// Starts with OpenAI's answers and this usage on every one.
    pub async fn start_openai(self, prompt: u64, completion: u64) -> Fixture {
        let respond = provider::openai(&self.key, prompt, completion);
        self.start(respond).await
    }

    /// Starts the gateway before a given upstream.
    pub async fn start_with(self, upstream: Upstream) -> Fixture {
        let mut settings = self.complete(upstream.port());
        if upstream.speaks_h2() {
            // Otherwise it is spoken to in HTTP/1.1.
            for (_, text) in settings.resources.iter_mut().filter(|(file, _)| file == "fixture.yaml") {
                *text = text.replace("  dialect:", "  http: 2\n  dialect:");
            }
        }
        let gateway = Gateway::start(&self.sandbox, &settings).await;
        Fixture { sandbox: self.sandbox, prod: self.prod, pki: self.pki, key: self.key, upstream, gateway }
    }

    /// The settings with the fixture's resources.
    pub fn complete(&self, port: u16) -> Settings {
        let mut text = destination("up", "api.up.test", port, self.pki.bundle(), self.dialect);
        text += &file_store("files", &self.sandbox.inputs().join("keys"));
        text += &credential("up-key", "up", "{store: files, path: up}", self.inject);
        text += &grant("checkout-up", "spiffe://prod.acme/ns/checkout/sa/*", "up", "up-key", &self.grant);
        if self.settings.resources.iter().any(|(file, _)| file == "fixture.yaml") {
            return self.settings.clone();
        }
        self.sandbox.stands_for(&self.key, &[SecretKind::File, SecretKind::of_injection(self.inject)]);
        self.settings.clone().resource("fixture.yaml", text)
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}

impl Fixture {
    /// The caller that has the grant.
    pub fn checkout(&self) -> Client {
        self.caller(CHECKOUT)
    }

    /// A caller of `prod.acme` with a valid SVID.
    pub fn caller(&self, spiffe: &str) -> Client {
        let identity = self.prod.svid(&self.sandbox, spiffe);
        self.stranger(Some(identity))
    }

    /// What the gateway has made at an endpoint that is down serves `/up/x` until its end; then calls are refused, and none arrives.
    ///
    /// # Panics
    /// Where it does not serve at all, or refuses otherwise.
    pub async fn assert_serves_until_it_ends(&self) {
        let (client, mut served) = (self.checkout(), 0);
        let refused = loop {
            let answer = client.get("/up/x").await;
            if answer.status != 200 {
                break answer;
            }
            served += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        refused.assert_refused(503, "secret_unavailable");
        assert!(served > 0, "what was made outlives its endpoint");
        let arrived = self.upstream.count();
        for _ in 0..50 {
            client.get("/up/x").await.assert_refused(503, "secret_unavailable");
        }
        assert_eq!(self.upstream.count(), arrived);
    }

    /// The endpoint is up again: within a minute so are calls of `/up/x`.
    ///
    /// # Panics
    /// Where they are not.
    pub async fn assert_recovers(&self) {
        let client = self.checkout();
        let recovered = async {
            while client.get("/up/x").await.status != 200 {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), recovered).await.expect("it recovers by itself");
    }

    /// A caller with any certificate, or none.
    pub fn stranger(&self, identity: Option<Identity>) -> Client {
        Client::new(&self.sandbox, self.gateway.address(), self.pki.roots(), identity)
    }
}
