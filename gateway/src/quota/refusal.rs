//! What a caller is told of the limit that refuses its call: which one, its amount, what is used and held of it, what the call may take,
//! and when there is room again.

use std::time::Duration;

use jiff::Timestamp;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::limit::{Counter, Limit, LimitKind, LimitState, Refused, Unit, Usage};
use tollgate_policy::price::NanoUsd;

use super::Demand;
use super::counter::{CounterState, KeyedCounter, lock};
use super::key::Keys;
use super::plan::Item;

/// How long a caller should wait at least, and for other calls to end.
pub(super) const SHORT_RETRY: Duration = Duration::from_secs(1);

/// Why a counted limit would refuse the call; nothing of it is taken.
#[cold]
pub(super) fn counted(item: &Item, keys: &Keys<'_>, demand: &Demand, now: Timestamp) -> Option<Denial> {
    let (limit, amount) = (item.limit.at(now), demand.of(item.limit.unit));
    let limit = &*limit;
    let cell = item.counts.cell(keys.get(limit.key), limit, now);
    let (CounterState::Counted(counter), LimitKind::Counted(window)) = (&cell.state, &limit.kind) else {
        return None;
    };
    let mut counter = lock(counter);
    let usage = counter.usage(window, now);
    let cap = cell.reach(limit, usage).cap;
    let refused = counter.refusal(window, cap, amount, now)?;
    Some(over_reach(&cell, (limit, amount), refused, &mut counter, now))
}

/// The call does not fit into what this replica may take, which is all there is where nobody shares it.
#[cold]
pub(super) fn over_reach(
    cell: &KeyedCounter,
    (limit, needed): (&Limit, u64),
    refused: Refused,
    counter: &mut Counter,
    now: Timestamp,
) -> Denial {
    let (Some(lease), LimitKind::Counted(window)) = (&cell.lease, &limit.kind) else {
        return over_budget((limit, needed), refused, (counter, 0), now);
    };
    if lease.is_lost(limit) {
        return without_store(limit);
    }
    let others_spent = lease.others_spent();
    let spent = counter.usage(window, now).spent.saturating_add(others_spent);
    let refused = if needed > limit.amount {
        Refused::TooLarge
    } else if spent.saturating_add(needed) > limit.amount {
        lease.doubts();
        Refused::Exhausted { resets_in: counter.resets_in(window, now) }
    } else {
        lease.lacks(needed);
        Refused::Held { retry_after: SHORT_RETRY }
    };
    over_budget((limit, needed), refused, (counter, others_spent), now)
}

/// Nobody can say whether there is room: the store that replicas share the limit in has been gone for too long.
#[cold]
pub(super) fn without_store(limit: &Limit) -> Denial {
    let id = &limit.id;
    let detail =
        format!("limit {id} is shared by replicas, and the store that they share it in cannot be reached");
    Denial::new(Reason::LimitsUnavailable, detail).retry_after(SHORT_RETRY)
}

/// Of two refusals the one that lasts longer: who waits for the other is refused again.
#[cold]
pub(super) fn longer(one: Denial, other: Denial) -> Denial {
    let lasts = |denial: &Denial| denial.retry_after.unwrap_or(Duration::MAX);
    if lasts(&other) > lasts(&one) { other } else { one }
}

/// As many calls are under way as this replica may have, which are all where nobody shares them.
#[cold]
pub(super) fn no_place(cell: &KeyedCounter, limit: &Limit, calls: u64) -> Denial {
    let (id, amount) = (&limit.id, limit.amount);
    let others = match &cell.lease {
        Some(lease) if lease.is_lost(limit) => return without_store(limit),
        Some(lease) if calls < amount => {
            lease.lacks(1);
            " in this replica, and others have the rest"
        }
        _ => "",
    };
    let detail = format!("limit {id}: too many calls are under way at once: {calls} of {amount}{others}");
    let state = LimitState::new(limit, Usage { spent: 0, held: calls }, 1);
    Denial::new(Reason::ConcurrencyLimited, detail).retry_after(SHORT_RETRY).by(state)
}

#[cold]
pub(super) fn too_fast(limit: &Limit, needed: u64, wait: Option<Duration>) -> Denial {
    let (id, amount) = (&limit.id, limit.amount);
    let (burst, per) = match &limit.kind {
        LimitKind::Gcra { per, burst } => (*burst, *per),
        LimitKind::Counted(_) | LimitKind::Concurrent => (0, Duration::ZERO),
    };
    let next = match wait {
        Some(wait) => format!("; there is room for the next in {}", span(wait)),
        None => String::new(),
    };
    let detail = format!(
        "limit {id}: too many requests: {amount} in {} are let through, {burst} at once and then evenly{next}",
        span(per)
    );
    let used = if wait.is_some() { u64::from(burst) } else { 0 };
    let state = LimitState::new(limit, Usage { spent: used, held: 0 }, needed).resets_in(wait);
    let denial = Denial::new(Reason::RateLimited, detail).by(state);
    match wait {
        Some(wait) => denial.retry_after(wait),
        None => denial,
    }
}

#[cold]
pub(super) fn over_budget(
    (limit, needed): (&Limit, u64),
    refused: Refused,
    (counter, others_spent): (&mut Counter, u64),
    now: Timestamp,
) -> Denial {
    let LimitKind::Counted(window) = &limit.kind else {
        return Denial::new(Reason::Internal, format!("limit {} counts no window", limit.id));
    };
    let mut usage = counter.usage(window, now);
    usage.spent = usage.spent.saturating_add(others_spent);
    let (id, unit) = (&limit.id, limit.unit);
    let [cap, used, held, most] =
        [limit.amount, usage.spent, usage.held, needed].map(|amount| shown(unit, amount));
    let state = LimitState::new(limit, usage, needed);
    let advice = match unit {
        Unit::Tokens | Unit::Spend => "; send less, or ask for fewer output tokens (max_tokens)",
        Unit::InputTokens | Unit::CachedTokens => "; send less",
        Unit::OutputTokens | Unit::ReasoningTokens => "; ask for fewer output tokens (max_tokens)",
        Unit::Requests | Unit::Concurrency | Unit::Bytes | Unit::Seconds => "",
    };
    match refused {
        Refused::Held { retry_after } => {
            let resets_in = counter.resets_in(window, now);
            let is_elsewhere = usage.spent.saturating_add(usage.held).saturating_add(needed) <= limit.amount;
            let soon = if is_elsewhere {
                "other replicas have set aside what is left, or their store has not answered yet; retry soon"
            } else {
                "retry soon, when those calls end"
            };
            let detail = format!(
                "limit {id}: {used} of {cap} used, {held} held by calls under way; this call may take {most}; {soon}; \
                 the window resets in {}",
                span(resets_in)
            );
            let state = state.resets_in(Some(resets_in));
            Denial::new(Reason::BudgetHeld, detail).retry_after(retry_after).by(state)
        }
        Refused::Exhausted { resets_in } => {
            let detail = format!(
                "limit {id}: {used} of {cap} used, {held} held by calls under way; this call may take {most}{advice}; \
                 there is room for it when the window resets, in {}",
                span(resets_in)
            );
            let state = state.resets_in(Some(resets_in));
            Denial::new(Reason::BudgetExhausted, detail).retry_after(resets_in.max(SHORT_RETRY)).by(state)
        }
        Refused::TooLarge => {
            let detail = format!(
                "limit {id}: {used} of {cap} used; this call alone may take {most}, more than a whole window has{advice}"
            );
            Denial::new(Reason::BudgetExhausted, detail).by(state)
        }
    }
}

/// The call would fit, but its caller holds enough already while others wait.
#[cold]
pub(super) fn over_share(limit: &Limit, reason: Reason) -> Denial {
    let (id, unit) = (&limit.id, limit.unit);
    let detail = format!(
        "limit {id}: calls of this workload hold their share of its {unit} while others want some too; retry soon"
    );
    Denial::new(reason, detail).retry_after(SHORT_RETRY)
}

/// An amount in the limit's unit, for people.
fn shown(unit: Unit, amount: u64) -> String {
    match unit {
        Unit::Spend => NanoUsd(amount).to_string(),
        _ => format!("{amount} {unit}"),
    }
}

/// A time for people: its two largest units, never less than there is.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let shown: Vec<String> = parts
        .iter()
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if shown.is_empty() { "0 s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_its_two_largest_units() {
        for (millis, text) in [
            (0, "0 s"),
            (1, "1 s"),
            (60_000, "1 min"),
            (61_000, "1 min 1 s"),
            (3_600_000, "1 h"),
            (86_400_000 + 3_600_000 * 5 + 60_000, "1 d 5 h"),
            (86_400_000 * 30, "30 d"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }
}
