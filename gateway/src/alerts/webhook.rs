//! Messages to whoever the settings name, signed as the Standard Webhooks specification (version 1.0.0) has it.
//!
//! **Invariant:** the secret is read from its file for each message, and is in no error.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;
use tollgate_secrets::PostClient;
use zeroize::Zeroizing;

use crate::settings::WebhookSettings;
use crate::upstream::DialRules;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const NO_SECRET: &str =
    "it is no secret of a webhook: `whsec_` and 24 to 64 bytes in base64, as of `openssl rand -base64 32`";

/// Who is sent messages.
pub(crate) struct Webhook {
    client: PostClient,
    url: String,
    secret_file: PathBuf,
}

/// Why a message was not taken.
#[derive(Debug)]
pub(super) enum Undelivered {
    /// It may be sent again, after this long where the receiver says so.
    Again(String, Option<Duration>),
    Never(String),
}

impl Webhook {
    pub(crate) fn new(settings: &WebhookSettings, rules: DialRules) -> Self {
        Self {
            client: PostClient::new(
                settings.ca_file.clone(),
                std::sync::Arc::new(move |at| rules.allows(at)),
            ),
            url: settings.url.clone(),
            secret_file: settings.secret_file.clone(),
        }
    }

    pub(super) async fn post(&self, id: &str, body: &str) -> Result<(), Undelivered> {
        let file = self.secret_file.clone();
        let key = tokio::task::spawn_blocking(move || key_in(&file)).await;
        let key = key.unwrap_or_else(|_| Err("the secret could not be read".to_owned()));
        let key = key.map_err(|why| Undelivered::Again(why, None))?;
        let headers = headers(&key, id, Timestamp::now().as_second(), body)
            .ok_or_else(|| Undelivered::Never("the message has no headers".to_owned()))?;
        let answer = self.client.post(&self.url, headers, body.as_bytes().to_vec()).await;
        let answer = answer.map_err(|failure| Undelivered::Again(failure.to_string(), None))?;
        match answer.status {
            200..300 => Ok(()),
            status @ (408 | 429 | 500..600) => {
                Err(Undelivered::Again(format!("status {status}"), answer.retry_after))
            }
            status => Err(Undelivered::Never(format!("status {status}"))),
        }
    }
}

fn headers(key: &[u8], id: &str, seconds: i64, body: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &str| {
        let value = HeaderValue::from_str(value).ok()?;
        headers.insert(HeaderName::from_static(name), value);
        Some(())
    };
    set("webhook-id", id)?;
    set("webhook-timestamp", &seconds.to_string())?;
    set("webhook-signature", &signature(key, id, seconds, body))?;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let agent = concat!("tollgate/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    Some(headers)
}

/// HMAC-SHA256 over id, time of the attempt and body.
fn signature(key: &[u8], id: &str, seconds: i64, body: &str) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in [id, ".", &seconds.to_string(), ".", body] {
        context.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(context.sign()))
}

fn key_in(file: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let text = std::fs::read_to_string(file).map(Zeroizing::new);
    let text = text.map_err(|error| format!("{}: {error}", file.display()))?;
    key(&text).ok_or_else(|| format!("{}: {NO_SECRET}", file.display()))
}

fn key(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let key = Zeroizing::new(STANDARD.decode(text.trim().strip_prefix(PREFIX)?).ok()?);
    KEY_BYTES.contains(&key.len()).then_some(key)
}

/// What keeps the file from being a secret of a webhook; `None` also where there is none, which is told of otherwise.
pub(crate) fn secret_problem(file: &Path) -> Option<String> {
    file.exists().then(|| key_in(file).err()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The example of the specification's own libraries.
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let headers = headers(&key, "msg_1", 5, "{}").unwrap();
        assert!(headers["webhook-id"] == "msg_1" && headers["webhook-timestamp"] == "5");
        assert_eq!(headers["webhook-signature"], signature(&key, "msg_1", 5, "{}"));
    }

    #[test]
    fn a_secret_has_its_form_and_enough_bytes() {
        let of = |bytes: usize| format!("{PREFIX}{}", STANDARD.encode(vec![7; bytes]));
        assert!(key(&of(24)).is_some() && key(&of(64)).is_some());
        assert!(key(&of(23)).is_none() && key(&of(65)).is_none() && key(&STANDARD.encode([7; 32])).is_none());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        assert_eq!(secret_problem(&file), None);
        std::fs::write(&file, "hunter2").unwrap();
        let problem = secret_problem(&file).unwrap();
        assert!(problem.contains("whsec_") && !problem.contains("hunter2"), "{problem}");
    }
}
