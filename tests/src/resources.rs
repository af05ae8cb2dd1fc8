//! The resources that scenarios share, as a user would write them.

use std::fmt::Display;
use std::path::Path;

/// A destination at a fixed loopback address whose certificate is checked against `ca`.
pub fn destination(name: &str, host: &str, port: u16, ca: &Path, dialect: &str) -> String {
    document(
        "Destination",
        name,
        format_args!(
            "  hosts: [{host}]\n  port: {port}\n  addresses: [127.0.0.1]\n  dialect: {dialect}\n  tls: {{verify: {{caFile: {}}}}}\n",
            ca.display()
        ),
    )
}

/// A store of plain files under `root`.
pub fn file_store(name: &str, root: &Path) -> String {
    document("SecretStore", name, format_args!("  file: {{root: {}}}\n", root.display()))
}

/// A Vault or OpenBao store with a token in a file.
pub fn vault_store(name: &str, address: &str, ca: &Path, token: &Path) -> String {
    document(
        "SecretStore",
        name,
        format_args!(
            "  vault:\n    address: {address}\n    caFile: {}\n    auth: {{token: {{file: {}}}}}\n",
            ca.display(),
            token.display()
        ),
    )
}

/// A credential; `from` and `inject` in YAML flow form.
pub fn credential(name: &str, destination: &str, from: &str, inject: &str) -> String {
    document(
        "Credential",
        name,
        format_args!("  destinations: [{destination}]\n  from: {from}\n  inject: {inject}\n"),
    )
}

/// A grant; `rest` holds the further members of its spec, indented by two blanks.
pub fn grant(name: &str, callers: &str, destination: &str, credential: &str, rest: &str) -> String {
    document(
        "Grant",
        name,
        format_args!(
            "  callers: [{{spiffe: \"{callers}\"}}]\n  destination: {destination}\n  credential: {credential}\n{rest}"
        ),
    )
}

/// Any resource, with its spec's members indented by two blanks.
pub fn document(kind: &str, name: &str, spec: impl Display) -> String {
    format!("---\napiVersion: tollgate.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}
