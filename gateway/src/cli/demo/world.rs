//! What the demo takes place in: certificates, secret, configuration, provider.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::SanType;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tollgate_secrets::AgeFile;
use zeroize::Zeroizing;

use super::provider;
use crate::cli::authority::{Authority, dns};
use crate::files::write_private;

const DOMAIN: &str = "demo.tollgate";

/// A temporary directory with everything in it; gone when dropped.
pub(super) struct DemoWorld {
    directory: TempDir,
    ca: Authority,
}

impl DemoWorld {
    pub(super) fn build() -> anyhow::Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = Authority::new("Tollgate demo CA", DOMAIN)?;
        let world = Self { directory: tempfile::Builder::new().prefix("tollgate-demo-").tempdir()?, ca };
        world.write("ca.pem", &world.ca.pem())?;
        let gateway = vec![world.ca.id("ns/tollgate/sa/gateway")?, dns("localhost")?];
        world.certificate("gateway", gateway)?;
        for workload in ["checkout", "stranger", "batch"] {
            world.certificate(workload, vec![world.ca.id(&format!("ns/{workload}/sa/api"))?])?;
        }
        let (chain, key) = world.ca.leaf_der(vec![dns("api.openai.com")?])?;
        let secret = Zeroizing::new(format!("sk-demo-{}", crate::ledger::RecordId::new()));
        let provider = provider::start(chain, key, &secret)?;
        world.keep(&secret)?;
        world.configure(provider)?;
        Ok(world)
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.path("tollgate.yaml")
    }

    pub(super) fn store(&self) -> PathBuf {
        self.path("secrets.age")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub(super) fn admin_token(&self) -> PathBuf {
        self.path("admin.token")
    }

    /// TLS as `workload` speaks it to the gateway.
    pub(super) fn client(&self, workload: &str) -> anyhow::Result<ClientConfig> {
        use rustls::pki_types::pem::PemObject;
        let chain = CertificateDer::pem_file_iter(self.path(&format!("{workload}.crt")))?
            .collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{workload}.key")))?;
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(config.with_root_certificates(roots).with_client_auth_cert(chain, key)?)
    }

    /// A call that a reader can make.
    pub(super) fn curl(&self, gateway: SocketAddr) -> String {
        let at = |name: &str| self.path(name).display().to_string();
        format!(
            "curl --cacert {} --cert {} --key {} https://localhost:{}/openai/v1/chat/completions -H 'content-type: application/json' \
             -d '{{\"model\":\"gpt-5-mini\",\"max_completion_tokens\":100,\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}]}}'",
            at("ca.pem"),
            at("checkout.crt"),
            at("checkout.key"),
            gateway.port(),
        )
    }

    fn keep(&self, secret: &str) -> anyhow::Result<()> {
        let identity = self.path("age.identity");
        AgeFile::create_identity(&identity)?;
        AgeFile::new(self.store(), identity).set(
            "llm/openai",
            "api_key",
            Zeroizing::new(secret.to_owned()),
        )?;
        Ok(())
    }

    fn configure(&self, provider: SocketAddr) -> anyhow::Result<()> {
        std::fs::create_dir(self.path("resources"))?;
        let settings = format!(
            "listeners: [{{name: mesh, address: '127.0.0.1:0'}}]
names: [localhost]
identity:
  certificate: {{certFile: gateway.crt, keyFile: gateway.key}}
  trustDomains: {{{DOMAIN}: {{bundleFile: ca.pem}}}}
resources: resources
dataDir: data
admin: {{address: '127.0.0.1:0', tokenFile: admin.token}}
egress: {{privateRanges: [127.0.0.0/8]}}
ledger: {{sealKeyFile: seal.key}}
drain: {{delay: 10ms, timeout: 5s}}
"
        );
        self.write("tollgate.yaml", &settings)?;
        let resources = include_str!("resources.yaml").replace("PORT", &provider.port().to_string());
        self.write("resources/demo.yaml", &resources)
    }

    fn certificate(&self, name: &str, names: Vec<SanType>) -> anyhow::Result<()> {
        let leaf = self.ca.leaf(names)?;
        self.write(&format!("{name}.crt"), &leaf.certificate)?;
        write_private(&self.path(&format!("{name}.key")), leaf.key.as_bytes()).context("writing a key")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        std::fs::write(self.path(name), text).with_context(|| format!("writing {name}"))
    }
}
