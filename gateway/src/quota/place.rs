//! A place among the calls at once.

use jiff::Timestamp;
use tollgate_policy::denial::{Denial, Reason};
use tollgate_policy::limit::{Limit, Usage};

use super::counter::KeyedCounter;
use super::key::Keys;
use super::lease::SliceReach;
use super::refusal;
use super::share::HeldShare;

/// Takes a place among the calls at once, and the caller's share of them.
pub(super) fn occupy(
    cell: &KeyedCounter,
    limit: &Limit,
    calls: &mut u64,
    keys: &Keys<'_>,
    now: Timestamp,
) -> Result<Option<HeldShare>, Denial> {
    let SliceReach { cap, .. } = cell.reach(limit, Usage { spent: 0, held: *calls });
    if *calls >= cap {
        if let Some(shares) = &cell.shares {
            shares.want(keys, now);
        }
        return Err(refusal::no_place(cell, limit, *calls));
    }
    let share = cell.take_share(keys, 1, cell.room(limit, cap.saturating_sub(*calls)), now);
    let share = share.map_err(|()| refusal::over_share(limit, Reason::ConcurrencyLimited))?;
    *calls += 1;
    if let Some(lease) = &cell.lease {
        lease.used(*calls);
    }
    Ok(share)
}
