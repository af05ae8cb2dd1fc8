//! `tollgate access list`: every grant, with whom it is for and what it is about.

use std::io::{self, Write};

use anstyle::Style;
use clap::Args;
use serde::Serialize;
use tollgate_policy::access::{allowed, limited};
use tollgate_policy::caller::Identity;
use tollgate_policy::name::{Name, ResourceId};
use tollgate_policy::policy::{Grant, Policy};

use super::{policy, state};
use crate::cli::check::CheckArgs;
use crate::cli::output;
use crate::table::{Column, Cut, Page, Table, YELLOW, counted, visible};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate access list
  tollgate access list resources --trust-domain prod.acme --destination openai
  tollgate access list --caller spiffe://prod.acme/ns/shop/sa/web --json")]
pub(super) struct ListArgs {
    #[command(flatten)]
    configuration: CheckArgs,
    /// Only grants that are for this caller
    #[arg(long, value_name = "CALLER")]
    caller: Option<Identity>,
    /// Only grants for this destination
    #[arg(long, value_name = "DESTINATION")]
    destination: Option<ResourceId>,
    /// Only grants that use this credential
    #[arg(long, value_name = "CREDENTIAL")]
    credential: Option<ResourceId>,
    /// Only grants of this namespace
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<Name>,
    /// Print an array of objects, for programs
    #[arg(long)]
    json: bool,
}

/// A grant, for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Access {
    grant: String,
    callers: Vec<String>,
    destination: String,
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller_token: Option<String>,
    methods: Vec<String>,
    paths: Vec<String>,
    models: Vec<String>,
    actions: Vec<String>,
    classes: Vec<&'static str>,
    limits: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    suspended: Option<String>,
    hash: String,
}

pub(super) fn run(args: &ListArgs) -> anyhow::Result<()> {
    let policy = policy(&args.configuration)?;
    let grants: Vec<&Grant> = policy.grants().map(AsRef::as_ref).filter(|grant| args.has(grant)).collect();
    output::print("the list", |out| match args.json {
        true => output::json(&grants.iter().map(|grant| Access::of(&policy, grant)).collect::<Vec<_>>(), out),
        false => write_table(&grants, out, Page::stdout()),
    })
}

impl ListArgs {
    fn has(&self, grant: &Grant) -> bool {
        let Self { configuration: _, caller, destination, credential, namespace, json: _ } = self;
        let key = grant.credential.as_ref().map(|credential| &credential.name);
        caller.as_ref().is_none_or(|caller| grant.callers.iter().any(|pattern| pattern.matches(caller)))
            && destination.as_ref().is_none_or(|destination| *destination == grant.destination.name)
            && credential.as_ref().is_none_or(|credential| Some(credential) == key)
            && namespace.as_ref().is_none_or(|namespace| namespace.as_str() == grant.name.namespace())
    }
}

impl Access {
    fn of(policy: &Policy, grant: &Grant) -> Self {
        let allow = &grant.allow;
        Self {
            grant: grant.name.to_string(),
            callers: texts(&grant.callers),
            destination: grant.destination.name.to_string(),
            hosts: texts(&grant.destination.hosts),
            credential: grant.credential.as_ref().map(|credential| credential.name.to_string()),
            caller_token: grant.caller_token.as_deref().map(str::to_owned),
            methods: texts(&allow.methods),
            paths: texts(&allow.paths),
            models: texts(&allow.models),
            actions: texts(&allow.actions),
            classes: allow.classes.iter().map(|class| class.as_str()).collect(),
            limits: limited(&grant.limits),
            state: state(grant),
            suspended: grant.suspended.as_deref().map(str::to_owned),
            hash: policy.hash(grant).to_string(),
        }
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

const COLUMNS: [Column; 7] = [
    Column::text("grant", Cut::End),
    Column::text("callers", Cut::Start),
    Column::text("destination", Cut::End),
    Column::text("credential", Cut::End).spare(1),
    Column::text("may call", Cut::End),
    Column::text("how much", Cut::End).spare(2),
    Column::text("state", Cut::Never).tinted(tint),
];

fn tint(state: &str) -> Option<Style> {
    ["broken", "suspended", "not approved"].contains(&state).then_some(YELLOW)
}

fn write_table(grants: &[&Grant], out: &mut impl Write, page: Page) -> io::Result<()> {
    if grants.is_empty() {
        return writeln!(out, "No grants.");
    }
    let mut table = Table::new(COLUMNS);
    for grant in grants {
        // A line for each of its callers, and all the rest in the first of them.
        for (index, caller) in grant.callers.iter().enumerate() {
            let first = |text: String| if index == 0 { visible(&text) } else { String::new() };
            let credential = grant.credential.as_ref().map(|credential| credential.name.to_string());
            table.row(vec![
                first(grant.name.to_string()),
                visible(&caller.to_string()),
                first(grant.destination.name.to_string()),
                first(credential.unwrap_or_default()),
                first(allowed(&grant.allow)),
                first(limited(&grant.limits)),
                first(state(grant).to_owned()),
            ]);
        }
    }
    table.write(out, page)?;
    writeln!(out, "{}", counted(grants.len(), "grant"))
}
