//! `tollgate credential refresh`: the running gateway asks the store of a credential at once, and what it refused to ask again too.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::Gateway;
use crate::cli::admin;
use crate::cli::check::Subject;
use crate::cli::say;
use crate::credentials::RefreshOutcome;
use crate::table::visible;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate credential refresh openai-prod    # a new key is stored: take it now")]
pub(super) struct RefreshArgs {
    /// The credential
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    gateway: Gateway,
    /// Where the gateway's admin port listens, where the settings leave the port to the system
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

pub(super) fn run(args: &RefreshArgs) -> anyhow::Result<ExitCode> {
    let (settings, _) = Subject::of_settings(args.gateway.config.clone())?;
    let address = args.admin.unwrap_or(settings.admin.address);
    let name = &args.name;
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b)) {
        bail!("there is no credential `{}`", visible(name));
    }
    let path = format!("/credentials/{name}/refresh");
    let Some(body) = admin::post(address, &settings.admin.token_file, &path)? else {
        bail!("no gateway answers at {address}: there is none to fetch it");
    };
    let done: Vec<RefreshOutcome> = serde_json::from_slice(&body)
        .with_context(|| format!("the gateway at {address} is of another version"))?;
    done.iter().for_each(|key| say(&line(name, key)));
    let failed = done.iter().any(|key| key.failure.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn line(name: &str, key: &RefreshOutcome) -> String {
    let name = key.alias.as_ref().map_or_else(|| name.to_owned(), |alias| format!("{name} {alias}"));
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".to_owned());
    let said = match (&key.failure, &key.version) {
        (Some(failure), Some(used)) => format!("FAILED: {failure}; calls still get version {used}"),
        (Some(failure), None) => format!("FAILED: {failure}"),
        (None, _) if key.changed => format!("version {} → {}", version(&key.before), version(&key.version)),
        (None, _) => format!("version {}, as before", version(&key.version)),
    };
    visible(&format!("{name}: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_calls_get_now_and_why() {
        let text = |text: &str| Some(text.to_owned());
        let key = |before, version, changed, failure| RefreshOutcome {
            alias: None,
            before,
            version,
            changed,
            failure,
        };
        for (key, expected) in [
            (key(text("6"), text("7"), true, None), "k: version 6 → 7"),
            (key(None, text("7"), true, None), "k: version none → 7"),
            (key(text("7"), text("7"), false, None), "k: version 7, as before"),
            (
                key(text("7"), text("7"), false, text("timed out")),
                "k: FAILED: timed out; calls still get version 7",
            ),
            (key(text("7"), None, true, text("gone")), "k: FAILED: gone"),
        ] {
            assert_eq!(line("k", &key), expected);
        }
        let pool = RefreshOutcome { alias: text("b"), ..key(None, text("1"), true, None) };
        assert_eq!(line("k", &pool), "k b: version none → 1");
    }
}
