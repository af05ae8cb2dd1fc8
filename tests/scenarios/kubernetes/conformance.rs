//! The Gateway API's own conformance suite: its tests that look at statuses and need no running pods.

use std::collections::BTreeMap;
use std::process::Stdio;

use tokio::process::Command;
use tollgate_tests::cluster::{ADMIN, Cluster};
use tollgate_tests::needs;
use tollgate_tests::sandbox::parts_dir;

use super::gateway_api::{CLASS, Routed, installed};
use Outcome::{Passes, PassesButForItsCall, Wants};
use Unserved::{CertificateOfSecret, PlainHttp, Service};

/// Listeners of the suite's Gateways that lead to one of the gateway's.
const LISTENERS: [&str; 4] = ["http", "https", "http-unattached", "tls"];

/// What comes of a test of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passes,
    /// The statuses are as they should be. The call, which is in the clear, does not get the answer that it should.
    PassesButForItsCall,
    /// It wants something that is not served, so it fails.
    Wants(Unserved),
}

/// What the gateway deliberately does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unserved {
    /// A listener in the clear.
    PlainHttp,
    /// A listener's certificate out of a Secret: the gateway reads none.
    CertificateOfSecret,
    /// A backend inside of the cluster.
    Service,
}

const TESTS: [(&str, Outcome); 19] = [
    ("GatewayClassObservedGenerationBump", Passes),
    ("GatewayInvalidRouteKind", Passes),
    ("GatewayInvalidTLSConfiguration", Passes),
    ("GatewayListenerUnsupportedProtocol", Passes),
    ("GatewayWithAttachedRoutes", Passes),
    ("GatewaySecretInvalidReferenceGrant", Passes),
    ("GatewaySecretMissingReferenceGrant", Passes),
    ("HTTPRouteInvalidParentRefNotMatchingSectionName", Passes),
    ("HTTPRouteInvalidParentRefSectionNameNotMatchingPort", Passes),
    ("HTTPRouteInvalidBackendRefUnknownKind", PassesButForItsCall),
    ("HTTPRouteInvalidCrossNamespaceBackendRef", PassesButForItsCall),
    ("HTTPRouteInvalidReferenceGrant", PassesButForItsCall),
    ("GatewayObservedGenerationBump", Wants(PlainHttp)),
    ("GatewayModifyListeners", Wants(CertificateOfSecret)),
    ("GatewaySecretReferenceGrantAllInNamespace", Wants(CertificateOfSecret)),
    ("GatewaySecretReferenceGrantSpecific", Wants(CertificateOfSecret)),
    ("HTTPRouteObservedGenerationBump", Wants(Service)),
    ("HTTPRouteInvalidCrossNamespaceParentRef", Wants(Service)),
    ("HTTPRouteInvalidNonExistentBackendRef", Wants(Service)),
];

/// Whether each test, and each part of one, passed.
fn verdicts(log: &str) -> BTreeMap<&str, bool> {
    log.lines()
        .filter_map(|line| {
            let (verdict, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": TestGateway/")?;
            let passed = match verdict {
                "PASS" => true,
                "FAIL" => false,
                _ => return None,
            };
            Some((rest.split(' ').next()?, passed))
        })
        .collect()
}

/// What came of a test; `None`: it was not run.
fn outcome(name: &str, wanted: Outcome, verdicts: &BTreeMap<&str, bool>) -> Option<Outcome> {
    let mut failed = verdicts.iter().filter(|(_, passed)| !**passed).map(|(part, _)| *part);
    let is_call = |part: &str| {
        let of_it = part.strip_prefix(name)?.strip_prefix('/')?.to_lowercase();
        Some(of_it.contains("http_request"))
    };
    match (verdicts.get(name)?, wanted) {
        (true, _) => Some(Passes),
        (false, Wants(_)) => Some(wanted),
        (false, _) => failed.all(|part| is_call(part) != Some(false)).then_some(PassesButForItsCall),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_conformance_suites_tests_of_statuses_pass_but_for_those_that_want_what_is_not_served() {
    needs!(Cluster::installed(), installed(), parts_dir().join("gateway-conformance").exists());
    let mut routed = Routed::new().await;
    routed.world.members =
        ", gatewayApi: {addresses: [tollgate.egress.svc], gatewayNamespaces: [gateway-conformance-infra]}";
    routed.install("1.7.0").await;
    routed.world.cluster.apply(CLASS).await;
    let mut gateway = routed.world.prepare(&routed.world.plan.sandbox);
    let listeners = LISTENERS.map(|name| format!("{{name: {name}, address: \"127.0.0.1:0\"}}, ")).concat();
    gateway.edit_settings("listeners: [", &format!("listeners: [{listeners}"));
    gateway.launch().await;
    gateway.ready().await;

    let names = TESTS.map(|(name, _)| name).join(",");
    let mut command = Command::new(parts_dir().join("gateway-conformance"));
    command
        .args(["-test.v", "-test.timeout=8m"])
        .env("KUBECONFIG", routed.world.cluster.kubeconfig(ADMIN))
        .env("TOLLGATE_CONFORMANCE", &names)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.expect("the suite runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    std::fs::write(routed.world.plan.sandbox.sinks().join("conformance.log"), &said)
        .expect("the suite's log");
    let verdicts = verdicts(&said);
    for (name, wanted) in TESTS {
        let found = outcome(name, wanted, &verdicts);
        eprintln!("{name}: {found:?}");
        assert_eq!(found, Some(wanted), "{name}\n{said}");
    }
}
