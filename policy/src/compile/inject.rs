//! Ways on a call: put where they cannot break the message, and no two in one place.

use super::Scope;
use super::hmac::{check_key, hmac};
use super::mint::makes_session;
use super::placement::{check_header, check_parameter, is_token};
use crate::model::{
    ClientCertificateSpec, CredentialSpec, HmacSpec, InjectSpec, Injections, List, SigV4Spec,
};
use crate::resource::{AwsSession, Hmac, Inject, Injection, Key, Piece, SecretRef, SigV4};

const REQUIRED: &str = "how the key is put on a call, as in `{bearer: {}}`";

/// Every way that is written, each at its place and of a field that every key has, or of the one value that is minted.
pub(super) fn ways(spec: &CredentialSpec, keys: &[Key], scope: &mut Scope<'_>) -> Option<Vec<Injection>> {
    let mut ways = Vec::new();
    let is_session = makes_session(scope);
    match scope.required("spec.inject", spec.inject.as_ref(), REQUIRED)? {
        Injections::One(spec) => {
            ways.push(("spec.inject".to_owned(), way("spec.inject", spec, is_session, scope)?));
        }
        Injections::Several(list) => {
            scope.at_least_one("spec.inject", list, REQUIRED);
            for (index, spec) in list.iter() {
                let path = format!("spec.inject[{index}]");
                if let Some(way) = way(&path, spec, is_session, scope) {
                    ways.push((path, way));
                }
            }
        }
    }
    check_places(&ways, scope);
    let is_certificate = |(_, way): &(String, Injection)| matches!(way.way, Inject::ClientCertificate { .. });
    if ways.len() > 1 && ways.iter().any(is_certificate) {
        scope.problem("spec.inject", "a client certificate is a credential of its own");
    }
    if keys.len() > 1 && ways.iter().any(is_certificate) {
        scope.problem("spec.from", "a destination is shown one client certificate: name one, without a list");
    }
    if is_session {
        check_session(&ways, scope);
    } else if spec.mint.is_some() {
        check_minted(&ways, scope);
    } else {
        for (index, key) in keys.iter().enumerate() {
            let at = if key.alias.is_some() { format!("spec.from[{index}]") } else { "spec.from".to_owned() };
            check_fields(&ways, (&at, &key.from), scope);
        }
        ways.iter().for_each(|(path, way)| check_key(path, way, keys, scope));
        check_sent(&ways, keys, scope);
    }
    Some(ways.into_iter().map(|(_, way)| way).collect())
}

/// No two ways use one place, and a request is signed once.
fn check_places(ways: &[(String, Injection)], scope: &mut Scope<'_>) {
    let mut taken: Vec<String> = Vec::new();
    for (path, injection) in ways {
        let places = places(&injection.way);
        for place in places.iter().filter(|place| taken.contains(place)) {
            scope.problem(path, format!("another way on the call uses {place} already"));
        }
        taken.extend(places);
    }
    let signs =
        |(_, injection): &&(String, Injection)| matches!(injection.way, Inject::SigV4(_) | Inject::Hmac(_));
    for (path, _) in ways.iter().filter(signs).skip(1) {
        scope.problem(path, "another way signs the request already");
    }
}

/// The key that signs a call is sent by no other way on it.
fn check_sent(ways: &[(String, Injection)], keys: &[Key], scope: &mut Scope<'_>) {
    let only = keys.first().and_then(|key| match key.from.fields.as_slice() {
        [only] => Some(only.as_str()),
        _ => None,
    });
    let key_of = |injection: &Injection| match &injection.way {
        Inject::SigV4(aws) => Some(aws.secret_access_key.clone()),
        _ => injection.field.as_deref().or(only).map(str::to_owned),
    };
    let signs = |injection: &Injection| matches!(injection.way, Inject::SigV4(_) | Inject::Hmac(_));
    let Some((_, signer)) = ways.iter().find(|(_, injection)| signs(injection)) else { return };
    let key = key_of(signer);
    for (path, _) in ways.iter().filter(|(_, injection)| !signs(injection) && key_of(injection) == key) {
        scope.problem(path, "this would send the key that signs the call: it takes another field");
    }
}

/// A minted value has no fields, whatever it is made of.
fn check_minted(ways: &[(String, Injection)], scope: &mut Scope<'_>) {
    for (path, injection) in ways {
        if injection.hmac().is_some() {
            scope.problem(path, "what `mint` makes is a token to send, and no key to sign with");
        }
        for field in injection.fields() {
            let message = "what `mint` makes is one value, and has no fields";
            scope.problem(&field_path(path, injection, field), message);
        }
    }
}

/// The secret half of a session signs, and goes nowhere itself.
fn check_session(ways: &[(String, Injection)], scope: &mut Scope<'_>) {
    for (path, injection) in ways {
        if !matches!(injection.way, Inject::SigV4(_)) {
            scope.problem(path, "the session of a role signs calls: only `sigv4` puts it on one");
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
    let has_key = match &injection.way {
        Inject::SigV4(_) | Inject::ClientCertificate { .. } => true,
        _ => injection.field.is_some(),
    };
    if !has_key && from.fields.len() > 1 {
        scope.problem(path, format!("the key has several fields: `field` says which of {all} is put here"));
    }
}

/// Where `field` is named.
fn field_path(path: &str, injection: &Injection, field: &str) -> String {
    match &injection.way {
        Inject::SigV4(aws) if aws.access_key_id == field => format!("{path}.sigv4.accessKeyId"),
        Inject::SigV4(aws) if aws.secret_access_key == field => format!("{path}.sigv4.secretAccessKey"),
        Inject::SigV4(_) => format!("{path}.sigv4.sessionToken"),
        Inject::Hmac(hmac) => format!("{path}.hmac.{}", hmac_field(injection, hmac, field)),
        Inject::ClientCertificate { certificate, .. } if certificate == field => {
            format!("{path}.clientCertificate.certificate")
        }
        Inject::ClientCertificate { .. } => format!("{path}.clientCertificate.key"),
        _ => format!("{path}.field"),
    }
}

/// Where in `hmac` it is.
fn hmac_field(injection: &Injection, hmac: &Hmac, field: &str) -> &'static str {
    let named =
        |pieces: &[Piece]| pieces.iter().any(|piece| matches!(piece, Piece::Field(name) if name == field));
    match () {
        () if injection.field.as_deref() == Some(field) => "field",
        () if named(&hmac.message) => "message",
        () if hmac.headers.iter().any(|(_, pieces)| named(pieces)) => "headers",
        () => "query",
    }
}

/// Where it is put, in words that are equal only for the same place.
fn places(way: &Inject) -> Vec<String> {
    let header = |name: &str| format!("the header `{}`", name.replace('_', "-"));
    let parameter = |name: &str| format!("the parameter `{name}`");
    match way {
        Inject::Bearer | Inject::Basic { .. } | Inject::SigV4(_) => vec![header("authorization")],
        Inject::Header { name, .. } => vec![header(name)],
        Inject::Query { name } => vec![parameter(name)],
        Inject::Cookie { name } => vec![format!("the cookie `{name}`")],
        Inject::ClientCertificate { .. } => Vec::new(),
        Inject::Hmac(hmac) => {
            let headers = hmac.headers.iter().map(|(name, _)| header(name));
            headers.chain(hmac.queries.iter().map(|(name, _)| parameter(name))).collect()
        }
    }
}

fn way(path: &str, spec: &InjectSpec, is_session: bool, scope: &mut Scope<'_>) -> Option<Injection> {
    let inject = inject(path, spec, is_session, scope)?;
    let field = spec.hmac.as_ref().map_or(&spec.field, |hmac| &hmac.field).clone();
    Some(Injection { field, way: inject })
}

enum WrittenInject<'a> {
    Bearer,
    Header(&'a Option<String>, &'a Option<String>),
    Basic(&'a Option<String>),
    Query(&'a Option<String>),
    Cookie(&'a Option<String>),
    SigV4(&'a SigV4Spec),
    Hmac(&'a HmacSpec),
    ClientCertificate(&'a ClientCertificateSpec),
}

fn inject(path: &str, written: &InjectSpec, is_session: bool, scope: &mut Scope<'_>) -> Option<Inject> {
    let fields = [
        ("bearer", written.bearer.as_ref().map(|_| WrittenInject::Bearer)),
        ("header", written.header.as_ref().map(|header| WrittenInject::Header(&header.name, &header.prefix))),
        ("basic", written.basic.as_ref().map(|basic| WrittenInject::Basic(&basic.username))),
        ("query", written.query.as_ref().map(|query| WrittenInject::Query(&query.name))),
        ("sigv4", written.sig_v4.as_ref().map(WrittenInject::SigV4)),
        ("hmac", written.hmac.as_ref().map(WrittenInject::Hmac)),
        ("clientCertificate", written.client_certificate.as_ref().map(WrittenInject::ClientCertificate)),
        ("cookie", written.cookie.as_ref().map(|cookie| WrittenInject::Cookie(&cookie.name))),
    ];
    match scope.exactly_one(path, fields)? {
        WrittenInject::Bearer => Some(Inject::Bearer),
        WrittenInject::Header(name, prefix) => {
            header(&format!("{path}.header"), (name.as_deref(), prefix.as_deref()), scope)
        }
        WrittenInject::Basic(username) => {
            let path = &format!("{path}.basic.username");
            let username =
                scope.required(path, username.clone(), "the user name; it may be empty (`\"\"`)")?;
            if username.contains(':') || username.chars().any(char::is_control) {
                scope.problem(path, "a user name has no colon and no control character (RFC 7617 section 2)");
            }
            Some(Inject::Basic { username })
        }
        WrittenInject::Query(name) => {
            let path = &format!("{path}.query.name");
            let name = scope.required(path, name.clone(), "the parameter, as in `key`")?;
            if let Err(message) = check_parameter(&name) {
                scope.problem(path, message);
            }
            Some(Inject::Query { name })
        }
        WrittenInject::SigV4(aws) => {
            if written.field.is_some() {
                let message =
                    "a signature takes its fields from `accessKeyId`, `secretAccessKey` and `sessionToken`";
                scope.problem(&format!("{path}.field"), message);
            }
            sigv4(&format!("{path}.sigv4"), aws, is_session, scope).map(Inject::SigV4)
        }
        WrittenInject::Hmac(signed) => {
            if written.field.is_some() {
                scope.problem(&format!("{path}.field"), "a signature takes its key from `hmac.field`");
            }
            hmac(&format!("{path}.hmac"), signed, scope).map(Inject::Hmac)
        }
        WrittenInject::ClientCertificate(certificate) => {
            if written.field.is_some() {
                let message = "a client certificate takes its fields from `certificate` and `key`";
                scope.problem(&format!("{path}.field"), message);
            }
            client_certificate(&format!("{path}.clientCertificate"), certificate, scope)
        }
        WrittenInject::Cookie(name) => {
            let path = &format!("{path}.cookie.name");
            let name = scope.required(path, name.clone(), "the cookie, as in `session`")?;
            if !is_token(&name) {
                scope.problem(path, "a cookie's name is a token (RFC 6265 section 4.1.1)");
            }
            Some(Inject::Cookie { name })
        }
    }
}

fn header(path: &str, (name, prefix): (Option<&str>, Option<&str>), scope: &mut Scope<'_>) -> Option<Inject> {
    let (path, prefix_path) = (&format!("{path}.name"), &format!("{path}.prefix"));
    let name = scope.required(path, name, "the header, as in `x-api-key`")?.to_ascii_lowercase();
    if let Err(message) = check_header(&name) {
        scope.problem(path, format!("`{name}` {message}"));
    }
    let prefix = prefix.unwrap_or_default().to_owned();
    if !prefix.bytes().all(|b| b.is_ascii_graphic() || b == b' ') || prefix.starts_with(' ') {
        scope.problem(prefix_path, "a prefix is visible ASCII, and does not begin with a space");
    }
    Some(Inject::Header { name, prefix })
}

fn client_certificate(path: &str, written: &ClientCertificateSpec, scope: &mut Scope<'_>) -> Option<Inject> {
    let (at, what) = (format!("{path}.certificate"), "the field with the certificate chain in PEM");
    let certificate = scope.required(&at, written.certificate.clone(), what);
    let (at, what) = (format!("{path}.key"), "the field with the private key in PEM");
    let key = scope.required(&at, written.key.clone(), what)?;
    let certificate = certificate?;
    if certificate == key {
        scope.problem(&at, "certificate and key are two fields: list both in `from.fields`");
    }
    Some(Inject::ClientCertificate { certificate, key })
}

fn sigv4(path: &str, written: &SigV4Spec, is_session: bool, scope: &mut Scope<'_>) -> Option<SigV4> {
    let SigV4Spec { access_key_id, secret_access_key, session_token, .. } = written;
    let (id, secret, session_token) = if is_session {
        for field in AwsSession::FIELDS.map(|field| format!("{path}.{field}")) {
            if scope.source.has(&field) {
                scope.problem(&field, "the session that `mint` makes has its own fields: leave this out");
            }
        }
        let [id, secret, token] = AwsSession::FIELDS.map(str::to_owned);
        (Some(id), Some(secret), Some(token))
    } else {
        let (id, secret) = (format!("{path}.accessKeyId"), format!("{path}.secretAccessKey"));
        let id = scope.required(&id, access_key_id.clone(), "the field with the access key's id");
        let what = "the field with the secret access key";
        (id, scope.required(&secret, secret_access_key.clone(), what), session_token.clone())
    };
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
    Some(SigV4 { access_key_id: id?, secret_access_key: secret?, session_token, regions, services })
}
