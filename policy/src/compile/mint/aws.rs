//! Sessions of AWS roles: what STS would refuse is said before it is asked
//! (<https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>).

use std::time::Duration;

use crate::compile::Scope;
use crate::model::{AwsAssumeRoleSpec, AwsWebIdentitySpec, FromSpec, Interval};
use crate::name::ResourceId;
use crate::resource::{AwsKey, AwsSession, TokenEndpoint, TokenGrant};

const SHORTEST: Duration = Duration::from_secs(15 * 60);
const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// Characters of a session's name, and of its policy.
const LONGEST_NAME: usize = 64;
const LONGEST_POLICY: usize = 2048;

/// What both ways to ask for a session have.
struct WrittenRole<'a> {
    role_arn: Option<&'a String>,
    name: Option<&'a String>,
    policy: Option<&'a String>,
    duration: Option<Interval>,
}

/// Whether the credential's `mint` makes a session, also where it is not written well.
pub(in crate::compile) fn makes_session(scope: &Scope<'_>) -> bool {
    ["awsAssumeRole", "awsWebIdentity"].iter().any(|way| scope.source.has(&format!("spec.mint.{way}")))
}

pub(super) fn assume_role(
    (credential, role): (&ResourceId, &AwsAssumeRoleSpec),
    froms: &[(String, &FromSpec)],
    endpoint: Option<&TokenEndpoint>,
    scope: &mut Scope<'_>,
) -> Option<TokenGrant> {
    let at = "spec.mint.awsAssumeRole";
    let key = key((at, role), froms, scope);
    let region = region(&format!("{at}.region"), role.region.as_ref(), endpoint, scope);
    let external = role.external_id.as_ref();
    let is_plain = |text: &String| {
        (2..=1224).contains(&text.len()) && text.bytes().all(|b| is_word(b) || b == b':' || b == b'/')
    };
    if external.is_some_and(|id| !is_plain(id)) {
        let message = "an external id is 2 to 1224 letters, digits, or any of _ + = , . @ : / -";
        scope.problem(&format!("{at}.externalId"), message);
    }
    let AwsAssumeRoleSpec { role_arn, session_name, session_policy, duration, .. } = role;
    let (role_arn, name, policy) = (role_arn.as_ref(), session_name.as_ref(), session_policy.as_ref());
    let session =
        session((at, credential), &WrittenRole { role_arn, name, policy, duration: *duration }, scope);
    Some(TokenGrant::AwsAssumeRole {
        key: key?,
        region: region?,
        external_id: external.cloned(),
        session: session?,
    })
}

pub(super) fn web_identity(
    (credential, role): (&ResourceId, &AwsWebIdentitySpec),
    scope: &mut Scope<'_>,
) -> Option<TokenGrant> {
    let AwsWebIdentitySpec { role_arn, session_name, session_policy, duration } = role;
    let (role_arn, name, policy) = (role_arn.as_ref(), session_name.as_ref(), session_policy.as_ref());
    let written = WrittenRole { role_arn, name, policy, duration: *duration };
    session(("spec.mint.awsWebIdentity", credential), &written, scope).map(TokenGrant::AwsWebIdentity)
}

/// The two fields of each `from` that are the key, and no other.
fn key(
    (at, role): (&str, &AwsAssumeRoleSpec),
    froms: &[(String, &FromSpec)],
    scope: &mut Scope<'_>,
) -> Option<AwsKey> {
    let named = [
        ("accessKeyId", &role.access_key_id, "the field with the access key's id"),
        ("secretAccessKey", &role.secret_access_key, "the field with the secret access key"),
    ];
    let [id, secret] = named.map(|(field, name, what)| {
        let path = format!("{at}.{field}");
        let name = scope.required(&path, name.clone(), what)?;
        for (from_path, _) in
            froms.iter().filter(|(_, from)| !from.fields.values().any(|field| *field == name))
        {
            let message = format!("`{from_path}.fields` has to name `{name}`, and the other half of the key");
            scope.problem(&path, message);
        }
        Some(name)
    });
    let (id, secret) = (id?, secret?);
    for (from_path, from) in froms {
        for (index, field) in from.fields.iter().filter(|(_, field)| **field != id && **field != secret) {
            scope.problem(
                &format!("{from_path}.fields[{index}]"),
                format!("the key has no part in `{field}`"),
            );
        }
    }
    if id == secret {
        scope.problem(&format!("{at}.secretAccessKey"), format!("`{id}` is the key's id already"));
    }
    Some(AwsKey { access_key_id: id, secret_access_key: secret })
}

/// The region whose endpoint it is: AWS's own names say it.
fn region(
    path: &str,
    written: Option<&String>,
    endpoint: Option<&TokenEndpoint>,
    scope: &mut Scope<'_>,
) -> Option<String> {
    let host = &*endpoint?.host;
    let own = match host.strip_suffix(".cn").unwrap_or(host).strip_suffix(".amazonaws.com") {
        // The global endpoint.
        Some("sts") => Some("us-east-1"),
        Some(name) => name.strip_prefix("sts.").or_else(|| name.strip_prefix("sts-fips.")),
        None => None,
    };
    match (written, own) {
        (Some(region), Some(own)) if region != own => {
            scope.problem(path, format!("{host} is of the region `{own}`"));
            None
        }
        (Some(region), _) => {
            let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if region.is_empty() || !region.bytes().all(is_plain) {
                scope.problem(path, "a region is lower-case letters, digits and `-`");
            }
            Some(region.clone())
        }
        (None, Some(own)) => Some(own.to_owned()),
        (None, None) => {
            scope.required(path, None, "the region to sign for, which this endpoint's host does not say")
        }
    }
}

fn session(
    (at, credential): (&str, &ResourceId),
    written: &WrittenRole<'_>,
    scope: &mut Scope<'_>,
) -> Option<AwsSession> {
    let what = "the role, as in `arn:aws:iam::123456789012:role/reader`";
    let arn_path = format!("{at}.roleArn");
    let role_arn = scope.required(&arn_path, written.role_arn, what);
    if role_arn.is_some_and(|arn| !is_role(arn)) {
        scope.problem(
            &arn_path,
            "this is not the ARN of a role, as in `arn:aws:iam::123456789012:role/reader`",
        );
    }
    let is_name = |name: &String| (2..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_word);
    if written.name.is_some_and(|name| !is_name(name)) {
        let message = "a session's name is 2 to 64 letters, digits, or any of _ + = , . @ -";
        scope.problem(&format!("{at}.sessionName"), message);
    }
    let policy_path = format!("{at}.sessionPolicy");
    let is_policy = |policy: &String| {
        policy.len() <= LONGEST_POLICY
            && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(policy).is_ok()
    };
    if written.policy.is_some_and(|policy| !is_policy(policy)) {
        scope.problem(&policy_path, "a session policy is a JSON object of at most 2048 characters");
    }
    let duration = written.duration.map(|Interval(duration)| duration);
    let lasts = |duration: Duration| (SHORTEST..=LONGEST).contains(&duration) && duration.subsec_nanos() == 0;
    if duration.is_some_and(|duration| !lasts(duration)) {
        scope.problem(&format!("{at}.duration"), "a session lasts from 15m to 12h, in whole seconds");
    }
    let own = || format!("tollgate-{credential}").replace('/', ".").chars().take(LONGEST_NAME).collect();
    Some(AwsSession {
        role_arn: role_arn?.clone(),
        name: written.name.cloned().unwrap_or_else(own),
        policy: written.policy.cloned(),
        duration,
    })
}

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns>
fn is_role(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, resource] = *parts else { return false };
    partition.starts_with("aws")
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && resource.strip_prefix("role/").is_some_and(|name| !name.is_empty())
        && resource.bytes().all(|b| is_word(b) || b == b'/')
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'=' | b',' | b'.' | b'@' | b'-')
}
