//! The whole stack: OpenBao holds the keys, aimock refuses any other, HAProxy gives it TLS, the gateway stands between.

use std::path::Path;

use crate::aimock::Aimock;
use crate::bao::Bao;
use crate::ca::Authority;
use crate::client::Client;
use crate::gateway::{Gateway, Settings};
use crate::haproxy::Haproxy;
use crate::resources::{credential, destination, document, grant};
use crate::sandbox::Sandbox;
use crate::secret_kinds::SecretKind;

/// Every part of a running stack.
pub struct FullStack {
    /// The scenario's folder.
    pub sandbox: Sandbox,
    /// The root of trust domain `prod.acme`.
    pub prod: Authority,
    /// The root of server certificates.
    pub pki: Authority,
    /// The keys' home.
    pub bao: Bao,
    /// Both providers.
    pub aimock: Aimock,
    /// OpenAI's keys: the one in the vault, and the next.
    pub openai_keys: [String; 2],
    /// Anthropic's key.
    pub anthropic_key: String,
    /// The gateway.
    pub gateway: Gateway,
    _front: Haproxy,
}

impl FullStack {
    /// Whether every part is installed.
    pub fn possible() -> bool {
        Aimock::installed() && Bao::installed() && Haproxy::installed()
    }

    /// Starts everything. `limits` is the YAML of the OpenAI grant's limits, in flow form.
    pub async fn start(limits: &str) -> Self {
        Self::start_with(limits, async |_, settings| settings).await
    }

    /// The same with settings that `edit` makes of those that it would have.
    pub async fn start_with(limits: &str, edit: impl AsyncFnOnce(&Sandbox, Settings) -> Settings) -> Self {
        let sandbox = Sandbox::new();
        let prod = Authority::new(&sandbox, "prod.acme");
        let pki = Authority::new(&sandbox, "pki");
        let openai_keys = [sandbox.canary("openai"), sandbox.canary("openai")];
        let anthropic_key = sandbox.canary("anthropic");
        sandbox.stands_for(&openai_keys[0], &[SecretKind::Vault, SecretKind::Bearer]);
        sandbox.stands_for(&anthropic_key, &[SecretKind::Vault, SecretKind::Header]);
        let bao = Bao::start(&sandbox).await;
        bao.put("llm/openai", "api_key", &openai_keys[0]).await;
        bao.put("llm/anthropic", "api_key", &anthropic_key).await;
        let aimock = Aimock::start(&sandbox, &[&openai_keys[0], &openai_keys[1], &anthropic_key]).await;
        let server = pki.server(&sandbox, &["api.openai.test", "api.anthropic.test"]);
        let front = Haproxy::front(&sandbox, &server, aimock.address()).await;
        let store = app_role_store(&sandbox, &bao).await;
        let resources = store + &destinations(front.port(), pki.bundle()) + &grants(limits);
        let own = pki.server(&sandbox, &["localhost", "tollgate.test"]);
        let settings =
            Settings::new(&own).trusting("prod.acme", prod.bundle()).resource("full_stack.yaml", resources);
        let settings = edit(&sandbox, settings).await;
        let gateway = Gateway::start(&sandbox, &settings).await;
        Self { sandbox, prod, pki, bao, aimock, openai_keys, anthropic_key, gateway, _front: front }
    }

    /// A caller of `prod.acme`.
    pub fn caller(&self, spiffe: &str) -> Client {
        let identity = self.prod.svid(&self.sandbox, spiffe);
        Client::new(&self.sandbox, self.gateway.address(), self.pki.roots(), Some(identity))
    }
}

async fn app_role_store(sandbox: &Sandbox, bao: &Bao) -> String {
    let role = bao.app_role(sandbox).await;
    document(
        "SecretStore",
        "bao",
        format_args!(
            "  vault:\n    address: {}\n    caFile: {}\n    auth: {{appRole: {{roleIdFile: {}, secretIdFile: {}}}}}\n",
            bao.address(),
            bao.ca().display(),
            role.role_id.display(),
            role.secret_id.display()
        ),
    )
}

fn destinations(port: u16, ca: &Path) -> String {
    destination("openai", "api.openai.test", port, ca, "openai")
        + &destination("anthropic", "api.anthropic.test", port, ca, "anthropic")
        + &credential(
            "openai-prod",
            "openai",
            "{store: bao, path: llm/openai, field: api_key}\n  refresh: 2s",
            "{bearer: {}}",
        )
        + &credential(
            "anthropic-prod",
            "anthropic",
            "{store: bao, path: llm/anthropic, field: api_key}",
            "{header: {name: x-api-key}}",
        )
}

fn grants(limits: &str) -> String {
    let openai = "  allow:\n    methods: [POST]\n    paths: [/v1/chat/completions, /v1/responses]\n    models: [gpt-5-mini]\n";
    let anthropic = "  allow: {methods: [POST], paths: [/v1/messages], models: [claude-sonnet-4-5]}\n";
    let checkout = "spiffe://prod.acme/ns/checkout/sa/*";
    grant("checkout-openai", checkout, "openai", "openai-prod", &format!("{openai}  limits: {limits}\n"))
        + &grant("checkout-anthropic", checkout, "anthropic", "anthropic-prod", anthropic)
        + &grant(
            "batch-openai",
            "spiffe://prod.acme/ns/batch/sa/*",
            "openai",
            "openai-prod",
            &format!("{openai}  limits: [{{tokens: 5, per: day}}]\n"),
        )
}
