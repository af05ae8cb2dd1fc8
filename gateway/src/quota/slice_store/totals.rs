//! What the replicas have said that they spent, read beside the slices: by those who tell people of it.
//!
//! **Invariant:** nothing is written of a share. What is read decides no call.

use std::collections::HashMap;

use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use tollgate_policy::limit::slices::ReplicaId;

use super::{SliceStore, SliceStoreError};
use crate::quota::lease::PoolId;

/// Counts that are read with one message.
const AT_ONCE: usize = 128;
/// How long the list of counts is kept that nobody adds to, in milliseconds: longer than the longest window.
const KEPT: u64 = 40 * 86_400_000;
/// Between a limit and a key. Neither has it.
const SEPARATOR: char = '\n';

impl SliceStore {
    /// What replicas other than `own` have spent of these counts, and of those of other keys that any replica has noted. `noted` are such
    /// keys of this replica.
    ///
    /// # Errors
    /// As [`SliceStore::sync`].
    pub(in crate::quota) async fn spent_by_others(
        &mut self,
        own: &ReplicaId,
        shared: Vec<PoolId>,
        noted: &[PoolId],
    ) -> Result<HashMap<PoolId, u64>, SliceStoreError> {
        let mut connection = self.connected().await?;
        let list = self.own_key("keys");
        let members = note(&mut connection, &list, noted).await?;
        let (mut spent, now) = (HashMap::new(), Timestamp::now().as_millisecond());
        let keyed = members.iter().filter_map(|member| {
            let (limit, key) = member.split_once(SEPARATOR)?;
            Some(PoolId { limit: limit.into(), key: key.into() })
        });
        let pools: Vec<PoolId> = shared.into_iter().chain(keyed).collect();
        for pools in pools.chunks(AT_ONCE) {
            let mut pipe = redis::pipe();
            for pool in pools {
                pipe.hgetall(self.pool_key(pool));
            }
            let shares: Vec<Vec<(String, String)>> = pipe.query_async(&mut connection).await?;
            let mut gone = Vec::new();
            for (pool, shares) in pools.iter().zip(shares) {
                if shares.is_empty() && !pool.key.is_empty() {
                    gone.push(format!("{}{SEPARATOR}{}", pool.limit, pool.key));
                }
                spent.insert(pool.clone(), sum_of_others(&shares, own, now));
            }
            if !gone.is_empty() {
                let () = redis::pipe().srem(&list, gone).ignore().query_async(&mut connection).await?;
            }
        }
        self.connection = Some(connection);
        Ok(spent)
    }
}

/// Adds to the list of keys that have counts, and reads it.
async fn note(
    connection: &mut MultiplexedConnection,
    list: &str,
    noted: &[PoolId],
) -> Result<Vec<String>, SliceStoreError> {
    let mut pipe = redis::pipe();
    if !noted.is_empty() {
        let members: Vec<_> =
            noted.iter().map(|pool| format!("{}{SEPARATOR}{}", pool.limit, pool.key)).collect();
        pipe.sadd(list, members).ignore();
        pipe.pexpire(list, i64::try_from(KEPT).unwrap_or(i64::MAX)).ignore();
    }
    let (members,): (Vec<String>,) = pipe.smembers(list).query_async(connection).await?;
    Ok(members)
}

/// What all others have spent by their shares. A replica is known by its id up to a `~`; of several processes of one the most counts, because the
/// later ones go on with what was spent before.
fn sum_of_others(shares: &[(String, String)], own: &ReplicaId, now: i64) -> u64 {
    let mut spent: HashMap<&str, u64> = HashMap::new();
    for (holder, share) in shares {
        let replica = holder.split('~').next().unwrap_or_default();
        if let Some(said) = said(share, now).filter(|_| *replica != **own) {
            let most = spent.entry(replica).or_default();
            *most = said.max(*most);
        }
    }
    spent.into_values().fold(0, u64::saturating_add)
}

/// What a share says was spent, while it counts: ceiling, spent, when its window ends or 0, for how long it counts, and when that was told.
/// What is written otherwise is no share.
fn said(share: &str, now: i64) -> Option<u64> {
    let numbers: Vec<i64> = share.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [_, spent, resets_at, counts_for, told_at] = *numbers.as_slice() else { return None };
    let drops_at = if resets_at == 0 { told_at.saturating_add(counts_for) } else { resets_at };
    if drops_at > now { u64::try_from(spent).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_what_was_spent_until_it_drops_and_anything_else_is_none() {
        assert_eq!(said("500,120,9000,50,8000", 8_999), Some(120));
        assert_eq!(said("500,120,9000,50,8000", 9_000), None, "its window has ended");
        assert_eq!(said("500,120,0,50,8000", 8_049), Some(120));
        assert_eq!(said("500,120,0,50,8000", 8_050), None, "it has left the window");
        for other in ["1700000000000", "", "a,b,c,d", "5,6", "1,2,3", "1,-2,0,9,9", "5,6,7,8"] {
            assert_eq!(said(other, 0), None, "{other}");
        }
    }

    #[test]
    fn others_are_summed_and_processes_of_one_replica_are_not() {
        let share = |holder: &str, spent: u64| (holder.to_owned(), format!("500,{spent},0,50,8000"));
        let shares =
            [share("own~7", 7), share("own~9", 9), share("b~1", 10), share("c~1", 20), share("c~2", 25)];
        assert_eq!(sum_of_others(&shares, &"own".into(), 0), 35);
    }
}
