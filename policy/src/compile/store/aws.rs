//! AWS Secrets Manager: where it is, who the gateway is there, and which secret of it is meant.

use super::super::Scope;
use super::file_path;
use super::vault::vault_address;
use crate::model::{AwsSpec, FromSpec};
use crate::resource::AwsStore;

pub(super) fn store(aws: &AwsSpec, scope: &mut Scope<'_>) -> Option<AwsStore> {
    let what = "the region that the secrets are in, as in `eu-central-1`";
    let region = scope.required("spec.aws.region", aws.region.clone(), what);
    if region.as_ref().is_some_and(|region| !is_region(region)) {
        scope.problem("spec.aws.region", "a region is small letters, digits and `-`, as in `eu-central-1`");
    }
    let endpoint = aws.endpoint.as_deref().map(|endpoint| {
        vault_address(endpoint).unwrap_or_else(|message| {
            scope.problem("spec.aws.endpoint", message);
            String::new()
        })
    });
    let mut file = |path, written: &Option<String>, what| match written {
        Some(_) => file_path(scope, path, written, what),
        None => None,
    };
    let ca = file("spec.aws.caFile", &aws.ca_file, "a file with certificates in PEM");
    let what = "a file with access keys, in the form of `~/.aws/credentials`";
    let credentials_file = file("spec.aws.credentialsFile", &aws.credentials_file, what);
    let profile = aws.profile.clone();
    if profile.as_ref().is_some_and(|name| name.is_empty() || name.chars().any(char::is_control)) {
        scope.problem("spec.aws.profile", "a profile needs a name");
    }
    let role_arn = aws.role_arn.clone();
    if role_arn.as_ref().is_some_and(|role| !is_role(role)) {
        scope.problem("spec.aws.roleArn", "a role is named as in `arn:aws:iam::123456789012:role/tollgate`");
    }
    Some(AwsStore { region: region?, endpoint, ca, credentials_file, profile, role_arn })
}

/// The path is a name or an ARN: <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html>.
pub(super) fn check_reference((at, from): (&str, &FromSpec), store: &AwsStore, scope: &mut Scope<'_>) {
    let field = |field: &str| format!("{at}.{field}");
    if let Some(Err(message)) = from.path.as_ref().map(|path| check_path(path, &store.region)) {
        scope.problem(&field("path"), message);
    }
    if from.stage.as_ref().is_some_and(|stage| !is_label(stage, 1..=256)) {
        scope.problem(&field("stage"), "a stage is a staging label, as in `AWSCURRENT` or `AWSPREVIOUS`");
    }
    if from.version_id.as_ref().is_some_and(|id| !is_label(id, 32..=64)) {
        let message = "a version id is 32 to 64 letters, digits and `-`, as AWS says it";
        scope.problem(&field("versionId"), message);
    }
    if from.stage.is_some() && from.version_id.is_some() {
        scope.problem(&field("stage"), "`versionId` names one version already: leave one of the two out");
    }
}

fn check_path(path: &str, region: &str) -> Result<(), String> {
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 512
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+=.@-".contains(&b))
    };
    let Some(arn) = path.strip_prefix("arn:") else {
        return if is_name(path) {
            Ok(())
        } else {
            Err("a secret's name is letters, digits and any of / _ + = . @ -, or it is its whole ARN".into())
        };
    };
    match arn.split(':').collect::<Vec<_>>().as_slice() {
        [_, "secretsmanager", there, _, "secret", name] if is_name(name) => {
            if *there == region {
                return Ok(());
            }
            Err(format!("this secret is in `{there}`, and its store reads `{region}`"))
        }
        _ => Err("an ARN is `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`".into()),
    }
}

/// It becomes a part of the endpoint's host.
fn is_region(region: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&region.len()) && region.bytes().all(is_part) && !region.starts_with('-')
}

fn is_role(role: &str) -> bool {
    let parts: Vec<_> = role.splitn(6, ':').collect();
    matches!(parts.as_slice(), ["arn", _, "iam", "", account, name]
        if account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit())
            && name.starts_with("role/") && name.bytes().all(|b| b.is_ascii_graphic()))
}

/// Letters, digits and what labels have between them.
fn is_label(label: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+=@:".contains(&b))
}
