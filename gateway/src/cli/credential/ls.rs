//! `tollgate credential ls`: from the running gateway, or else from the resources alone.

use std::io::{self, Write};
use std::net::SocketAddr;

use anstyle::Style;
use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::Gateway;
use crate::app;
use crate::cli::admin;
use crate::cli::check::Subject;
use crate::cli::{complain, output};
use crate::credentials::{self, KeyListing};
use crate::table::{Column, Cut, Page, Table, YELLOW, visible};

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate credential ls --format json")]
pub(super) struct LsArgs {
    #[command(flatten)]
    gateway: Gateway,
    /// Where its admin port listens, where the settings leave the port to the system
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs: an array of objects
    Json,
}

pub(super) fn run(args: &LsArgs) -> anyhow::Result<()> {
    let listed = listed(args)?;
    output::print("the list", |out| match args.format {
        Format::Table => write_table(&listed, Timestamp::now(), out, Page::stdout()),
        Format::Json => output::json(&listed, out),
    })
}

fn listed(args: &LsArgs) -> anyhow::Result<Vec<KeyListing>> {
    let (settings, subject) = Subject::of_settings(args.gateway.config.clone())?;
    let address = args.admin.unwrap_or(settings.admin.address);
    if let Some(body) = admin::get(address, &settings.admin.token_file, "/debug/credentials")? {
        return serde_json::from_slice(&body)
            .with_context(|| format!("the gateway at {address} is of another version"));
    }
    let chosen = if address.port() == 0 { ", whose port the system chose (--admin names it)" } else { "" };
    complain(&format!("note: no gateway answers at {address}{chosen}; this is what the resources alone say"));
    let (snapshot, _) =
        subject.build(&subject.read()?).map_err(|problems| anyhow!("{}", app::lines(&problems)))?;
    Ok(credentials::of(&snapshot.policy))
}

const COLUMNS: [Column; 11] = [
    Column::text("credential", Cut::End),
    Column::text("key", Cut::End),
    Column::text("secret", Cut::End).spare(1),
    Column::text("store", Cut::End).spare(8),
    Column::text("put on as", Cut::End).spare(7),
    Column::text("destinations", Cut::End).spare(6),
    Column::text("version", Cut::Never).spare(2),
    Column::text("age", Cut::Never).spare(4),
    Column::text("refresh in", Cut::Never).spare(5),
    Column::text("last use", Cut::Never).spare(3),
    Column::text("health", Cut::End).tinted(tint),
];

fn tint(health: &str) -> Option<Style> {
    (!["well", "-"].contains(&health)).then_some(YELLOW)
}

fn write_table(listed: &[KeyListing], now: Timestamp, out: &mut impl Write, page: Page) -> io::Result<()> {
    if listed.is_empty() {
        return writeln!(out, "No credentials.");
    }
    let mut table = Table::new(COLUMNS);
    listed.iter().for_each(|credential| table.row(row(credential, now)));
    table.write(out, page).map(drop)
}

fn row(credential: &KeyListing, now: Timestamp) -> Vec<String> {
    let none = || "-".to_owned();
    let time = |seconds: Option<u64>| seconds.map_or_else(none, short);
    let last_use = credential.last_use.map_or_else(none, |at| {
        let ago = now.duration_since(at).as_secs();
        format!("{} ago", short(u64::try_from(ago).unwrap_or_default()))
    });
    vec![
        visible(&credential.name),
        key(credential),
        visible(&credential.secret),
        visible(&credential.store_kind),
        visible(&credential.inject),
        visible(&credential.destinations.join(",")),
        credential.version.as_deref().map_or_else(none, visible),
        time(credential.age_seconds),
        time(credential.refresh_in_seconds),
        last_use,
        health(credential),
    ]
}

/// Its alias, and its part of the callers.
fn key(credential: &KeyListing) -> String {
    match (&credential.alias, credential.weight) {
        (None, _) => "-".to_owned(),
        (Some(alias), Some(0)) => format!("{} (standby)", visible(alias)),
        (Some(alias), weight) => format!("{} ×{}", visible(alias), weight.unwrap_or(1)),
    }
}

fn health(credential: &KeyListing) -> String {
    let Some(health) = &credential.health else { return "-".to_owned() };
    let rest = credential.state.as_ref().zip(credential.rest_seconds);
    let rest = rest.map(|(state, seconds)| format!("{state} for {}", short(seconds)));
    // Its secret is well, and the key is not.
    if let Some(rest) = rest.as_deref().filter(|_| health == "well") {
        return visible(rest);
    }
    let rejected =
        credential.rejected_seconds.map(|seconds| format!("rejected by provider for {}", short(seconds)));
    let mut text = match (&rejected, health.as_str()) {
        (Some(rejected), "rejected") => rejected.clone(),
        _ => health.clone(),
    };
    if let Some(seconds) = credential.stale_seconds {
        text.push_str(&format!(" for {}", short(seconds)));
    }
    if let Some(reason) = &credential.reason {
        text.push_str(&format!(": {reason}"));
    }
    if let Some(rejected) = rejected.filter(|_| health != "rejected") {
        text.push_str(&format!(", {rejected}"));
    }
    if let Some(rest) = rest {
        text.push_str(&format!(", {rest}"));
    }
    visible(&text)
}

/// A duration in the unit that says enough.
fn short(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> KeyListing {
        KeyListing {
            name: "openai-prod".into(),
            secret: "bao:llm/openai#api_key".into(),
            store_kind: "vault".into(),
            inject: "bearer".into(),
            destinations: vec!["openai".into()],
            ..KeyListing::default()
        }
    }

    fn table(listed: &[KeyListing]) -> Vec<String> {
        let mut out = Vec::new();
        write_table(listed, "2026-11-01T10:10:00Z".parse().unwrap(), &mut out, Page::default()).unwrap();
        String::from_utf8(out)
            .unwrap()
            .lines()
            .skip(2)
            .map(|line| {
                line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("|")
            })
            .collect()
    }

    #[test]
    fn a_row_says_how_old_how_used_and_how_well() {
        let stale = KeyListing {
            version: Some("7".into()),
            age_seconds: Some(420),
            refresh_in_seconds: Some(15),
            last_use: Some("2026-11-01T10:09:00Z".parse().unwrap()),
            health: Some("stale".into()),
            stale_seconds: Some(180),
            reason: Some("sealed".into()),
            ..listed()
        };
        let common = "openai-prod|-|bao:llm/openai#api_key|vault|bearer|openai";
        assert_eq!(
            table(&[stale, listed()]),
            [format!("{common}|7|7m|15s|60s ago|stale for 3m: sealed"), format!("{common}|-|-|-|-|-")]
        );
    }

    #[test]
    fn a_key_that_rests_is_not_called_well() {
        let resting = |health: &str| {
            let (state, rest_seconds) = (Some("benched".into()), Some(28));
            super::health(&KeyListing { health: Some(health.into()), state, rest_seconds, ..listed() })
        };
        assert_eq!(resting("well"), "benched for 28s");
        assert_eq!(resting("stale"), "stale, benched for 28s");
        let rejected = |state: Option<&str>| {
            let (state, rest_seconds) = (state.map(Into::into), state.map(|_| 28));
            let health = Some("rejected".into());
            super::health(&KeyListing {
                health,
                rejected_seconds: Some(130),
                state,
                rest_seconds,
                ..listed()
            })
        };
        assert_eq!(rejected(None), "rejected by provider for 2m");
        assert_eq!(rejected(Some("benched")), "rejected by provider for 2m, benched for 28s");
        let (stale, reason) = (Some("stale".into()), Some("sealed".into()));
        let both = KeyListing {
            health: stale,
            reason,
            stale_seconds: Some(9),
            rejected_seconds: Some(130),
            ..listed()
        };
        assert_eq!(health(&both), "stale for 9s: sealed, rejected by provider for 2m");
        let usable = KeyListing { health: Some("well".into()), state: Some("usable".into()), ..listed() };
        assert_eq!(health(&usable), "well");
    }

    #[test]
    fn a_duration_is_short() {
        let texts = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(short);
        assert_eq!(texts, ["0s", "119s", "2m", "119m", "2h", "47h", "2d"]);
    }
}
