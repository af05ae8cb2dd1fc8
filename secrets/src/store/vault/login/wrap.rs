//! A secret id that was handed over wrapped: <https://openbao.org/docs/concepts/response-wrapping/>.
//!
//! **Invariant:** a wrapping token is shown to the vault once. One that was used before, or wraps something else than
//! a secret id of this AppRole, is an alarm, never a login. The secret id stays in memory: after a restart a new
//! wrapping token is needed.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;
use tracing::error;
use zeroize::Zeroizing;

use super::super::answer;
use super::super::client::{Client, Question, json};
use crate::error::Failure;
use crate::read::login_file;

const USED: &str = "the wrapping token of the secret id is used or expired: unless this gateway used it before a restart, \
                    somebody else has read the secret id; destroy that one and wrap a new one";
const FOREIGN: &str = "the wrapping token holds no secret id of this AppRole: somebody may have put it in the place of the real one, \
                       and read that; destroy the secret id and wrap a new one";

pub(super) struct Wrapped {
    client: Arc<Client>,
    last: Mutex<Option<Last>>,
}

/// The token that was in the file when it was last shown to the vault, and what came of it.
struct Last {
    token: Zeroizing<Vec<u8>>,
    outcome: Result<Zeroizing<Vec<u8>>, Failure>,
}

impl Wrapped {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client, last: Mutex::new(None) }
    }

    /// The secret id, unwrapped where the file has a token that was not seen before.
    pub(super) async fn secret_id(&self, mount: &str, file: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
        // Held while asking: two logins at once must not both show the token.
        let mut last = self.last.lock().await;
        let read = login_file(file.to_owned(), "the file with the wrapping token cannot be read").await;
        let token = match (read, last.as_ref()) {
            (Ok(token), Some(last)) if token == last.token => return last.outcome.clone(),
            // Whoever removes a used token does well.
            (Err(_), Some(last)) => return last.outcome.clone(),
            (read, _) => read?,
        };
        let outcome = self.unwrapped(mount, &token).await;
        match outcome {
            Ok(_) => {}
            Err(Failure::Login(why)) => error!(file = %file.display(), "{why}"),
            // The vault did not answer, and may have to be asked once more.
            Err(failure) => return Err(failure),
        }
        let outcome = &last.insert(Last { token, outcome }).outcome;
        outcome.clone()
    }

    async fn unwrapped(&self, mount: &str, token: &[u8]) -> Result<Zeroizing<Vec<u8>>, Failure> {
        // Looking does not use it up. The vault keeps the path whose answer it wrapped, through every rewrapping.
        let lookup = Question::post(&self.client, "sys/wrapping/lookup")?;
        let answer = self.client.ask(&lookup, None, Some(json(&[("token", token)])?)).await?;
        match answer.status {
            200 => {}
            400 | 403 | 404 => return Err(Failure::Login(USED)),
            503 => return Err(Failure::Sealed),
            status => return Err(Failure::Status(status)),
        }
        let path = answer::wrapped_path(&answer.body)?;
        let below =
            self.client.namespace().and_then(|namespace| path.strip_prefix(namespace.trim_matches('/')));
        let path = below.and_then(|path| path.strip_prefix('/')).unwrap_or(path);
        if !is_secret_id(path, mount) {
            return Err(Failure::Login(FOREIGN));
        }
        let header = answer::header(Zeroizing::new(token.to_vec()))?;
        let unwrap = Question::post(&self.client, "sys/wrapping/unwrap")?;
        let answer = self.client.ask(&unwrap, Some(&header), Some(json(&[])?)).await?;
        match answer.status {
            200 => answer::secret_id(&answer.body),
            400 | 403 | 404 => Err(Failure::Login(USED)),
            503 => Err(Failure::Sealed),
            status => Err(Failure::Status(status)),
        }
    }
}

/// `auth/MOUNT/role/NAME/secret-id` or its custom form.
fn is_secret_id(path: &str, mount: &str) -> bool {
    let role = path.strip_prefix(&format!("auth/{mount}/role/"));
    let end = role.and_then(|role| role.split_once('/')).map(|(_, end)| end);
    matches!(end, Some("secret-id" | "custom-secret-id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_secret_id_of_the_same_mount_is_one() {
        for (path, expected) in [
            ("auth/approle/role/tollgate/secret-id", true),
            ("team/auth/approle/role/tollgate/secret-id", false),
            ("auth/approle/role/tollgate/custom-secret-id", true),
            ("auth/other/role/tollgate/secret-id", false),
            ("auth/approle/role/tollgate/role-id", false),
            ("sys/wrapping/wrap", false),
            ("secret/data/auth/approle/role/tollgate/secret-id", false),
        ] {
            assert_eq!(is_secret_id(path, "approle"), expected, "{path}");
        }
    }
}
