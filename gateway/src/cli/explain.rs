//! `tollgate explain`: the decision on a call, made by the code that makes it for real.

use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use tollgate_policy::caller::SpiffeId;
use tollgate_policy::decision::Facts;
use tollgate_policy::denial::Denial;
use tollgate_policy::policy::Policy;
use tollgate_policy::target::RequestLine;

use super::check::{self, CheckArgs};
use super::say;
use crate::app;
use crate::identity;
use crate::snapshot::{ResourceFiles, Snapshot};

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    #[command(flatten)]
    configuration: CheckArgs,
    /// Who calls, e.g. spiffe://prod.acme/ns/checkout/sa/api
    #[arg(long, value_name = "SPIFFE-ID")]
    caller: SpiffeId,
    /// The method
    #[arg(long, default_value = "POST")]
    method: String,
    /// What is called: the destination's own URL, or the gateway's with the destination as the first path segment
    #[arg(long)]
    url: String,
    /// The model that the body names
    #[arg(long)]
    model: Option<String>,
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let (environment, directory) = check::subject(&args.configuration)?;
    let files = ResourceFiles::new(directory).read()?;
    let (snapshot, _) = Snapshot::build(&files, &environment, None)
        .map_err(|problems| anyhow!("{}", app::lines(&problems)))?;
    match decide(&snapshot.policy, args)? {
        Ok(grant) => {
            say(&format!("allowed: {grant}"));
            Ok(ExitCode::SUCCESS)
        }
        Err(denial) => {
            say(&format!("refused: {}: {}", denial.reason, denial.detail));
            Ok(ExitCode::from(2))
        }
    }
}

fn decide(policy: &Policy, args: &ExplainArgs) -> anyhow::Result<Result<String, Denial>> {
    let (authority, path, query) = split(&args.url)?;
    let line = RequestLine { authority, path, query };
    let grants = policy.grants_of(&identity::assumed(args.caller.clone()));
    let target = match policy.target(&line) {
        Ok(target) => target,
        Err(denial) => return Ok(Err(denial)),
    };
    say(&format!(
        "destination: {} ({}:{}{})",
        target.destination().name,
        target.host(),
        target.port(),
        target.path()
    ));
    let now = Timestamp::now();
    for (grant, verdict) in policy.trace(&grants, &target, &args.method, args.model.as_deref(), now) {
        say(&format!("  grant {}: {verdict}", grant.name));
    }
    let facts = Facts { model: args.model.as_deref().map(Into::into), ..Facts::default() };
    let decided =
        policy.admit(&grants, target, &args.method).and_then(|admission| admission.permit(&facts, now));
    Ok(decided.map(|permit| {
        let credential =
            permit.credential().map_or_else(|| "no credential".into(), |c| format!("credential {}", c.name));
        format!("grant {} decides, {credential}", permit.grant().name)
    }))
}

/// Authority, raw path and query: not through a URL parser, which would mend what the gateway refuses.
fn split(url: &str) -> anyhow::Result<(&str, &str, Option<&str>)> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .context("--url: not an http(s) URL")?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '*', '#']).unwrap_or(rest.len()));
    if authority.is_empty() {
        bail!("--url: no host in it");
    }
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    Ok((authority, if path.is_empty() { "/" } else { path }, query))
}
