//! Ways on a call: put where they cannot break the message, and no two in one place.

use super::Scope;
use crate::model::{CredentialSpec, InjectSpec, Injections, List, SigV4Spec};
use crate::policy::{Inject, Injection, Key, SecretRef, SigV4};

const REQUIRED: &str = "how the key is put on a call, as in `{bearer: {}}`";

/// Every way that is written, each at its place and of a field that every key has, or of the one value that is minted.
pub(super) fn ways(spec: &CredentialSpec, keys: &[Key], scope: &mut Scope<'_>) -> Option<Vec<Injection>> {
    let mut ways = Vec::new();
    match scope.required("spec.inject", spec.inject.as_ref(), REQUIRED)? {
        Injections::One(spec) => ways.push(("spec.inject".to_owned(), way("spec.inject", spec, scope)?)),
        Injections::Several(list) => {
            scope.at_least_one("spec.inject", list, REQUIRED);
            for (index, spec) in list.iter() {
                let path = format!("spec.inject[{index}]");
                if let Some(way) = way(&path, spec, scope) {
                    ways.push((path, way));
                }
            }
        }
    }
    let mut places: Vec<String> = Vec::new();
    for (path, injection) in &ways {
        let place = place(&injection.way);
        if places.contains(&place) {
            scope.problem(path, format!("another way on the call uses {place} already"));
        }
        places.push(place);
    }
    if spec.mint.is_some() {
        check_minted(&ways, scope);
    } else {
        for (index, key) in keys.iter().enumerate() {
            let at = if key.alias.is_some() { format!("spec.from[{index}]") } else { "spec.from".to_owned() };
            check_fields(&ways, (&at, &key.from), scope);
        }
    }
    Some(ways.into_iter().map(|(_, way)| way).collect())
}

/// A minted value has no fields, whatever it is made of.
fn check_minted(ways: &[(String, Injection)], scope: &mut Scope<'_>) {
    for (path, injection) in ways {
        for field in injection.fields() {
            let message = "what `mint` makes is one value, and has no fields";
            scope.problem(&field_path(path, injection, field), message);
        }
    }
}

/// Every way has a field, and every field a way.
fn check_fields(ways: &[(String, Injection)], (at, from): (&str, &SecretRef), scope: &mut Scope<'_>) {
    let before = scope.problems.len();
    for (path, injection) in ways {
        check_field(path, injection, (at, from), scope);
    }
    if scope.problems.len() > before || from.fields.len() < 2 {
        return;
    }
    for (index, field) in from.fields.iter().enumerate() {
        if !ways.iter().any(|(_, way)| way.fields().any(|used| used == field)) {
            let path = format!("{at}.fields[{index}]");
            scope.problem(&path, format!("nothing puts `{field}` on the call"));
        }
    }
}

/// A way names its field where there are several, and then one that is there.
fn check_field(path: &str, injection: &Injection, (at, from): (&str, &SecretRef), scope: &mut Scope<'_>) {
    let from_name = at.trim_start_matches("spec.");
    let all = from.fields.join(", ");
    for field in injection.fields().filter(|field| from.fields.iter().all(|other| other != field)) {
        let named = if all.is_empty() { "names none".to_owned() } else { format!("has {all}") };
        scope.problem(
            &field_path(path, injection, field),
            format!("`{from_name}` {named}, and not `{field}`"),
        );
    }
    if injection.fields().next().is_none() && from.fields.len() > 1 {
        scope.problem(path, format!("the key has several fields: `field` says which of {all} is put here"));
    }
}

/// Where `field` is named.
fn field_path(path: &str, injection: &Injection, field: &str) -> String {
    match &injection.way {
        Inject::SigV4(aws) if aws.access_key_id == field => format!("{path}.sigv4.accessKeyId"),
        Inject::SigV4(aws) if aws.secret_access_key == field => format!("{path}.sigv4.secretAccessKey"),
        Inject::SigV4(_) => format!("{path}.sigv4.sessionToken"),
        _ => format!("{path}.field"),
    }
}

/// Where it is put, in words that are equal only for the same place.
fn place(way: &Inject) -> String {
    match way {
        Inject::Bearer | Inject::Basic { .. } | Inject::SigV4(_) => "the header `authorization`".to_owned(),
        Inject::Header { name, .. } => format!("the header `{}`", name.replace('_', "-")),
        Inject::Query { name } => format!("the parameter `{name}`"),
        Inject::Cookie { name } => format!("the cookie `{name}`"),
    }
}

fn way(path: &str, spec: &InjectSpec, scope: &mut Scope<'_>) -> Option<Injection> {
    let inject = inject(path, spec, scope)?;
    Some(Injection { field: spec.field.clone(), way: inject })
}

enum Written<'a> {
    Bearer,
    Header(&'a Option<String>, &'a Option<String>),
    Basic(&'a Option<String>),
    Query(&'a Option<String>),
    Cookie(&'a Option<String>),
    SigV4(&'a SigV4Spec),
}

fn inject(path: &str, written: &InjectSpec, scope: &mut Scope<'_>) -> Option<Inject> {
    let fields = [
        ("bearer", written.bearer.as_ref().map(|_| Written::Bearer)),
        ("header", written.header.as_ref().map(|header| Written::Header(&header.name, &header.prefix))),
        ("basic", written.basic.as_ref().map(|basic| Written::Basic(&basic.username))),
        ("query", written.query.as_ref().map(|query| Written::Query(&query.name))),
        ("sigv4", written.sig_v4.as_ref().map(Written::SigV4)),
        ("cookie", written.cookie.as_ref().map(|cookie| Written::Cookie(&cookie.name))),
    ];
    match scope.exactly_one(path, fields)? {
        Written::Bearer => Some(Inject::Bearer),
        Written::Header(name, prefix) => {
            let (path, prefix_path) = (&format!("{path}.header.name"), &format!("{path}.header.prefix"));
            let name =
                scope.required(path, name.as_ref(), "the header, as in `x-api-key`")?.to_ascii_lowercase();
            if let Err(message) = check_header(&name) {
                scope.problem(path, format!("`{name}` {message}"));
            }
            let prefix = prefix.clone().unwrap_or_default();
            if !prefix.bytes().all(|b| b.is_ascii_graphic() || b == b' ') || prefix.starts_with(' ') {
                scope.problem(prefix_path, "a prefix is visible ASCII, and does not begin with a space");
            }
            Some(Inject::Header { name, prefix })
        }
        Written::Basic(username) => {
            let path = &format!("{path}.basic.username");
            let username =
                scope.required(path, username.clone(), "the user name; it may be empty (`\"\"`)")?;
            if username.contains(':') || username.chars().any(char::is_control) {
                scope.problem(path, "a user name has no colon and no control character (RFC 7617 section 2)");
            }
            Some(Inject::Basic { username })
        }
        Written::Query(name) => {
            let path = &format!("{path}.query.name");
            let name = scope.required(path, name.clone(), "the parameter, as in `key`")?;
            let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
            if name.is_empty() || !is_plain {
                scope.problem(path, "a parameter is letters, digits, `-`, `.`, `_` and `~`");
            }
            Some(Inject::Query { name })
        }
        Written::SigV4(aws) => {
            if written.field.is_some() {
                let message =
                    "a signature takes its fields from `accessKeyId`, `secretAccessKey` and `sessionToken`";
                scope.problem(&format!("{path}.field"), message);
            }
            sigv4(&format!("{path}.sigv4"), aws, scope).map(Inject::SigV4)
        }
        Written::Cookie(name) => {
            let path = &format!("{path}.cookie.name");
            let name = scope.required(path, name.clone(), "the cookie, as in `session`")?;
            if !is_token(&name) {
                scope.problem(path, "a cookie's name is a token (RFC 6265 section 4.1.1)");
            }
            Some(Inject::Cookie { name })
        }
    }
}

fn sigv4(path: &str, written: &SigV4Spec, scope: &mut Scope<'_>) -> Option<SigV4> {
    let id = scope.required(
        &format!("{path}.accessKeyId"),
        written.access_key_id.clone(),
        "the field with the access key's id",
    );
    let secret = scope.required(
        &format!("{path}.secretAccessKey"),
        written.secret_access_key.clone(),
        "the field with the secret access key",
    );
    let mut names = |field: &str, list: &List<String>, what: &str| {
        let path = format!("{path}.{field}");
        scope.at_least_one(&path, list, what);
        for (index, name) in list.iter() {
            let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            if name.is_empty() || !name.bytes().all(is_plain) {
                scope.problem(&format!("{path}[{index}]"), "a name is lower-case letters, digits and `-`");
            }
        }
        list.values().cloned().collect()
    };
    let regions = names("regions", &written.regions, "the regions to sign for, as in `[eu-central-1]`");
    let services = names("services", &written.services, "the services to sign for, as in `[s3]`");
    let session_token = written.session_token.clone();
    Some(SigV4 { access_key_id: id?, secret_access_key: secret?, session_token, regions, services })
}

/// `name` is in lower case. Headers that frame, route or describe the message are the gateway's own.
fn check_header(name: &str) -> Result<(), &'static str> {
    const OWN: &[&str] = &[
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "if-range",
        "keep-alive",
        "max-forwards",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    ];
    if !is_token(name) {
        return Err("is not the name of a header (RFC 9110 section 5.1)");
    }
    let is_own = OWN.contains(&name)
        || ["x-forwarded-", "x-tollgate-", "sec-"].iter().any(|own| name.starts_with(own));
    if is_own { Err("frames or routes the message: a key cannot be put there") } else { Ok(()) }
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
