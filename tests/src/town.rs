//! The whole town: OpenBao holds the keys, aimock refuses any other, HAProxy gives it TLS, the gateway stands between.

use std::path::Path;

use crate::aimock::Aimock;
use crate::bao::Bao;
use crate::ca::Authority;
use crate::client::Client;
use crate::gateway::{Gateway, Settings};
use crate::haproxy::Haproxy;
use crate::kinds::Kind;
use crate::resources::{credential, destination, document, grant};
use crate::world::World;

/// Every part of a running town.
pub struct Town {
    /// The scenario's folder.
    pub world: World,
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

impl Town {
    /// Whether every part is installed.
    pub fn possible() -> bool {
        Aimock::installed() && Bao::installed() && Haproxy::installed()
    }

    /// Starts everything. `limits` is the YAML of the OpenAI grant's limits, in flow form.
    pub async fn start(limits: &str) -> Self {
        let world = World::new();
        let prod = Authority::new(&world, "prod.acme");
        let pki = Authority::new(&world, "pki");
        let openai_keys = [world.canary("openai"), world.canary("openai")];
        let anthropic_key = world.canary("anthropic");
        world.stands_for(&openai_keys[0], &[Kind::Vault, Kind::Bearer]);
        world.stands_for(&anthropic_key, &[Kind::Vault, Kind::Header]);
        let bao = Bao::start(&world).await;
        bao.put("llm/openai", "api_key", &openai_keys[0]).await;
        bao.put("llm/anthropic", "api_key", &anthropic_key).await;
        let aimock = Aimock::start(&world, &[&openai_keys[0], &openai_keys[1], &anthropic_key]).await;
        let server = pki.server(&world, &["api.openai.test", "api.anthropic.test"]);
        let front = Haproxy::front(&world, &server, aimock.address()).await;
        let store = app_role_store(&world, &bao).await;
        let resources = store + &destinations(front.port(), pki.bundle()) + &grants(limits);
        let own = pki.server(&world, &["localhost", "tollgate.test"]);
        let settings =
            Settings::new(&own).trusting("prod.acme", prod.bundle()).resource("town.yaml", resources);
        let gateway = Gateway::start(&world, &settings).await;
        Self { world, prod, pki, bao, aimock, openai_keys, anthropic_key, gateway, _front: front }
    }

    /// A caller of `prod.acme`.
    pub fn caller(&self, spiffe: &str) -> Client {
        let identity = self.prod.svid(&self.world, spiffe);
        Client::new(&self.world, self.gateway.address(), self.pki.roots(), Some(identity))
    }
}

async fn app_role_store(world: &World, bao: &Bao) -> String {
    let role = bao.app_role(world).await;
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
