//! `tollgate access approve`: says what a grant is now, and writes the consent to exactly that.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use tollgate_policy::access::{allowed, limited, reading};
use tollgate_policy::hash::GrantHash;
use tollgate_policy::name::ResourceId;
use tollgate_policy::path::EncodedForm;
use tollgate_policy::policy::{Approval, Grant, Policy, Scrub, TlsVerify, Unpriced};
use tollgate_secrets::digest::sha256;

use super::policy;
use crate::cli::check::CheckArgs;
use crate::cli::{complain, say};
use crate::credentials;
use crate::table::visible;

/// The longest name of an object that is a label (RFC 1123).
const LONGEST_NAME: usize = 63;
/// Digits of a hash that tell names from each other.
const DIGITS: usize = 8;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate access approve shop/web
  tollgate access approve shop/web resources --trust-domain prod.acme --write resources/approvals/shop-web.yaml
  tollgate access approve shop/web | kubectl apply -f -")]
pub(super) struct ApproveArgs {
    /// The grant, as NAMESPACE/NAME
    #[arg(value_name = "GRANT")]
    grant: ResourceId,
    #[command(flatten)]
    configuration: CheckArgs,
    /// Write it there, instead of to standard output
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

pub(super) fn run(args: &ApproveArgs) -> anyhow::Result<()> {
    let policy = policy(&args.configuration)?;
    let Some(grant) = policy.grants().find(|grant| grant.name == args.grant) else {
        bail!("there is no Grant `{}` (`tollgate access list` shows all of them)", args.grant);
    };
    let destination = &grant.destination.name;
    match grant.approval {
        Approval::NotRequired => {
            bail!(
                "Destination/{destination} demands no approval (`approval: required`), so one would have no effect"
            )
        }
        Approval::Given => complain(&format!("note: grant {} is approved as it is", grant.name)),
        Approval::Lacking => {}
    }
    described(&policy, grant).iter().for_each(|line| complain(line));
    let document = document(grant, &policy.hash(grant));
    match &args.write {
        None => say(document.trim_end()),
        Some(file) => {
            std::fs::write(file, document).with_context(|| file.display().to_string())?;
            complain(&format!("written to {}", file.display()));
        }
    }
    Ok(())
}

/// All that is approved, a line for each part of it.
fn described(policy: &Policy, grant: &Grant) -> Vec<String> {
    let destination = &grant.destination;
    let join = |texts: Vec<String>| texts.join(", ");
    let hosts = join(destination.hosts.iter().map(ToString::to_string).collect());
    let verified = match &destination.tls {
        TlsVerify::System => String::new(),
        TlsVerify::Bundle(file) => format!(", verified by {}", file.display()),
    };
    let dialled = match &*destination.addresses {
        [] => String::new(),
        some => format!(", dialled at {}", join(some.iter().map(ToString::to_string).collect())),
    };
    let sources = match destination.sources.rules() {
        None => String::new(),
        Some(_) => format!(", calls leave from {}", destination.sources),
    };
    let mut lines = vec![format!("grant {}", grant.name)];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<13}{}", visible(&text)));
    grant.callers.iter().for_each(|caller| line("caller", caller.to_string()));
    line(
        "destination",
        format!("{}: {hosts}, port {}{verified}{dialled}{sources}", destination.name, destination.port),
    );
    if let Some(shown) = policy.client_certificate(destination) {
        line("certificate", format!("{}, read at {}", shown.name, reading(shown)));
    }
    match &grant.credential {
        Some(key) => {
            line(
                "credential",
                format!(
                    "{}, read at {}, put on as {}",
                    key.name,
                    reading(key),
                    credentials::inject(&key.inject)
                ),
            );
        }
        None => line("credential", "none".to_owned()),
    }
    if let Some(audience) = &grant.caller_token {
        line("token", format!("the caller's own for {audience} is passed on"));
    }
    line("may call", allowed(&grant.allow));
    line("how much", limited(&grant.limits));
    bounds(grant).into_iter().for_each(|(name, text)| line(name, text));
    lines
}

/// What else decides how far calls may go, where it is not as in most grants.
fn bounds(grant: &Grant) -> Vec<(&'static str, String)> {
    let mut bounds = Vec::new();
    if let Some(assume) = grant.assume {
        let (input, output) = (assume.input_tokens, assume.output_tokens);
        bounds.push((
            "assume",
            format!("calls that nothing bounds are held at {input} tokens in and {output} out"),
        ));
    }
    if let Some(cap) = grant.default_output_cap {
        bounds.push(("cap", format!("{cap} tokens, of calls without one")));
    }
    match grant.unpriced {
        Unpriced::Deny => {}
        Unpriced::Dearest => {
            bounds.push(("unpriced", "models without a price, charged as the dearest".to_owned()));
        }
        Unpriced::Flag => bounds.push(("unpriced", "models without a price, for nothing".to_owned())),
    }
    if let Some(http) = grant.destination.http() {
        let forms: Vec<&str> = http.encoded_path.iter().map(EncodedForm::as_str).collect();
        if !forms.is_empty() {
            bounds.push(("paths", format!("with {}", forms.join(", "))));
        }
        if http.scrub == Scrub::Headers {
            bounds.push(("answers", "keys in bodies are not masked".to_owned()));
        }
    }
    if let Some(why) = &grant.suspended {
        bounds.push(("suspended", why.to_string()));
    }
    bounds
}

fn document(grant: &Grant, hash: &GrantHash) -> String {
    let namespace = grant.destination.name.namespace();
    let whose = format!("{}/{}", grant.name.namespace(), grant.name.name());
    // No other grant's approval has this name, wherever the border between namespace and name is.
    let mut name = whose.replace('/', "-");
    name.truncate(LONGEST_NAME - DIGITS - 1);
    let digest = sha256(whose.as_bytes());
    let name = format!("{name}-{}", digest.get(..DIGITS).unwrap_or_default());
    format!(
        "apiVersion: tollgate.dev/v1alpha1\nkind: Approval\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  grant: {whose}\n  hash: {hash}\n"
    )
}
