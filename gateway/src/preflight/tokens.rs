//! Whether what proves callers by token can be read.

use std::path::Path;

use tollgate_policy::model::Problem;

use super::files::{exposed, unreadable};
use crate::identity::TokenIssuerSettings;
use crate::settings::Settings;

/// What is wrong with the files that the issuers of tokens name.
pub(super) fn files(settings: &Settings, base: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, issuer) in settings.identity.tokens.iter().enumerate() {
        let TokenIssuerSettings { keys, ca_file, token_file, .. } = issuer;
        let named = [("caFile", ca_file), ("tokenFile", token_file), ("keys.file", &keys.file)];
        let named = named.into_iter().filter_map(|(field, file)| Some((field, base.join(file.as_ref()?))));
        problems.extend(named.filter_map(|(field, file)| {
            let message = match file.exists() {
                false => Some(format!("{}: no such file", file.display())),
                // Whoever has it can ask the issuer in our name.
                true if field == "tokenFile" => unreadable(&file).or_else(|| exposed(&file)),
                true => unreadable(&file),
            };
            Some(settings.problem(&format!("identity.tokens[{at}].{field}"), message?))
        }));
    }
    problems
}
