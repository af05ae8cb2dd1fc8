//! `kind: Credential`, as it is written.

use serde::Deserialize;

use super::field::{Interval, List};
use crate::name::Name;
use crate::pattern::HostPattern;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct CredentialSpec {
    pub(crate) destinations: List<Name>,
    pub(crate) from: Option<FromSpec>,
    pub(crate) inject: Option<InjectSpec>,
    pub(crate) refresh: Option<Interval>,
    pub(crate) max_stale: Option<Interval>,
    pub(crate) wildcard_hosts: List<HostPattern>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct FromSpec {
    pub(crate) store: Option<Name>,
    pub(crate) path: Option<String>,
    pub(crate) field: Option<String>,
    pub(crate) version: Option<u64>,
    pub(crate) dynamic: Option<bool>,
}

/// Exactly one of the fields.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct InjectSpec {
    pub(crate) bearer: Option<BearerSpec>,
    pub(crate) header: Option<HeaderSpec>,
    pub(crate) basic: Option<BasicSpec>,
    pub(crate) query: Option<QuerySpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BearerSpec {}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct HeaderSpec {
    pub(crate) name: Option<String>,
    pub(crate) prefix: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct BasicSpec {
    pub(crate) username: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub(crate) struct QuerySpec {
    pub(crate) name: Option<String>,
}
