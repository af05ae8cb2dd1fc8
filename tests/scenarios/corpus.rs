//! The golden corpus of decisions, asked of the live gateway and of `tollgate explain`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tollgate_policy::model::{SourceFile, read_settings};
use tollgate_tests::gateway::{eventually, field};
use tollgate_tests::provider::chat_completion;
use tollgate_tests::{Authority, Client, Gateway, Reply, Sandbox, Settings, Upstream, needs};

/// Loopback, but nobody else's: destinations of the corpus listen on their real ports here.
fn address() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 77, high, low.max(1))
}

fn privileged_ports() -> bool {
    std::net::TcpListener::bind((address(), 443)).is_ok()
}

/// One file of the corpus, with everything it needs running.
struct Replay {
    corpus: Value,
    domains: BTreeMap<String, Authority>,
    pki: Authority,
    upstreams: Vec<Upstream>,
    gateway: Gateway,
    sandbox: Sandbox,
}

fn document(text: &str) -> Value {
    let file = SourceFile { path: "corpus.yaml".into(), text: text.to_owned() };
    read_settings(&file, |_| ()).unwrap_or_else(|problems| panic!("{problems:#?}")).0
}

async fn replay(path: &Path) -> Replay {
    let sandbox = Sandbox::new();
    let corpus = document(&fs::read_to_string(path).unwrap());
    let texts = |field: &str| -> Vec<String> {
        corpus[field].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let domains: BTreeMap<_, _> = texts("trustDomains")
        .into_iter()
        .map(|name| (name.clone(), Authority::new(&sandbox, &name)))
        .collect();
    let pki = Authority::new(&sandbox, "pki");
    let resources = corpus["resources"].as_str().unwrap();
    let mut resources: Vec<Value> =
        resources.split("---\n").filter(|text| !text.is_empty()).map(document).collect();
    let (mut hosts, mut ports) = (Vec::new(), vec![443]);
    for resource in resources.iter_mut().filter(|resource| resource["kind"] == "Destination") {
        hosts.extend(
            resource["spec"]["hosts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|host| host.as_str().unwrap().to_owned()),
        );
        ports.extend(resource["spec"]["port"].as_u64());
        resource["spec"]["addresses"] = json!([address().to_string()]);
        if resource["spec"]["protocol"].is_null() {
            resource["spec"]["tls"] = json!({"verify": {"caFile": pki.bundle()}});
        }
    }
    for resource in resources.iter_mut().filter(|resource| resource["kind"] == "SecretStore") {
        sandbox.input(
            "keys/aws",
            json!({"id": "AKIAIOSFODNN7EXAMPLE", "key": sandbox.canary("aws")}).to_string(),
        );
        resource["spec"]["file"]["root"] = json!(sandbox.inputs().join("keys"));
    }
    ports.sort_unstable();
    ports.dedup();
    hosts.retain(|host| !host.contains('_'));
    let server = pki.server(&sandbox, &hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut upstreams = Vec::new();
    for port in ports {
        let listener =
            TcpListener::bind((IpAddr::V4(address()), port as u16)).await.expect("the destination's port");
        let respond = |_: &_| Reply::json(&chat_completion(1, 1));
        upstreams.push(Upstream::http_on(listener, &server, &["h2", "http/1.1"], respond));
    }
    let text = resources.iter().map(|resource| format!("---\n{resource}\n")).collect::<String>();
    let mut settings = Settings::new(&pki.server(&sandbox, &["localhost"])).resource("corpus.yaml", text);
    settings.names = texts("gatewayNames").iter().map(|name| format!("\"{name}\"")).collect();
    for (name, authority) in &domains {
        settings = settings.trusting(name, authority.bundle());
    }
    let gateway = Gateway::start(&sandbox, &settings).await;
    Replay { corpus, domains, pki, upstreams, gateway, sandbox }
}

fn split(url: &str) -> (&str, &str) {
    let (_, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_at(rest.find(['/', '*', '?']).unwrap_or(rest.len()));
    (authority, if path.is_empty() { "/" } else { path })
}

/// What became of a request: the grant and the URL that left, or the reason.
type Outcome = Result<(String, String), String>;

fn expected(request: &Value) -> Outcome {
    let url = request["sends"].as_str().or_else(|| request["url"].as_str()).unwrap();
    request["reason"].as_str().map_or_else(
        || Ok((request["grant"].as_str().unwrap().to_owned(), url.to_owned())),
        |reason| Err(reason.to_owned()),
    )
}

impl Replay {
    async fn live(&self, request: &Value) -> Outcome {
        let caller = request["caller"].as_str().unwrap();
        let domain = caller.strip_prefix("spiffe://").unwrap().split('/').next().unwrap();
        let Some(authority) = self.domains.get(domain) else { return Err("no_grant".to_owned()) };
        let identity = authority.svid(&self.sandbox, caller);
        let client = Client::new(&self.sandbox, self.gateway.address(), self.pki.roots(), Some(identity));
        let (host, target) = split(request["url"].as_str().unwrap());
        let mut body = json!({"messages": [], "max_completion_tokens": 9, "max_tokens": 9});
        if !request["model"].is_null() {
            body["model"] = request["model"].clone();
        }
        let method = request["method"].as_str().unwrap();
        // No client writes a query without a path (RFC 9112, section 3.2.1).
        let target = if target.starts_with('?') { format!("/{target}") } else { target.to_owned() };
        let body = if ["POST", "PUT", "PATCH"].contains(&method) { body.to_string() } else { String::new() };
        let action = request["action"].as_str();
        let action = action.map_or_else(String::new, |action| format!("x-amz-target: Any_1.{action}\r\n"));
        let head = format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\n{action}content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        self.upstreams.iter().for_each(Upstream::clear);
        let answer = client.raw(&[head.as_bytes(), body.as_bytes()].concat()).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        if let Some(reason) = header(&text, "x-tollgate-reason") {
            return Err(reason);
        }
        if answer.bytes.is_empty() {
            return Err("closed without an answer".to_owned());
        }
        if answer.statuses() == [400] {
            return Err("400".to_owned());
        }
        let id = header(&text, "x-tollgate-request-id").unwrap_or_else(|| panic!("{request}: {text}"));
        let seen: Vec<_> = self.upstreams.iter().flat_map(Upstream::seen).collect();
        assert_eq!(seen.len(), 1, "{request}: {text}");
        let sent = format!("https://{}{}", seen[0].authority, seen[0].target);
        Ok((self.grant(&id).await, sent))
    }

    /// The grant that the access line of a request names.
    async fn grant(&self, id: &str) -> String {
        let mut grant = None;
        eventually("the access line is written", || {
            let log = self.gateway.log();
            let record = log.iter().map(|line| field(line, "record")).find(|record| record["id"] == id);
            grant = record.and_then(|record| record["grant"].as_str()).map(str::to_owned);
            grant.is_some()
        })
        .await;
        grant.unwrap_or_default()
    }

    fn explained(&self, request: &Value) -> Result<String, String> {
        let text = |name: &str| request[name].as_str().unwrap();
        let mut arguments =
            vec!["explain", "--caller", text("caller"), "--method", text("method"), "--url", text("url")];
        let model = format!("--model={}", request["model"].as_str().unwrap_or_default());
        if !request["model"].is_null() {
            arguments.push(&model);
        }
        let action = format!("--action={}", request["action"].as_str().unwrap_or_default());
        if !request["action"].is_null() {
            arguments.push(&action);
        }
        let output = self.gateway.tollgate(&arguments);
        let said = String::from_utf8(output.stdout).unwrap();
        let last = said.lines().last().unwrap_or_default();
        if let Some(rest) = last.strip_prefix("allowed: grant ") {
            return Ok(rest.split_whitespace().next().unwrap().to_owned());
        }
        let refused = last.strip_prefix("refused: ").unwrap_or_else(|| panic!("{request}: {said}"));
        Err(refused.split(':').next().unwrap().to_owned())
    }
}

/// Whether the live gateway decided as written, but for what HTTP itself settles before there is a decision.
fn same(request: &Value, live: &Outcome, expected: &Outcome) -> bool {
    let reason = expected.as_ref().err().map(String::as_str);
    match live {
        // hyper refuses what is no request line.
        Err(word) if word == "400" => matches!(reason, Some("ambiguous_path" | "bad_request")),
        // It drops a fragment, so that none is matched and none is sent.
        Ok((_, sent)) if reason.is_some() => {
            request["url"].as_str().unwrap().split_once('#').is_some_and(|(url, _)| url == sent)
        }
        // An empty name is refused with the body that it stands in.
        Err(word) if word == "body_invalid" => request["model"] == "" && reason == Some("model_not_allowed"),
        _ => live == expected,
    }
}

fn header(answer: &str, name: &str) -> Option<String> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_gateway_and_explain_decide_the_whole_golden_corpus_alike() {
    needs!(privileged_ports());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/tests/corpus");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut decided, mut wrong) = (0, Vec::new());
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "yaml")) {
        let replay = replay(file).await;
        // The others are asked for in other ways: `tunnels.rs` does.
        let is_http = |request: &&Value| request["url"].as_str().unwrap().starts_with("http");
        for request in replay.corpus["requests"].as_array().unwrap().iter().filter(is_http) {
            decided += 1;
            let (expected, live, explained) =
                (expected(request), replay.live(request).await, replay.explained(request));
            if !same(request, &live, &expected) || explained != expected.clone().map(|(grant, _)| grant) {
                wrong.push(format!(
                    "{}: {request}\n  expected {expected:?}\n  live {live:?}\n  explain {explained:?}",
                    file.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {decided}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(decided >= 120, "the corpus has shrunk to {decided} requests");
}
