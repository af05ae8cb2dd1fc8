//! `tollgate budget raise`: a raise with its end, its reason and who it is by, written where the Budget is written.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use serde_json::Value;
use tollgate_policy::limit::{LimitKey, Per, Unit};
use tollgate_policy::model::Interval;
use tollgate_policy::name::ResourceId;

use super::outcome::{added, told};
use super::{edit, in_cluster};
use crate::app;
use crate::cli::check::Subject;
use crate::cli::say;
use crate::settings::{KubernetesSettings, ResourceSettings};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate budget raise team --by \"200 USD\" --until 2026-12-31T00:00:00Z --reason \"launch week\"
  tollgate budget raise shop/team --by \"1000000 tokens\" --until 3d --reason import --dry-run")]
pub(super) struct RaiseArgs {
    /// The Budget
    #[arg(value_name = "NAME")]
    budget: ResourceId,
    /// By how much: money as "200 USD", or a number with the unit of the limit, as in "1000 requests" or "50000 outputTokens"
    #[arg(long, value_name = "AMOUNT")]
    by: String,
    /// When it ends: a time as 2026-12-31T00:00:00Z, or how long from now (12h, 7d)
    #[arg(long, value_name = "WHEN")]
    until: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who raises it; the user of this machine unless given
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
    /// Of which limit, where several have this unit
    #[arg(long, value_parser = PossibleValuesParser::new(Per::ALL.map(Per::as_str)))]
    per: Option<String>,
    /// Of which limit, where several have this unit
    #[arg(long, value_parser = PossibleValuesParser::new(LimitKey::ALL.map(LimitKey::as_str)))]
    key: Option<String>,
    /// Check it and show it, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// The kubeconfig of the cluster whose Budget it is, where the settings do not say
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Settings of the process; tollgate.yaml unless given
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &RaiseArgs) -> anyhow::Result<()> {
    let item = item(args, Timestamp::now())?;
    let cluster = match &args.kubeconfig {
        Some(file) => KubernetesSettings { kubeconfig: Some(file.clone()), ..KubernetesSettings::default() },
        None => {
            let (settings, subject) = Subject::of_settings(args.config.clone())?;
            match settings.resources {
                ResourceSettings::Directory(_) => return in_files(args, &subject, &item),
                ResourceSettings::Kubernetes(cluster) => cluster,
            }
        }
    };
    let (policy, raise) = in_cluster::raise(&cluster, (&args.budget, &item), args.dry_run)?;
    if args.dry_run {
        say(&format!("would be added to the Budget {}, and is not:\n  - {item}", args.budget));
    }
    say(&told(&policy, &raise, Timestamp::now()));
    Ok(())
}

/// The raise as YAML in braces, which the compiler still has to judge.
fn item(args: &RaiseArgs, now: Timestamp) -> anyhow::Result<String> {
    let until = end(&args.until, now)?;
    let who = match &args.who {
        Some(who) => who.clone(),
        None => user().context("--who: this user of the machine has no name: say who raises it")?,
    };
    let text = |text: &str| Value::from(text).to_string();
    let mut members = vec![amount(&args.by)?];
    members.extend(args.per.iter().map(|per| format!("per: {per}")));
    members.extend(args.key.iter().map(|key| format!("key: {key}")));
    members.push(format!("until: \"{until}\""));
    members.push(format!("by: {}", text(&who)));
    members.push(format!("reason: {}", text(&args.reason)));
    Ok(format!("{{{}}}", members.join(", ")))
}

fn amount(by: &str) -> anyhow::Result<String> {
    let units = || Unit::ALL.into_iter().filter(|unit| *unit != Unit::Spend).map(Unit::as_str);
    let form = || {
        let units: Vec<_> = units().collect();
        format!("write \"200 USD\", or a number with one of {}", units.join(", "))
    };
    let Some((number, unit)) = by.trim().split_once(' ') else {
        bail!("--by: `{by}` has no unit: {}", form())
    };
    match unit.trim() {
        "USD" => Ok(format!("spend: {number} USD")),
        unit if units().any(|known| known == unit) => match number.parse::<u64>() {
            Ok(number) => Ok(format!("{unit}: {number}")),
            Err(_) => bail!("--by: `{number}` is no whole number: {}", form()),
        },
        unit => bail!("--by: `{unit}` is no unit: {}", form()),
    }
}

fn end(until: &str, now: Timestamp) -> anyhow::Result<Timestamp> {
    let until: Timestamp = match (until.parse::<Timestamp>(), until.parse::<Interval>()) {
        (Ok(until), _) => until,
        (_, Ok(Interval(length))) => {
            let until = now.checked_add(length).context("--until: that is too far away")?;
            until.round(jiff::Unit::Second)?
        }
        _ => {
            bail!("--until: `{until}` is neither a time, as in 2026-12-31T00:00:00Z, nor how long, as in 7d")
        }
    };
    if until <= now {
        bail!("--until: {until} is over");
    }
    Ok(until)
}

fn user() -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok()??;
    Some(user.name)
}

fn in_files(args: &RaiseArgs, subject: &Subject, item: &str) -> anyhow::Result<()> {
    let mut sources = subject.read()?;
    let lines = |problems: Vec<_>| anyhow!("{}", app::lines(&problems));
    let (before, _) =
        subject.build(&sources).map_err(lines).context("the resources have problems already")?;
    let mut written = None;
    for file in &mut sources.files {
        let made = edit::with_raise(&file.text, &args.budget, item);
        let made = made.map_err(|why| {
            let path = file.path.display();
            anyhow!("{path}: {why}. Add this to `spec.raises` of {} by hand:\n  - {item}", args.budget)
        })?;
        if let Some(made) = made {
            file.text = made;
            written = Some((file.path.clone(), file.text.clone()));
            break;
        }
    }
    let Some((path, text)) = written else { bail!("there is no Budget {}", args.budget) };
    let (after, _) = subject.build(&sources).map_err(lines)?;
    let raise = added(&args.budget, &before.policy, &after.policy).ok_or_else(|| {
        anyhow!("{}: this would change more than the raise: add it by hand", path.display())
    })?;
    if args.dry_run {
        say(&format!("would be added to {}, and is not:\n  - {item}", path.display()));
    } else {
        replace(&path, &text).with_context(|| format!("{}", path.display()))?;
    }
    say(&told(&after.policy, &raise, Timestamp::now()));
    Ok(())
}

/// Puts a text in the place of a file's, with its mode. Whoever reads it meanwhile has the one or the other.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    // A link stays one.
    let path = std::fs::canonicalize(path)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".raise-").tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    let before = std::fs::metadata(&path)?;
    // Whoever reads it goes on doing so, also where another user has run this.
    fchown(file.as_file(), Some(before.uid()), Some(before.gid()))?;
    file.as_file().set_permissions(before.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_has_a_unit_and_an_end_is_to_come() {
        assert_eq!(amount("200.50 USD").unwrap(), "spend: 200.50 USD");
        assert_eq!(amount("7 tokens").unwrap(), "tokens: 7");
        for wrong in ["200", "7 apples", "x tokens", "-1 requests"] {
            assert!(amount(wrong).unwrap_err().to_string().contains("--by"), "{wrong}");
        }
        let now = "2026-07-01T12:00:00.5Z".parse().unwrap();
        assert_eq!(end("7d", now).unwrap().to_string(), "2026-07-08T12:00:01Z");
        assert_eq!(end("2026-07-02T00:00:00Z", now).unwrap().to_string(), "2026-07-02T00:00:00Z");
        for wrong in ["2026-07-01T12:00:00Z", "soon"] {
            assert!(end(wrong, now).unwrap_err().to_string().contains("--until"), "{wrong}");
        }
    }
}
