//! What compiling needs to know of this process.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tollgate_policy::caller::TrustDomain;
use tollgate_policy::compile::{Environment, HomeCluster};
use tollgate_policy::dialect::Catalog;
use tollgate_policy::name::Name;

use super::{base, lines};
use crate::identity::{IdentitySettings, IssuerKind, TokenIssuerSettings};
use crate::kubernetes::own_namespace;
use crate::metering::catalog;
use crate::settings::{ResourceSettings, Settings};

/// What `compile` needs to know of this process.
pub(crate) fn environment(settings: &Settings) -> anyhow::Result<Environment> {
    let tokens = || settings.identity.tokens.iter();
    let home = home(settings);
    let mut clusters: Vec<Name> = tokens().filter_map(TokenIssuerSettings::cluster).collect();
    // The gateway's own first.
    clusters.sort_by_key(|cluster| Some(cluster) != home.name.as_ref());
    Ok(Environment {
        catalog: builtin_catalog()?,
        gateway_names: settings.names.clone(),
        trust_domains: trust_domains(&settings.identity),
        issuers: tokens()
            .filter(|issuer| issuer.kind == IssuerKind::Oidc)
            .filter_map(|issuer| issuer.issuer.clone())
            .collect(),
        claims: tokens()
            .filter_map(|issuer| Some((issuer.issuer.as_ref()?, &issuer.claims)))
            .flat_map(|(issuer, claims)| claims.keys().map(|name| (issuer.clone(), name.clone())))
            .collect(),
        clusters,
        audiences: tokens().map(|issuer| issuer.audience.clone()).collect(),
        own_files: own_files(settings),
        home,
    })
}

/// The cluster that the gateway is in. Where resources are files, nothing but what the settings leave no choice of is known of it.
pub(crate) fn home(settings: &Settings) -> HomeCluster {
    let only_domain = || only(settings.identity.trust_domains.keys().cloned());
    match &settings.resources {
        ResourceSettings::Kubernetes(cluster) => HomeCluster {
            gateway_namespace: own_namespace(cluster),
            trust_domain: cluster.trust_domain.clone().or_else(only_domain),
            name: cluster.name(),
        },
        ResourceSettings::Directory(_) => HomeCluster {
            gateway_namespace: None,
            trust_domain: only_domain(),
            name: only(settings.identity.tokens.iter().filter_map(TokenIssuerSettings::cluster)),
        },
    }
}

/// The one of `all`, if there are not several.
fn only<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// Those whose workloads a certificate or a token proves.
fn trust_domains(identity: &IdentitySettings) -> Vec<TrustDomain> {
    let by_token = identity.tokens.iter().filter_map(|issuer| issuer.trust_domain.as_ref());
    let mut domains: Vec<_> = identity.trust_domains.keys().cloned().collect();
    domains.extend(by_token.filter(|domain| !identity.trust_domains.contains_key(*domain)).cloned());
    domains
}

/// The same where there are no settings.
pub(crate) fn environment_of(names: &[String], domains: &[String]) -> anyhow::Result<Environment> {
    let domains: Result<_, _> = domains.iter().map(|domain| domain.parse()).collect();
    let trust_domains = domains.context("--trust-domain")?;
    let names: Result<_, String> = names.iter().map(|name| name.parse()).collect();
    let gateway_names = names.map_err(|error| anyhow!("--name: {error}"))?;
    Ok(Environment { catalog: builtin_catalog()?, gateway_names, trust_domains, ..Environment::default() })
}

/// What no secret store may show: as it is written, absolute, and where it really is.
fn own_files(settings: &Settings) -> Vec<(String, PathBuf)> {
    let seal = settings.ledger.seal_key_file.as_ref();
    let interception = settings.interception.as_ref();
    let interception = interception.map(|ca| base(&settings.origin.file.path).join(&ca.ca_key_file));
    let own = [
        ("identity.certificate.keyFile", settings.identity.certificate.as_ref().map(|files| &files.key_file)),
        ("admin.tokenFile", Some(&settings.admin.token_file)),
        ("ledger.sealKeyFile", seal),
        ("ledger.postgres.passwordFile", settings.ledger.postgres.as_ref().map(|it| &it.password_file)),
        ("dataDir", Some(&settings.data_dir)),
        ("interception.caKeyFile", interception.as_ref()),
        (
            "limits.redis.passwordFile",
            settings.limits.redis.as_ref().and_then(|redis| redis.password_file.as_ref()),
        ),
    ];
    let base = base(&settings.origin.file.path);
    let tokens = settings.identity.tokens.iter().enumerate().filter_map(|(at, issuer)| {
        Some((format!("identity.tokens[{at}].tokenFile"), base.join(issuer.token_file.as_ref()?)))
    });
    let headers = settings.telemetry.header_files();
    let headers = headers.filter_map(|(setting, file)| Some((setting, file?.clone())));
    let kubeconfig = match &settings.resources {
        ResourceSettings::Kubernetes(cluster) => cluster.kubeconfig.as_ref(),
        ResourceSettings::Directory(_) => None,
    };
    let kubeconfig = kubeconfig.map(|file| ("resources.kubernetes.kubeconfig".to_owned(), file.clone()));
    let forms = |path: &PathBuf| {
        let absolute = std::path::absolute(path).ok();
        [Some(path.clone()), absolute, path.canonicalize().ok()].into_iter().flatten()
    };
    own.into_iter()
        .filter_map(|(setting, path)| Some((setting.to_owned(), path?.clone())))
        .chain(tokens)
        .chain(headers)
        .chain(kubeconfig)
        .flat_map(|(setting, path)| forms(&path).map(move |path| (setting.clone(), path)).collect::<Vec<_>>())
        .collect()
}

fn builtin_catalog() -> anyhow::Result<Arc<Catalog>> {
    catalog::shipped().map(Arc::new).map_err(|problems| anyhow!("{}", lines(&problems)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_of(domains: &[&str], clusters: &[&str], resources: &str) -> (Option<String>, Option<String>) {
        let domains: Vec<_> = domains.iter().map(|domain| format!("{domain}: {{bundleFile: c}}")).collect();
        let token = |cluster: &&str| {
            format!(
                "{{kind: kubernetes, issuer: 'https://{cluster}.example', audience: tollgate, cluster: {cluster}, keys: {{file: {cluster}}}}}"
            )
        };
        let tokens: Vec<_> = clusters.iter().map(token).collect();
        let text = format!(
            "listeners: [{{name: mesh, address: '127.0.0.1:0'}}]\n\
             identity: {{certificate: {{certFile: a, keyFile: b}}, trustDomains: {{{}}}, tokens: [{}]}}\n\
             resources: {resources}\ndataDir: data\nadmin: {{tokenFile: token}}\n",
            domains.join(", "),
            tokens.join(", "),
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tollgate.yaml");
        std::fs::write(&file, text).unwrap();
        let home = home(&Settings::read(&file, |_| None).unwrap());
        (home.trust_domain.map(|domain| domain.to_string()), home.name.map(|name| name.to_string()))
    }

    #[test]
    fn the_gateways_own_cluster_is_the_one_its_objects_come_from_or_else_the_only_one() {
        let home = |domain: &str, cluster: &str| {
            let known = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
            (known(domain), known(cluster))
        };
        let (one, two) = (["prod.acme"], ["partner.example", "prod.acme"]);
        let named = "{kubernetes: {cluster: us-1, trustDomain: prod.acme, gatewayNamespace: egress}}";
        for (domains, clusters, resources, expected) in [
            (&one[..], &["eu-1", "us-1"][..], named, home("prod.acme", "us-1")),
            (&two, &["eu-1", "us-1"], named, home("prod.acme", "us-1")),
            (&one, &["eu-1"], "{kubernetes: {gatewayNamespace: egress}}", home("prod.acme", "local")),
            (&two, &["eu-1"], "{kubernetes: {gatewayNamespace: egress}}", home("", "local")),
            (&one, &["eu-1"], "res", home("prod.acme", "eu-1")),
            (&two, &["eu-1", "us-1"], "res", home("", "")),
        ] {
            assert_eq!(
                home_of(domains, clusters, resources),
                expected,
                "{domains:?} {clusters:?} {resources}"
            );
        }
    }
}
