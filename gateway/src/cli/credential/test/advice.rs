//! At which step a failure comes up, and what would help.

use tollgate_secrets::Failure;

use super::Step;

/// The step at which this comes up.
pub(super) const fn step(failure: Failure) -> Step {
    match failure {
        Failure::Login(_) | Failure::Decrypt => Step::Login,
        Failure::NotFound | Failure::Denied | Failure::PathRefused(_) | Failure::Status(_) => Step::Secret,
        Failure::FieldMissing | Failure::Malformed(_) => Step::Value,
        Failure::MintRefused(_) | Failure::MintBusy(_) | Failure::MintNonsense(_) => Step::Mint,
        _ => Step::Store,
    }
}

/// What would help.
pub(super) fn help(failure: Failure) -> &'static str {
    match failure {
        Failure::NotFound => {
            "write the secret to that path of the store, or correct spec.from of the Credential"
        }
        Failure::FieldMissing => "name one of the secret's fields in spec.from.field of the Credential",
        Failure::Malformed(_) => "store the value again, as text",
        Failure::Denied => "let the gateway's login read this path, in the store's own policy",
        Failure::PathRefused(_) => "name a path below the store's root in spec.from.path of the Credential",
        Failure::Sealed => "unseal the vault; nothing is wrong on this side",
        Failure::Login(_) => "check auth of the SecretStore, and that what its files hold is still valid",
        Failure::Decrypt => "name the identity that the file was encrypted for in the SecretStore",
        Failure::Timeout | Failure::Unreachable(_) => {
            "check the address of the SecretStore, and that it can be reached from here"
        }
        Failure::Tls(_) => {
            "check caFile of the SecretStore, and that its certificate has the name in address"
        }
        Failure::AddressRefused => "list the store's range in egress.privateRanges of the settings",
        Failure::Status(_) => "look at the store's own log; is the mount right?",
        Failure::File(_) => "check that the files of the SecretStore exist and that this user may read them",
        Failure::Misconfigured(_) => "correct the SecretStore",
        Failure::Foreign(_) => "check the address of the SecretStore, and what stands between it and here",
        Failure::MintRefused(why) => refused(why),
        Failure::MintBusy(_) => "wait and run it again; nothing is wrong on this side",
        Failure::MintNonsense(why) if why.contains("lifetime") => {
            "say in mint what lifetime the endpoint's tokens have"
        }
        Failure::MintNonsense(why) if why.contains("expires_in") || why.contains("year") => {
            "have the endpoint say expires_in as a whole number of seconds, up to a year"
        }
        Failure::MintNonsense(why) if why.contains("token_type") => {
            "ask the endpoint for a bearer token: it answers with another type, or does not say which"
        }
        Failure::MintNonsense(why) if why.contains("16 KiB") => {
            "ask for less in mint.scope: what a provider takes in a header is shorter"
        }
        Failure::MintNonsense(_) => {
            "check that the path of the endpoint in mint is a token endpoint's, and look at its own log"
        }
        _ => "run it again; if it stays, report it",
    }
}

/// By the code of RFC 6749, section 5.2, with which a refusal begins.
fn refused(why: &str) -> &'static str {
    let code = why.split(';').next().unwrap_or_default();
    match code {
        "invalid_client" => {
            "store the client's secret or key that is registered there, and check clientId and auth in mint; a new one is tried at once"
        }
        "invalid_grant" => "store a token or key that is valid now, and check audience and subject in mint",
        "invalid_scope" => "ask in mint.scope for what the client may have",
        "invalid_target" => "check audience and resource in mint",
        "unauthorized_client" | "unsupported_grant_type" => {
            "allow the client this grant at the token endpoint, or use another in mint"
        }
        _ => "check mint of the Credential, and that the token endpoint knows this secret",
    }
}
