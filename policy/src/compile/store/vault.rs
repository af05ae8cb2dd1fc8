//! OpenBao and Vault: reached so that the login cannot be read on the way, and logged in to in exactly one way.

use std::net::Ipv6Addr;

use super::{Scope, file_path};
use crate::model::{AppRoleSpec, AuthSpec, CertificateLoginSpec, TokenLoginSpec, VaultSpec};
use crate::resource::{ClientCertificate, KvVersion, SecretId, TokenLogin, VaultAuth, VaultStore};
use crate::target::split_authority;

/// Where a pod finds the token of its service account.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

pub(super) fn vault(vault: &VaultSpec, scope: &mut Scope<'_>) -> Option<VaultStore> {
    let what = "its URL, as in `https://bao.example.com:8200`";
    let address = scope.required("spec.vault.address", vault.address.as_deref(), what);
    let address = address.map(|address| match vault_address(address) {
        Ok(address) => address,
        Err(message) => {
            scope.problem("spec.vault.address", message);
            String::new()
        }
    });
    let mount = mount(scope, "spec.vault.mount", vault.mount.as_deref(), "secret");
    let kv = match vault.kv_version {
        None | Some(2) => KvVersion::V2,
        Some(1) => KvVersion::V1,
        Some(_) => {
            scope.problem("spec.vault.kvVersion", "the KV engine has the versions 1 and 2");
            KvVersion::V2
        }
    };
    let namespace = vault.namespace.clone();
    let is_header = |text: &String| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    if namespace.as_ref().is_some_and(|namespace| !is_header(namespace)) {
        scope.problem(
            "spec.vault.namespace",
            "a namespace is visible ASCII without spaces, as in `team-a/llm`",
        );
    }
    let ca = match &vault.ca_file {
        Some(_) => file_path(scope, "spec.vault.caFile", &vault.ca_file, "a file with certificates in PEM"),
        None => None,
    };
    let shown = vault.client_certificate.as_ref().and_then(|spec| {
        certificate(scope, "spec.vault.clientCertificate", (&spec.cert_file, &spec.key_file))
    });
    let what = "how to log in: `token`, `appRole`, `kubernetes`, `jwt` or `certificate`";
    let login =
        scope.required("spec.vault.auth", vault.auth.as_ref(), what).and_then(|auth| self::auth(auth, scope));
    let (auth, client_certificate) = match login? {
        (_, Some(_)) if vault.client_certificate.is_some() => {
            let message = "a connection shows one certificate, and `auth.certificate` names it already";
            scope.problem("spec.vault.clientCertificate", message);
            return None;
        }
        (auth, own) => (auth, own.or(shown)),
    };
    if client_certificate.is_some() && address.as_ref().is_some_and(|address| address.starts_with("http://"))
    {
        scope.problem("spec.vault.address", "a certificate is shown over `https` only");
    }
    Some(VaultStore { address: address?, mount, kv, namespace, ca, client_certificate, auth })
}

enum WrittenAuth<'a> {
    Token(&'a Option<String>),
    AppRole(&'a AppRoleSpec),
    Kubernetes(&'a TokenLoginSpec),
    Jwt(&'a TokenLoginSpec),
    Certificate(&'a CertificateLoginSpec),
}

/// The login, and the certificate that it is made with.
fn auth(auth: &AuthSpec, scope: &mut Scope<'_>) -> Option<(VaultAuth, Option<ClientCertificate>)> {
    let fields = [
        ("token", auth.token.as_ref().map(|token| WrittenAuth::Token(&token.file))),
        ("appRole", auth.app_role.as_ref().map(WrittenAuth::AppRole)),
        ("kubernetes", auth.kubernetes.as_ref().map(WrittenAuth::Kubernetes)),
        ("jwt", auth.jwt.as_ref().map(WrittenAuth::Jwt)),
        ("certificate", auth.certificate.as_ref().map(WrittenAuth::Certificate)),
    ];
    let login = match scope.exactly_one("spec.vault.auth", fields)? {
        WrittenAuth::Token(file) => VaultAuth::Token {
            file: file_path(scope, "spec.vault.auth.token.file", file, "the file with the token")?,
        },
        WrittenAuth::AppRole(spec) => app_role(scope, spec)?,
        WrittenAuth::Kubernetes(spec) => {
            if spec.svid_audience.is_some() {
                let message = "only a login by `jwt` shows the gateway's own SVID: leave this out";
                scope.problem("spec.vault.auth.kubernetes.svidAudience", message);
            }
            let login = (spec, "kubernetes", Some(SERVICE_ACCOUNT_TOKEN));
            VaultAuth::Kubernetes(token_login(scope, login)?)
        }
        WrittenAuth::Jwt(spec) => jwt(scope, spec)?,
        WrittenAuth::Certificate(spec) => {
            let path = "spec.vault.auth.certificate";
            let mount = mount(scope, &format!("{path}.mount"), spec.mount.as_deref(), "cert");
            if let Some(role) = &spec.role {
                check_role(scope, &format!("{path}.role"), role);
            }
            let shown = certificate(scope, path, (&spec.cert_file, &spec.key_file))?;
            return Some((VaultAuth::Certificate { mount, role: spec.role.clone() }, Some(shown)));
        }
    };
    Some((login, None))
}

fn app_role(scope: &mut Scope<'_>, spec: &AppRoleSpec) -> Option<VaultAuth> {
    let path = "spec.vault.auth.appRole";
    let mount = mount(scope, &format!("{path}.mount"), spec.mount.as_deref(), "approle");
    let id = file_path(scope, &format!("{path}.roleIdFile"), &spec.role_id_file, "the file with the role id");
    let (plain, wrapped) = (&spec.secret_id_file, &spec.wrapped_secret_id_file);
    let secret_id = match (plain, wrapped) {
        (Some(_), Some(_)) => {
            let message = "`secretIdFile` is there too, and the secret id is in one of them";
            scope.problem(&format!("{path}.wrappedSecretIdFile"), message);
            None
        }
        (None, Some(_)) => {
            let what = "the file with the response-wrapping token of the secret id";
            file_path(scope, &format!("{path}.wrappedSecretIdFile"), wrapped, what).map(SecretId::Wrapped)
        }
        _ => {
            let what =
                "the file with the secret id; or `wrappedSecretIdFile`, with its response-wrapping token";
            file_path(scope, &format!("{path}.secretIdFile"), plain, what).map(SecretId::File)
        }
    };
    Some(VaultAuth::AppRole { mount, role_id_file: id?, secret_id: secret_id? })
}

/// With a token of a file, or with the gateway's own SVID.
fn jwt(scope: &mut Scope<'_>, spec: &TokenLoginSpec) -> Option<VaultAuth> {
    let Some(audience) = &spec.svid_audience else {
        return token_login(scope, (spec, "jwt", None)).map(VaultAuth::Jwt);
    };
    let path = "spec.vault.auth.jwt.svidAudience";
    if spec.token_file.is_some() {
        scope.problem(path, "`tokenFile` is there too, and the login shows one token");
    }
    if audience.is_empty() || audience.chars().any(char::is_control) {
        scope.problem(path, "an audience has a name, without control characters");
    }
    let mount = mount(scope, "spec.vault.auth.jwt.mount", spec.mount.as_deref(), "jwt");
    let role = scope.required("spec.vault.auth.jwt.role", spec.role.clone(), "the role to log in as");
    if let Some(role) = &role {
        check_role(scope, "spec.vault.auth.jwt.role", role);
    }
    Some(VaultAuth::JwtSvid { mount, role: role?, audience: audience.clone() })
}

/// `method` is the field and the default of the mount.
fn token_login(
    scope: &mut Scope<'_>,
    (spec, method, default): (&TokenLoginSpec, &str, Option<&str>),
) -> Option<TokenLogin> {
    let path = format!("spec.vault.auth.{method}");
    let mount = mount(scope, &format!("{path}.mount"), spec.mount.as_deref(), method);
    let role_path = format!("{path}.role");
    let role = scope.required(&role_path, spec.role.clone(), "the role to log in as");
    if let Some(role) = &role {
        check_role(scope, &role_path, role);
    }
    let written = spec.token_file.clone().or_else(|| default.map(Into::into));
    let token = file_path(scope, &format!("{path}.tokenFile"), &written, "the file with the token");
    Some(TokenLogin { mount, role: role?, token_file: token? })
}

fn check_role(scope: &mut Scope<'_>, path: &str, role: &str) {
    if role.is_empty() || role.chars().any(char::is_control) {
        scope.problem(path, "a role has a name, without control characters");
    }
}

fn certificate(
    scope: &mut Scope<'_>,
    path: &str,
    (cert, key): (&Option<String>, &Option<String>),
) -> Option<ClientCertificate> {
    let what = "the file with the client certificate and its chain in PEM";
    let cert = file_path(scope, &format!("{path}.certFile"), cert, what);
    let key = file_path(scope, &format!("{path}.keyFile"), key, "the file with its private key in PEM");
    Some(ClientCertificate { cert: cert?, key: key? })
}

fn mount(scope: &mut Scope<'_>, path: &str, written: Option<&str>, default: &str) -> String {
    let mount = written.unwrap_or(default);
    let segment = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if !mount.split('/').all(segment) {
        scope.problem(path, format!("a mount is a path without slashes at its ends, as in `{default}`"));
    }
    mount.to_owned()
}

/// `https://host[:port]` in canonical spelling. Plain `http` would show the login to the network, unless there is none between.
pub(super) fn vault_address(written: &str) -> Result<String, &'static str> {
    let (scheme, rest) = written.split_once("://").ok_or("an address begins with `https://`")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@']) {
        return Err("an address is `https://host:port` and nothing else");
    }
    let (host, port) =
        split_authority(authority, |_| false).map_err(|_| "the host or port of the address is malformed")?;
    let is_v4 = host.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_v6 = v6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()));
    match scheme {
        "https" => {}
        "http" if is_v4 || is_v6 || host == "localhost" => {}
        "http" => {
            return Err(
                "`http` shows the login to the network: only a loopback address may use it, else `https`",
            );
        }
        _ => return Err("an address begins with `https://`"),
    }
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    Ok(format!("{scheme}://{host}{port}"))
}
