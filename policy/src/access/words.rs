//! Grants in words, for whoever has to agree to them.

use std::fmt::Display;

use crate::decision::class_word;
use crate::dialect::Class;
use crate::limit::{Limit, LimitId, LimitKey, LimitKind, OnExhausted, Owner, Unit, Window};
use crate::pattern::{MethodPattern, PathPattern};
use crate::policy::{Allow, Credential, Grant, Protocol, TunnelTls};
use crate::price::NanoUsd;

/// What a grant lets its callers do, in one line.
pub fn allowed(allow: &Allow) -> String {
    let Allow { methods, paths, models, classes, actions, response_headers, upgrades, range } = allow;
    let every_method = matches!(&**methods, [MethodPattern::Any]);
    let every_path = matches!(&**paths, [path] if *path == PathPattern::any());
    let mut words = match (every_method, every_path) {
        (true, true) => "every method and path".to_owned(),
        (true, false) => format!("every method on {}", joined(paths)),
        (false, true) => format!("{} on every path", joined(methods)),
        (false, false) => format!("{} {}", joined(methods), joined(paths)),
    };
    if !models.is_empty() {
        words += &format!(", with model {}", joined(models));
    }
    if !actions.is_empty() {
        words += &format!(", naming action {}", joined(actions));
    }
    if !classes.is_empty() {
        words +=
            &format!(", also endpoints of class {}", joined(classes.iter().map(|class| class_word(*class))));
    }
    if !response_headers.is_empty() {
        words += &format!(", with {} in answers", joined(response_headers));
    }
    if !upgrades.is_empty() {
        words += &format!(", with upgrade to {}", joined(upgrades));
    }
    if *range {
        words += ", with `Range`";
    }
    words
}

/// What limits a grant, in one line.
pub fn limited(limits: &[Limit]) -> String {
    match limits {
        [] => "without a limit of its own".to_owned(),
        limits => format!("up to {}", limits.iter().map(limit).collect::<Vec<_>>().join(", ")),
    }
}

/// A limit, as one would say it.
pub(super) fn limit(limit: &Limit) -> String {
    let amount = match limit.unit {
        Unit::Spend => NanoUsd(limit.amount).to_string(),
        Unit::Requests => format!("{} requests", limit.amount),
        Unit::Tokens => format!("{} tokens", limit.amount),
        Unit::InputTokens => format!("{} input tokens", limit.amount),
        Unit::OutputTokens => format!("{} output tokens", limit.amount),
        Unit::CachedTokens => format!("{} cached tokens", limit.amount),
        Unit::ReasoningTokens => format!("{} reasoning tokens", limit.amount),
        Unit::Concurrency => format!("{} calls at one time", limit.amount),
        Unit::Bytes => format!("{} bytes", limit.amount),
        Unit::Seconds => format!("{} seconds of connections", limit.amount),
    };
    let per = LimitId::read(&limit.id).and_then(|id| id.per);
    let per = per.map_or_else(String::new, |per| format!(" per {per}"));
    let how = match &limit.kind {
        LimitKind::Concurrent => String::new(),
        LimitKind::Gcra { burst, .. } => format!(" and {burst} at once"),
        LimitKind::Counted(Window::Rolling { .. }) => " (rolling)".to_owned(),
        LimitKind::Counted(Window::Calendar { timezone, .. }) => match timezone.iana_name() {
            None | Some("UTC" | "Etc/UTC") => String::new(),
            Some(name) => format!(" ({name})"),
        },
    };
    let key = match limit.key {
        LimitKey::Shared => "",
        LimitKey::Namespace => " for each namespace",
        LimitKey::Caller => " for each caller",
    };
    let whose = match &limit.owner {
        Owner::Grant(_) => String::new(),
        Owner::Budget(id) => format!(" by budget {id}"),
    };
    let then = match &limit.on_exhausted {
        OnExhausted::Deny => String::new(),
        OnExhausted::Flag => ", past which calls are marked".to_owned(),
        OnExhausted::Downgrade(model) => format!(", past which calls are made with {model}"),
    };
    let raised = if limit.raises.is_empty() { "" } else { ", raised for a time" };
    format!("{amount}{per}{how}{key}{whose}{then}{raised}")
}

/// Where the keys of a credential are read, and how one is put on a call.
pub fn reading(credential: &Credential) -> String {
    let keys: Vec<String> = credential.keys.iter().map(|key| credential.reference(key)).collect();
    keys.join(", ")
}

/// What a call by this grant has on it.
pub(super) fn carried(grant: &Grant) -> String {
    let mut words = match &grant.credential {
        Some(credential) => format!("with credential {}", credential.name),
        None => "without a credential".to_owned(),
    };
    if let Some(audience) = &grant.caller_token {
        words += &format!(" and the caller's own token for {audience}");
    }
    words
}

/// What a destination takes.
pub(super) const fn passed(protocol: &Protocol) -> &'static str {
    match protocol {
        Protocol::Http(_) => "requests",
        Protocol::Tcp(tcp) => match tcp.tls {
            TunnelTls::Opaque => "connections as they are",
            TunnelTls::Callers => "connections with the callers' own TLS",
            TunnelTls::Originated(_) => "connections, in the gateway's TLS",
        },
        Protocol::Postgres => "sessions of PostgreSQL",
    }
}

pub(super) fn class(class: Class) -> &'static str {
    class_word(class)
}

/// With commas between.
pub(super) fn joined<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}
