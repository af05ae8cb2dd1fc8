//! `tollgate explain`: the decision on a call, made by the code that makes it for real.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use tollgate_policy::access::limited;
use tollgate_policy::caller::{Identity, assumed};
use tollgate_policy::decision::{
    Actions, CallerGrants, Facts, action_of_target, actions_of_form, actions_of_path,
};
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::operation::{HttpRequest, Operation, RequestLine, Upgrade};
use tollgate_policy::policy::{Grant, Policy, SigV4};
use tollgate_policy::target::{Passage, Target};

use super::check::{CheckArgs, Subject};
use super::say;
use crate::app;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate explain --caller spiffe://prod.acme/ns/shop/sa/web --model gpt-5-mini --url https://localhost/openai/v1/chat/completions")]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    configuration: CheckArgs,
    /// Who calls, e.g. spiffe://prod.acme/ns/checkout/sa/api
    #[arg(long, value_name = "CALLER")]
    caller: Identity,
    /// The method; without it POST, and GET for an upgrade
    #[arg(long)]
    method: Option<String>,
    /// The protocol that the call goes on with
    #[arg(long, value_parser = ["websocket"])]
    upgrade: Option<String>,
    /// What is called: the destination's own URL, the gateway's with the destination as the first path segment, or tcp://HOST:PORT
    #[arg(long)]
    url: String,
    /// The model that the body names, or the query of a session
    #[arg(long)]
    model: Option<String>,
    /// The action of an AWS service that a header or the body names; those of the URL are read there
    #[arg(long)]
    action: Option<String>,
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let subject = Subject::of(&args.configuration)?;
    let (snapshot, _) =
        subject.build(&subject.read()?).map_err(|problems| anyhow!("{}", app::lines(&problems)))?;
    match decide(&snapshot.policy, args)? {
        Ok(grant) => {
            say("what is left of limits is not looked at");
            say(&format!("allowed: {grant}"));
            Ok(ExitCode::SUCCESS)
        }
        Err(denial) => {
            if args.method.is_none() && !args.url.starts_with("tcp://") {
                say(&format!(
                    "note: the method was taken to be {}; `--method` names another",
                    args.usual_method()
                ));
            }
            say(&format!("refused: {}: {}", denial.reason, denial.detail));
            Ok(ExitCode::from(2))
        }
    }
}

impl ExplainArgs {
    const fn usual_method(&self) -> &'static str {
        if self.upgrade.is_some() { "GET" } else { "POST" }
    }
}

fn decide(policy: &Policy, args: &ExplainArgs) -> anyhow::Result<Result<String, Denial>> {
    if let Some(authority) = args.url.strip_prefix("tcp://") {
        return Ok(decide_connection(policy, args, authority));
    }
    let (authority, path, query) = split(&args.url)?;
    let method = args.method.as_deref().unwrap_or_else(|| args.usual_method());
    let line = RequestLine { authority, method, path, query };
    let grants = policy.grants_of(&assumed(args.caller.clone()));
    let (target, request) = match policy.resolve(&line) {
        Ok((target, request)) => {
            (target, request.upgrading(args.upgrade.as_ref().map(|_| Upgrade::Websocket)))
        }
        Err(denial) => return Ok(Err(denial)),
    };
    say(&format!(
        "destination: {} ({}:{}{})",
        target.destination().name,
        target.host(),
        target.port(),
        request.path()
    ));
    let now = Timestamp::now();
    let facts = match facts(args, &target, &request, &grants) {
        Ok(facts) => facts,
        Err(denial) => return Ok(Err(denial)),
    };
    let operation = Operation::Http(request);
    candidates(policy, &grants, (&target, &operation, &facts), now).iter().for_each(|line| say(line));
    let decided =
        policy.admit(&grants, target, operation).and_then(|admission| admission.permit(&facts, now));
    Ok(decided.map(|permit| {
        let grant = permit.grant();
        held_to(grant).iter().for_each(|line| say(line));
        format!("grant {} decides, {}", grant.name, carried(policy, grant))
    }))
}

/// The same of a connection that is passed through.
fn decide_connection(policy: &Policy, args: &ExplainArgs, authority: &str) -> Result<String, Denial> {
    let end = policy.tunnel(&authority.parse()?)?;
    let target = match end.passage()? {
        Some(Passage::To(target)) => target,
        Some(Passage::ByServerName(_)) => {
            let detail = "the caller's own TLS says which host is meant: ask for that host";
            return Err(Denial::new(Reason::SniMissing, detail));
        }
        None => {
            let detail = "connections are not passed through to this host: it is called by HTTP";
            return Err(Denial::new(Reason::NoGrant, detail));
        }
    };
    let name = &target.destination().name;
    say(&format!("destination: {name} ({}:{})", target.host(), target.port()));
    let grants = policy.grants_of(&assumed(args.caller.clone()));
    let (facts, now) = (Facts::default(), Timestamp::now());
    candidates(policy, &grants, (&target, &Operation::Tunnel, &facts), now).iter().for_each(|line| say(line));
    let permit = policy.admit(&grants, target, Operation::Tunnel)?.permit(&facts, now)?;
    let grant = permit.grant();
    held_to(grant).iter().for_each(|line| say(line));
    Ok(format!("grant {} decides, {}", grant.name, carried(policy, grant)))
}

/// The limits that a call is held to, each in one line: those of its grant, and those of budgets.
fn held_to(grant: &Grant) -> Vec<String> {
    grant
        .limits
        .iter()
        .map(|limit| format!("  held to {}: {}", limit.id, limited(std::slice::from_ref(limit))))
        .collect()
}

/// What a call by this grant has with it, on it and on its connection.
fn carried(policy: &Policy, grant: &Grant) -> String {
    let credential = grant.credential.as_ref().map(|credential| format!("credential {}", credential.name));
    let token = grant.caller_token.as_ref().map(|audience| format!("the caller's own token for {audience}"));
    let shown = policy.client_certificate(&grant.destination);
    let shown = shown.map(|credential| format!("client certificate {}", credential.name));
    let all: Vec<String> = [credential, token, shown].into_iter().flatten().collect();
    if all.is_empty() { "no credential".to_owned() } else { all.join(", ") }
}

/// Without a request, what only S3 signs is told by the keys alone.
fn facts(
    args: &ExplainArgs,
    target: &Target,
    request: &HttpRequest,
    grants: &CallerGrants,
) -> Result<Facts, Denial> {
    let is_for = |grant: &&Arc<Grant>| grant.destination.name == target.destination().name;
    let keys = || grants.iter().filter(is_for).filter_map(|grant| grant.credential.as_ref()?.sigv4());
    let actions = if keys().next().is_none() {
        Actions::default()
    } else {
        let named = args.action.as_deref().map(action_of_target);
        let path = if keys().all(SigV4::is_for_s3) { Vec::new() } else { actions_of_path(request.path()) };
        let query = actions_of_form(request.query().unwrap_or_default().as_bytes());
        Actions::of(named.into_iter().chain(path).chain(query))?
    };
    Ok(Facts { model: args.model.as_deref().map(Into::into), actions, ..Facts::default() })
}

/// How the caller's grants for the destination stand to the call; where it has none, whom the destination's grants are for.
fn candidates(
    policy: &Policy,
    grants: &CallerGrants,
    (target, operation, facts): (&Target, &Operation, &Facts),
    now: Timestamp,
) -> Vec<String> {
    let is_for = |grant: &Grant| grant.destination.name == target.destination().name;
    let traced = policy.trace(grants, target, operation, facts, now);
    let traced = traced.iter().filter(|(grant, _)| is_for(grant));
    let lines: Vec<String> =
        traced.map(|(grant, verdict)| format!("  grant {}: {verdict}", grant.name)).collect();
    if !lines.is_empty() {
        return lines;
    }
    let others = policy.grants().filter(|grant| is_for(grant)).map(|grant| {
        let callers: Vec<String> = grant.callers.iter().map(ToString::to_string).collect();
        format!("  grant {}: callers are {}", grant.name, callers.join(", "))
    });
    others.collect()
}

/// Authority, raw path and query: not through a URL parser, which would mend what the gateway refuses.
fn split(url: &str) -> anyhow::Result<(&str, &str, Option<&str>)> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .with_context(|| format!("--url: `{url}` is no http(s) URL, nor tcp://HOST:PORT"))?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '*', '#']).unwrap_or(rest.len()));
    if authority.is_empty() {
        bail!("--url: no host in it");
    }
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    Ok((authority, if path.is_empty() { "/" } else { path }, query))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tollgate_policy::compile::{Compiled, compile_files};
    use tollgate_policy::model::SourceFile;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn resource(kind: &str, name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: tollgate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
        )
    }

    fn explained(caller: &str) -> Vec<String> {
        let text = [
            resource("Destination", "up", "hosts: [up.example]"),
            resource("Destination", "other", "hosts: [other.example]"),
            resource(
                "Grant",
                "shop-up",
                "callers: [{spiffe: 'spiffe://prod.acme/ns/shop/sa/*'}], destination: up",
            ),
            resource(
                "Grant",
                "all-other",
                "callers: [{spiffe: 'spiffe://prod.acme/**'}], destination: other",
            ),
        ];
        let file = SourceFile { path: "a.yaml".into(), text: text.concat() };
        let environment = app::environment_of(&[], &["prod.acme".to_owned()]).unwrap();
        let Compiled { policy, .. } = compile_files(&[file], &environment).unwrap();
        let line = ["explain", "--caller", caller, "--url", "https://up.example/v1"];
        let args = Line::try_parse_from(line).unwrap().args;
        let line = RequestLine { authority: "up.example", method: "POST", path: "/v1", query: None };
        let (target, request) = policy.resolve(&line).unwrap();
        let grants = policy.grants_of(&assumed(args.caller.clone()));
        let facts = facts(&args, &target, &request, &grants).unwrap();
        candidates(&policy, &grants, (&target, &Operation::Http(request), &facts), Timestamp::now())
    }

    #[test]
    fn what_a_call_has_with_it_is_named_whole() {
        let grant = |name: &str, spec: &str| {
            let spec = format!(
                "callers: [{{spiffe: 'spiffe://prod.acme/{name}'}}], allow: {{methods: [GET], paths: ['/**']}}, {spec}"
            );
            resource("Grant", name, &spec)
        };
        let credential =
            |name: &str, spec: &str| resource("Credential", name, &format!("destinations: [up], {spec}"));
        let text = [
            resource("Destination", "up", "hosts: [up.example], tls: {clientCertificate: partner}"),
            resource("Destination", "bare", "hosts: [bare.example]"),
            resource("SecretStore", "files", "file: {root: /run/secrets}"),
            credential(
                "partner",
                "from: {store: files, path: a, fields: [c, k]}, inject: {clientCertificate: {certificate: c, key: k}}",
            ),
            credential("key", "from: {store: files, path: b}, inject: {header: {name: x-key}}"),
            grant("all", "destination: up, credential: key, callerToken: {audience: 'https://up.example'}"),
            grant("shown", "destination: up"),
            grant("bare", "destination: bare"),
        ];
        let file = SourceFile { path: "a.yaml".into(), text: text.concat() };
        let environment = app::environment_of(&[], &["prod.acme".to_owned()]).unwrap();
        let Compiled { policy, .. } = compile_files(&[file], &environment).unwrap();
        let carried = |name: &str| {
            let grant = policy.grants().find(|grant| grant.name.as_str() == name).unwrap();
            carried(&policy, grant)
        };
        assert_eq!(
            carried("all"),
            "credential key, the caller's own token for https://up.example, client certificate partner"
        );
        assert_eq!((&*carried("shown"), &*carried("bare")), ("client certificate partner", "no credential"));
    }

    #[test]
    fn a_caller_without_a_grant_sees_whom_the_destination_is_for_and_no_other_destination() {
        assert_eq!(
            explained("spiffe://prod.acme/ns/web/sa/a"),
            ["  grant shop-up: callers are spiffe://prod.acme/ns/shop/sa/*"]
        );
        assert_eq!(explained("spiffe://prod.acme/ns/shop/sa/a"), ["  grant shop-up: decides, and permits"]);
    }
}
