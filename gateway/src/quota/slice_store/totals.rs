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
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
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
                pipe.hgetall(self.own_key(&format!("{}:{}", pool.limit, pool.key)));
            }
            let shares: Vec<Vec<(String, String)>> = pipe.query_async(&mut connection).await?;
            let mut gone = Vec::new();
            for (pool, shares) in pools.iter().zip(shares) {
                if shares.is_empty() && !pool.key.is_empty() {
                    gone.push(format!("{}{SEPARATOR}{}", pool.limit, pool.key));
                }
                let others = shares.iter().filter(|(replica, _)| *replica != **own);
                let sum = others.filter_map(|(_, share)| said(share, now)).fold(0, u64::saturating_add);
                spent.insert(pool.clone(), sum);
            }
            if !gone.is_empty() {
                let () = redis::pipe().srem(&list, gone).ignore().query_async(&mut connection).await?;
            }
        }
        self.connection = Some(connection);
        Ok(spent)
    }

    pub(super) fn own_key(&self, name: &str) -> String {
        let prefix = &self.settings.prefix;
        format!("{prefix}:{{{prefix}}}:{name}")
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

/// What a share says was spent, while it counts. It begins with its ceiling and what was spent, and ends with when it drops; what is written
/// otherwise is no share.
fn said(share: &str, now: i64) -> Option<u64> {
    let numbers: Vec<u64> = share.split(',').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let [_, spent, .., drops_at] = numbers.as_slice() else { return None };
    (i64::try_from(*drops_at).unwrap_or(i64::MAX) > now).then_some(*spent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_what_was_spent_until_it_drops_and_anything_else_is_none() {
        assert_eq!(said("500,120,7000,9000", 8_999), Some(120));
        assert_eq!(said("500,120,7000,9000", 9_000), None, "it has dropped");
        assert_eq!(said("500,120,9000", 0), Some(120));
        for other in ["1700000000000", "", "a,b,c,d", "5,6"] {
            assert_eq!(said(other, 0), None, "{other}");
        }
    }
}
