//! `tollgate prices`: what the catalog says that models cost.

use std::io::{self, Write};

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tollgate_policy::model::nearest;
use tollgate_policy::price::{Item, ListedModel, ListedTier, NanoUsd, Price, PriceTable};

use super::output;
use crate::app;
use crate::report::usd;
use crate::table::{BOLD, Column, Cut, Page, Table, grouped};

#[derive(Debug, Args)]
pub(super) struct PricesArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the models that have a price, with what a million tokens cost now
    Ls(LsArgs),
    /// Show all prices of one model: units, tiers, long contexts, dates and source
    Show(ShowArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate prices ls --provider anthropic")]
struct LsArgs {
    /// Only this provider's
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  tollgate prices show gpt-5-mini")]
struct ShowArgs {
    /// Its name, one of its other names, or a dated snapshot of it
    model: String,
    /// Where several providers have a model of this name
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Table,
    /// For programs
    Json,
}

pub(super) fn run(args: &PricesArgs) -> anyhow::Result<()> {
    let environment = app::environment_of(&[], &[])?;
    let prices = environment.catalog.prices();
    let now = Timestamp::now();
    match &args.command {
        Command::Ls(args) => {
            let models = of_provider(prices, args.provider.as_deref())?;
            output::print("the prices", |out| match args.format {
                Format::Table => write_list(prices, &models, now, out, Page::stdout()),
                Format::Json => {
                    output::json(&models.iter().map(|model| object(prices, model)).collect::<Vec<_>>(), out)
                }
            })
        }
        Command::Show(args) => {
            let models = of_provider(prices, args.provider.as_deref())?;
            let found = find(prices, models, &args.model)?;
            output::print("the prices", |out| match args.format {
                Format::Table => {
                    found.iter().try_for_each(|model| write_model(prices, model, now, out, Page::stdout()))
                }
                Format::Json => {
                    output::json(&found.iter().map(|model| object(prices, model)).collect::<Vec<_>>(), out)
                }
            })
        }
    }
}

fn of_provider<'a>(prices: &'a PriceTable, provider: Option<&str>) -> anyhow::Result<Vec<ListedModel<'a>>> {
    let mut models = prices.models();
    let mut known: Vec<&str> = models.iter().map(|model| model.provider).collect();
    known.dedup();
    if let Some(provider) = provider {
        if !known.contains(&provider) {
            bail!("there are no prices of `{provider}`; there are those of {}", known.join(", "));
        }
        models.retain(|model| model.provider == provider);
    }
    Ok(models)
}

fn find<'a>(
    prices: &PriceTable,
    models: Vec<ListedModel<'a>>,
    wanted: &str,
) -> anyhow::Result<Vec<ListedModel<'a>>> {
    let names: Vec<String> = models.iter().map(|model| model.model.to_owned()).collect();
    let is_it = |model: &ListedModel<'_>| prices.canonical_model(model.provider, wanted) == Some(model.model);
    let found: Vec<_> = models.into_iter().filter(is_it).collect();
    if found.is_empty() {
        let guess = nearest(wanted, names.iter().map(String::as_str));
        let guess = guess.map_or_else(String::new, |guess| format!("; did you mean {guess}?"));
        bail!("there is no price of `{wanted}`{guess} (`tollgate prices ls` shows all)");
    }
    Ok(found)
}

/// The price in force, or the first there will be.
fn current(prices: &[std::sync::Arc<Price>], now: Timestamp) -> Option<&Price> {
    let begun = prices.iter().rev().find(|price| price.valid_from() <= now);
    begun.or_else(|| prices.first()).map(|price| &**price)
}

fn day(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).date().to_string()
}

fn rate(rates: &[(Item, NanoUsd)], item: Item) -> String {
    let rate = rates.iter().find(|(other, _)| *other == item);
    rate.map_or_else(|| "-".to_owned(), |(_, rate)| usd(rate.0.into(), 2))
}

fn count(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| grouped(&count.to_string()))
}

fn write_list(
    prices: &PriceTable,
    models: &[ListedModel<'_>],
    now: Timestamp,
    out: &mut impl Write,
    page: Page,
) -> io::Result<()> {
    let mut table = Table::new([
        Column::text("provider", Cut::End),
        Column::text("model", Cut::End),
        Column::number("input"),
        Column::number("cache read").spare(1),
        Column::number("output"),
        Column::number("window").spare(3),
        Column::number("most output").spare(4),
        Column::text("since", Cut::Never).spare(2),
        Column::text("other tiers", Cut::End).spare(5),
    ]);
    for model in models {
        let Some(price) = current(model.prices, now) else { continue };
        let tiers = price.tiers();
        let rates = tiers.first().map(|tier| &*tier.rates).unwrap_or_default();
        let words: Vec<&str> = tiers.iter().filter_map(|tier| tier.word).collect();
        table.row(vec![
            model.provider.to_owned(),
            model.model.to_owned(),
            rate(rates, Item::Input),
            rate(rates, Item::CacheRead),
            rate(rates, Item::Output),
            count(price.context_window()),
            count(price.max_output()),
            day(price.valid_from()),
            if words.is_empty() { "-".to_owned() } else { words.join(",") },
        ]);
    }
    table.write(out, page)?;
    writeln!(
        out,
        "USD for a million tokens; figures of {}.",
        as_of(prices, models.iter().map(|model| model.provider))
    )
}

/// Of which days the figures of these providers are.
pub(super) fn as_of<'a>(prices: &PriceTable, providers: impl Iterator<Item = &'a str>) -> String {
    let mut providers: Vec<&str> = providers.collect();
    providers.sort_unstable();
    providers.dedup();
    let said = providers.iter().filter_map(|name| Some(format!("{name} of {}", prices.as_of(name)?)));
    said.collect::<Vec<_>>().join(", ")
}

fn write_model(
    prices: &PriceTable,
    model: &ListedModel<'_>,
    now: Timestamp,
    out: &mut impl Write,
    page: Page,
) -> io::Result<()> {
    writeln!(out, "{}", page.paint(&format!("{} ({})", model.model, model.provider), BOLD))?;
    if !model.aliases.is_empty() {
        writeln!(out, "  also called  {}", model.aliases.join(", "))?;
    }
    let in_force = current(model.prices, now).map(Price::valid_from);
    for price in model.prices {
        let future = if price.valid_from() > now { ", in the future" } else { "" };
        let is = if Some(price.valid_from()) == in_force { " (in force)" } else { future };
        writeln!(out, "\n{}", page.paint(&format!("From {} on{is}", day(price.valid_from())), BOLD))?;
        let (window, most) = (count(price.context_window()), count(price.max_output()));
        writeln!(out, "  window {window} tokens, most output {most} tokens")?;
        writeln!(out, "  source {}, named {} in records", price.source(), price.version())?;
        for (word, permille, asked) in price.surcharges() {
            let on = if asked {
                "where a call asks for it"
            } else {
                "where the account has it, or a call asks for it"
            };
            let factor = format!("{}.{:03}", permille / 1000, permille % 1000);
            writeln!(out, "  surcharge {word}: all tokens times {factor}, {on}")?;
        }
        write_rates(price, out, page)?;
    }
    writeln!(
        out,
        "\nUSD for a million of each unit; figures of {}.",
        as_of(prices, std::iter::once(model.provider))
    )
}

fn write_rates(price: &Price, out: &mut impl Write, page: Page) -> io::Result<()> {
    let mut table = Table::new([
        Column::text("tier", Cut::Never),
        Column::text("context", Cut::Never),
        Column::text("unit", Cut::Never),
        Column::number("USD"),
    ]);
    for tier in price.tiers() {
        let word = match (tier.word, tier.asked) {
            (None, _) => "standard".to_owned(),
            (Some(word), true) => format!("{word} (asked for)"),
            (Some(word), false) => word.to_owned(),
        };
        let long = tier
            .long_context
            .as_ref()
            .map(|(above, rates)| (format!("above {}", grouped(&above.to_string())), rates));
        for (context, rates) in std::iter::once(("-".to_owned(), &tier.rates)).chain(long) {
            for (item, rate) in rates {
                let cells = [word.clone(), context.clone(), item.as_str().to_owned(), usd(rate.0.into(), 2)];
                table.row(cells.into());
            }
        }
    }
    table.write(out, page).map(drop)
}

fn object(prices: &PriceTable, model: &ListedModel<'_>) -> Value {
    let rates = |rates: &[(Item, NanoUsd)]| {
        let each = rates.iter().map(|(item, rate)| (item.as_str().to_owned(), usd(rate.0.into(), 0).into()));
        Value::Object(each.collect())
    };
    let tier = |tier: &ListedTier<'_>| {
        let long = tier.long_context.as_ref();
        let long = long.map(|(above, of_long)| json!({"above": above, "usd_per_million": rates(of_long)}));
        json!({
            "tier": tier.word.unwrap_or("standard"), "only_if_asked": tier.asked, "usd_per_million": rates(&tier.rates),
            "long_context": long,
        })
    };
    let price = |price: &std::sync::Arc<Price>| {
        let surcharges = price.surcharges().map(
            |(word, permille, asked)| json!({"word": word, "permille": permille, "only_if_asked": asked}),
        );
        json!({
            "valid_from": day(price.valid_from()), "version": price.version(), "source": price.source(),
            "context_window": price.context_window(), "max_output": price.max_output(),
            "tiers": price.tiers().iter().map(tier).collect::<Vec<_>>(), "surcharges": surcharges.collect::<Vec<_>>(),
        })
    };
    json!({
        "provider": model.provider, "model": model.model, "aliases": model.aliases,
        "as_of": prices.as_of(model.provider).map(|day| day.to_string()),
        "prices": model.prices.iter().map(price).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&PriceTable, &mut Vec<u8>) -> io::Result<()>) -> String {
        let environment = app::environment_of(&[], &[]).unwrap();
        let mut out = Vec::new();
        write(environment.catalog.prices(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_model_with_a_price_is_listed_with_the_day_of_the_figures() {
        let list = text(|prices, out| {
            let models = of_provider(prices, None).unwrap();
            assert!(models.iter().all(|model| prices.as_of(model.provider).is_some()));
            write_list(prices, &models, Timestamp::now(), out, Page::default())
        });
        assert!(list.contains("gpt-5-mini") && list.contains("claude-"), "{list}");
        assert!(list.contains("anthropic of 2026-") && list.contains("openai of 2026-"), "{list}");
        let one = text(|prices, out| {
            let models = of_provider(prices, Some("anthropic")).unwrap();
            write_list(prices, &models, Timestamp::now(), out, Page { width: Some(80), colour: false })
        });
        assert!(!one.contains("gpt-5") && one.lines().all(|line| line.chars().count() <= 80), "{one}");
    }

    #[test]
    fn a_model_is_found_by_each_of_its_names_and_a_misspelt_one_is_guessed() {
        let shown = text(|prices, out| {
            let models = of_provider(prices, None).unwrap();
            let found = find(prices, models, "gpt-5-mini-2025-08-07").unwrap();
            let error =
                find(prices, of_provider(prices, None).unwrap(), "gpt-5-mimi").unwrap_err().to_string();
            assert!(error.contains("did you mean gpt-5-mini?"), "{error}");
            assert!(of_provider(prices, Some("openia")).is_err());
            let json = object(prices, &found[0]);
            assert_eq!(json["model"], "gpt-5-mini");
            assert!(json["prices"][0]["tiers"][0]["usd_per_million"]["output"].is_string(), "{json}");
            write_model(prices, &found[0], Timestamp::now(), out, Page::default())
        });
        for word in [
            "gpt-5-mini (openai)",
            "(in force)",
            "source https://",
            "cache_read",
            "USD for a million of each unit",
        ] {
            assert!(shown.contains(word), "{word}\n{shown}");
        }
    }
}
