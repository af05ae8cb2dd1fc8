//! Who is told of what happens to budgets.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::Uri;
use schemars::JsonSchema;
use serde::Deserialize;

/// Who is told of what happens to budgets.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AlertSettings {
    /// Who is sent a message for each [threshold of a budget](#thresholds-of-budgets). Without it nobody.
    pub webhook: Option<WebhookSettings>,
}

/// Who is sent messages.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WebhookSettings {
    /// Where messages go, with `https`, or with `http` to a loopback address. A private address has to be in `egress.privateRanges`.
    pub url: String,
    /// The file with the secret that messages are signed with: `whsec_` and 24 to 64 bytes in base64. It is read for each message.
    pub secret_file: PathBuf,
    /// The PEM file with the certificate authorities that verify the receiver. Without it the system's.
    pub ca_file: Option<PathBuf>,
}

impl AlertSettings {
    /// Makes the files those of `base`, where they are relative.
    pub(super) fn based(mut self, base: &Path) -> Self {
        if let Some(webhook) = &mut self.webhook {
            webhook.secret_file = base.join(&webhook.secret_file);
            webhook.ca_file = webhook.ca_file.take().map(|file| base.join(file));
        }
        self
    }

    /// The receiver's address, where the URL writes it out.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        host(&self.webhook.as_ref()?.url.parse().ok()?)?.parse().ok()
    }

    /// Fields that cannot be used, with what is wrong.
    pub(super) fn problems(&self) -> Vec<(&'static str, &'static str)> {
        let wrong = self.webhook.as_ref().and_then(|webhook| url_problem(&webhook.url));
        wrong.map(|message| ("webhook.url", message)).into_iter().collect()
    }
}

/// The host, an address without its brackets.
fn host(url: &Uri) -> Option<&str> {
    url.host().map(|host| host.trim_start_matches('[').trim_end_matches(']'))
}

fn url_problem(url: &str) -> Option<&'static str> {
    const FORM: &str = "write a URL, as in https://hooks.example.com/tollgate";
    let Ok(parsed) = url.parse::<Uri>() else { return Some(FORM) };
    let (Some(scheme), Some(authority), Some(host)) =
        (parsed.scheme_str(), parsed.authority(), host(&parsed))
    else {
        return Some(FORM);
    };
    if authority.as_str().contains('@') {
        return Some("a user in a URL ends up in logs: the receiver knows the gateway by its signature");
    }
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match scheme {
        "https" => None,
        "http" if is_loopback => None,
        "http" => Some("over http whoever is between can read and hold back messages: write it with https"),
        _ => Some(FORM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_over_tls_or_stay_on_the_machine() {
        for good in [
            "https://hooks.example.com/tollgate?team=a",
            "http://127.0.0.1:9/x",
            "http://[::1]:9",
            "http://localhost:9",
        ] {
            assert_eq!(url_problem(good), None, "{good}");
        }
        for wrong in ["hooks.example.com", "ftp://a", "http://hooks.example.com", "https://u:p@a", "", "/x"] {
            assert!(url_problem(wrong).is_some(), "{wrong}");
        }
    }
}
