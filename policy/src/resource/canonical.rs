//! All that a grant amounts to, in one spelling: what an approval is for.
//!
//! **Invariant:** of two grants that let different calls through, send them elsewhere, put another key on them or bound them otherwise, the
//! spellings differ. Files, the order of lists that mean sets, and what is written or left to its default make no difference. Every type is
//! taken apart by all of its fields, so that a new one cannot be forgotten.
//!
//! Lacks on purpose: what a catalog or a secret store holds, the state of a grant (`suspended`), and how long things may take.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use serde_json::{Value, json};

use super::credential::Credential;
use super::destination::{
    Destination, HttpDestination, Protocol, Scrub, TcpDestination, TlsStart, TlsVerify, TunnelTls,
};
use super::grant::{Allow, Assume, Grant, Unpriced};
use super::source_pool::{SourceOrder, SourcePool, SourceRules};
use crate::dialect::Class;
use crate::hash::GrantHash;
use crate::limit::{Limit, LimitKind, StoreFailure, Window};
use crate::model::Source;
use crate::name::ResourceId;
use crate::path::EncodedForms;

mod credential;

/// What grants refer to.
#[derive(Clone, Copy)]
pub(crate) struct Referred<'a> {
    pub(crate) destinations: &'a BTreeMap<ResourceId, Arc<Destination>>,
    pub(crate) credentials: &'a BTreeMap<ResourceId, Arc<Credential>>,
}

impl Referred<'_> {
    /// The hash of all that a grant amounts to.
    pub(crate) fn hash(&self, grant: &Grant) -> GrantHash {
        let mut text = String::new();
        write(&json!({ "version": 1, "grant": self.grant(grant) }), &mut text);
        GrantHash::of(text.as_bytes())
    }

    /// A credential, but for where it may go.
    pub(crate) fn key(&self, credential: &Credential) -> Value {
        let mut key = self.credential(credential);
        if let Some(members) = key.as_object_mut() {
            members.remove("destinations");
        }
        key
    }

    fn grant(&self, grant: &Grant) -> Value {
        let Grant {
            name,
            callers,
            destination,
            credential,
            caller_token,
            allow,
            limits,
            default_output_cap,
            assume,
            unpriced,
            // Budgets are limits beside it, whoever owns it.
            budgets: _,
            // Its state: lifted, it is what was approved.
            suspended: _,
            approval: _,
            is_broken: _,
        } = grant;
        json!({
            "name": name.as_str(),
            "callers": texts(callers),
            "destination": self.destination(destination),
            "credential": credential.as_deref().map(|credential| self.credential(credential)),
            "callerToken": caller_token,
            "allow": self::allow(allow),
            "limits": set(limits.iter().map(limit)),
            "defaultOutputCap": default_output_cap,
            "assume": assume.map(|Assume { input_tokens, output_tokens }| [input_tokens, output_tokens]),
            "unpriced": unpriced_word(*unpriced),
        })
    }

    fn destination(&self, destination: &Destination) -> Value {
        let shown = destination.client_certificate.as_ref().map(|id| {
            let credential = self.credentials.get(id).map(|credential| self.credential(credential));
            json!({ "name": id.as_str(), "credential": credential })
        });
        json!({ "reached": reached(destination), "clientCertificate": shown })
    }
}

/// Where a destination is and how it is known; what it is shown aside.
fn reached(destination: &Destination) -> Value {
    let Destination {
        name,
        hosts,
        port,
        addresses,
        proxy,
        // They say nothing of where calls go.
        virtual_addresses: _,
        sources,
        tls,
        client_certificate: _,
        timeouts: _,
        // How it is spared, and how often it is asked again, changes nothing of what may be asked.
        resilience: _,
        protocol,
        // That an approval is there at all says as much.
        demands_approval: _,
        origin,
    } = destination;
    let mut reached = json!({
        "name": name.as_str(),
        "hosts": texts(hosts),
        "port": port,
        "addresses": texts(addresses),
        "sources": self::sources(sources),
        "tls": self::tls(tls, origin),
        "protocol": self::protocol(protocol),
    });
    // Without one it is the text that it was before there were any.
    if let Some(proxy) = proxy {
        let tls = proxy.tls.as_ref().map(|verify| self::tls(verify, origin));
        reached["proxy"] = json!({ "address": proxy.to_string(), "tls": tls });
    }
    reached
}

/// Addresses alone where they are tried in their order: as one that stands at its destination.
fn sources(sources: &SourcePool) -> Value {
    let Some(rules) = sources.rules() else { return json!([]) };
    // By what a pool is called nothing leaves.
    let SourceRules { name: _, addresses, order, failover, freebind } = rules;
    let listed = || addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (order, addresses) = match order {
        SourceOrder::Ordered if *failover && !freebind => return json!(listed()),
        SourceOrder::Ordered => ("ordered", json!(listed())),
        SourceOrder::ByCaller => ("caller", texts(addresses)),
        SourceOrder::ByCredential => ("credential", texts(addresses)),
    };
    json!({ "addresses": addresses, "order": order, "failover": failover, "freebind": freebind })
}

fn protocol(protocol: &Protocol) -> Value {
    let http = match protocol {
        Protocol::Http(http) => http,
        // How long one may last changes nothing of what is agreed to.
        Protocol::Tcp(TcpDestination { tls, lifetime: _ }) => {
            return match tls {
                TunnelTls::Opaque => json!("tcp"),
                TunnelTls::Callers => json!("tls"),
                TunnelTls::Originated(TlsStart::Direct) => json!({ "tcp": "originates" }),
                TunnelTls::Originated(TlsStart::Postgres) => json!({ "tcp": "originatesPostgres" }),
            };
        }
        Protocol::Postgres => return json!("postgres"),
    };
    let HttpDestination { dialect, first_byte: _, total: _, version: _, encoded_path, scrub } = &**http;
    let forms = encoded_path.beyond(EncodedForms::NONE).map(|form| form.as_str());
    let scrub = match scrub {
        Scrub::All => "all",
        Scrub::Headers => "headers",
    };
    json!({ "dialect": dialect.name(), "encodedPath": forms.collect::<Vec<_>>(), "scrub": scrub })
}

/// By the name that was written: the same wherever the files are.
fn tls(tls: &TlsVerify, origin: &Source) -> Value {
    match tls {
        TlsVerify::System => json!("system"),
        TlsVerify::Bundle(file) => json!({ "caFile": origin.unresolve(file).to_string_lossy() }),
    }
}

fn allow(allow: &Allow) -> Value {
    let Allow { methods, paths, models, classes, actions, response_headers, upgrades, range } = allow;
    let mut value = json!({
        "methods": texts(methods),
        "paths": texts(paths),
        "models": texts(models),
        "classes": texts(classes.iter().map(|class| Class::as_str(*class))),
        "actions": texts(actions),
        "responseHeaders": texts(response_headers),
        "range": range,
    });
    // It came later: where it says nothing it is left out, so that what was approved before still is.
    if let Some(members) = value.as_object_mut().filter(|_| !upgrades.is_empty()) {
        members.insert("upgrades".to_owned(), texts(upgrades));
    }
    value
}

fn limit(limit: &Limit) -> Value {
    // The id says whose it is, what it counts and for whom together.
    // Only limits of budgets have something to say of their end, or are raised.
    let Limit { id, owner: _, unit, amount, kind, key: _, on_exhausted: _, raises: _, store_failure } = limit;
    let kind = match kind {
        LimitKind::Concurrent => json!("concurrent"),
        LimitKind::Gcra { per, burst } => json!({ "rate": [per.as_secs().to_string(), burst.to_string()] }),
        LimitKind::Counted(Window::Rolling { length, slices }) => {
            json!({ "rolling": [length.as_secs().to_string(), slices.to_string()] })
        }
        LimitKind::Counted(Window::Calendar { per, timezone }) => {
            json!({ "calendar": [per.as_str(), timezone.iana_name().unwrap_or("unnamed")] })
        }
    };
    let mut value = json!({ "id": id, "amount": amount, "kind": kind });
    // It came later: where it is what it is by itself it is left out, so that what was approved before still is.
    if let Some(members) = value.as_object_mut().filter(|_| *store_failure != StoreFailure::of(*unit)) {
        let alone = *store_failure == StoreFailure::Local;
        members.insert("onStoreFailure".to_owned(), json!(if alone { "local" } else { "deny" }));
    }
    value
}

/// As a grant spells it.
fn unpriced_word(unpriced: Unpriced) -> &'static str {
    match unpriced {
        Unpriced::Deny => "deny",
        Unpriced::Dearest => "dearest",
        Unpriced::Flag => "flag",
    }
}

/// A list whose order says nothing.
fn set(values: impl Iterator<Item = Value>) -> Value {
    let mut spelt: Vec<(String, Value)> = values
        .map(|value| {
            let mut text = String::new();
            write(&value, &mut text);
            (text, value)
        })
        .collect();
    spelt.sort_by(|a, b| a.0.cmp(&b.0));
    spelt.dedup_by(|a, b| a.0 == b.0);
    spelt.into_iter().map(|(_, value)| value).collect()
}

fn texts<T: Display>(values: impl IntoIterator<Item = T>) -> Value {
    set(values.into_iter().map(|value| Value::from(value.to_string())))
}

/// JSON without spaces, the members of an object by name: not left to a library, whose order of members is a matter of how it was built.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(elements) => {
            out.push('[');
            for (index, element) in elements.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                write(element, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}
