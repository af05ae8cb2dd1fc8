//! Which of the keys of a credential a caller gets.
//!
//! **Invariant:** the choice is a function of caller, aliases and weights alone: a caller keeps its key on every core, in every replica
//! and after a restart, and a key that cannot be used moves only the callers that had it.

use super::credential::{Credential, Key};
use crate::caller::Identity;
use crate::name::Name;

impl Credential {
    /// Whether there is a choice.
    pub fn is_pool(&self) -> bool {
        self.keys.len() > 1
    }

    /// The place in `keys` of the caller's key, of those that can be used: weighted rendezvous hashing. Those that stand by come last.
    pub fn choose(&self, caller: &Identity, can: impl Fn(usize) -> bool) -> Option<usize> {
        let best = |standby: bool| {
            let mut best: Option<(usize, f64)> = None;
            for (at, key) in self.keys.iter().enumerate() {
                if (key.weight == 0) != standby || !can(at) {
                    continue;
                }
                let score = score(caller, key);
                if best.is_none_or(|(_, most)| score > most) {
                    best = Some((at, score));
                }
            }
            best.map(|(at, _)| at)
        };
        best(false).or_else(|| best(true))
    }
}

/// The key with the highest one is the caller's. With `-weight / ln(u)`, `u` even in (0, 1), each wins as often as its weight says.
fn score(caller: &Identity, key: &Key) -> f64 {
    let alias = key.alias.as_ref().map_or("", Name::as_str);
    let hash = hash(caller.as_str(), alias);
    let even = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(key.weight.max(1)) / even.ln()
}

/// FNV-1a, and the finalizer of MurmurHash3 behind it, which spreads what differs in the last letters. It has no seed, unlike those of
/// maps: it has to be the same everywhere and tomorrow.
fn hash(caller: &str, alias: &str) -> u64 {
    let bytes = caller.bytes().chain([0]).chain(alias.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::super::store::SecretRef;
    use super::*;

    fn pool(keys: &[(&str, u32)]) -> Credential {
        let key = |(alias, weight): &(&str, u32)| Key {
            alias: Some(alias.parse().unwrap()),
            weight: *weight,
            from: SecretRef {
                store: "bao".parse().unwrap(),
                path: (*alias).into(),
                fields: Vec::new(),
                version: None,
                stage: None,
                version_id: None,
                dynamic: false,
            },
        };
        Credential {
            name: "pool".parse().unwrap(),
            destinations: Vec::new(),
            keys: keys.iter().map(key).collect(),
            inject: Vec::new(),
            refresh: std::time::Duration::ZERO,
            max_stale: std::time::Duration::ZERO,
            prefetch: false,
            mint: None,
        }
    }

    fn callers() -> impl Iterator<Item = Identity> {
        (0..10_000).map(|n| format!("spiffe://prod.acme/ns/team-{}/sa/app-{n}", n % 7).parse().unwrap())
    }

    fn chosen(pool: &Credential, caller: &Identity) -> usize {
        pool.choose(caller, |_| true).unwrap()
    }

    #[test]
    fn weights_hold_over_many_callers() {
        let pool = pool(&[("a", 3), ("b", 1), ("c", 4), ("spare", 0)]);
        let mut counts = [0_u32; 4];
        callers().for_each(|caller| counts[chosen(&pool, &caller)] += 1);
        for (count, expected) in counts.into_iter().zip([3_750, 1_250, 5_000, 0]) {
            assert!(count.abs_diff(expected) < 200, "{counts:?}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_used_moves_its_own_callers_only_and_by_the_weights_of_the_others() {
        let pool = pool(&[("a", 2), ("b", 2), ("c", 4)]);
        let mut moved = [0_u32; 3];
        for caller in callers() {
            let (before, after) = (chosen(&pool, &caller), pool.choose(&caller, |at| at != 0).unwrap());
            if before == 0 {
                moved[after] += 1;
            } else {
                assert_eq!(after, before);
            }
        }
        assert!(moved[0] == 0 && moved[1] > 700 && moved[2] > 1_400, "{moved:?}");
    }

    #[test]
    fn the_order_and_the_number_of_keys_do_not_matter_to_those_who_keep_theirs() {
        let one = pool(&[("a", 1), ("b", 1), ("c", 1)]);
        let other = pool(&[("c", 1), ("a", 1), ("d", 1), ("b", 1)]);
        let alias = |pool: &Credential, at: usize| pool.keys[at].alias.clone().unwrap();
        for caller in callers() {
            let (before, after) =
                (alias(&one, chosen(&one, &caller)), alias(&other, chosen(&other, &caller)));
            assert!(after == before || after.as_str() == "d");
        }
    }

    #[test]
    fn a_standby_key_is_chosen_when_no_other_can_be_and_nothing_when_none_can() {
        let pool = pool(&[("a", 1), ("spare", 0), ("last", 0)]);
        let caller: Identity = "spiffe://prod.acme/ns/shop/sa/web".parse().unwrap();
        assert_eq!(chosen(&pool, &caller), 0);
        let first = pool.choose(&caller, |at| at != 0).unwrap();
        assert_eq!(pool.choose(&caller, |at| at != 0 && at != first), Some(3 - first));
        assert_eq!(pool.choose(&caller, |_| false), None);
    }

    #[test]
    fn a_caller_has_the_same_key_in_every_process() {
        let pool = pool(&[("a", 1), ("b", 1), ("c", 1)]);
        let choices: Vec<usize> = callers().take(8).map(|caller| chosen(&pool, &caller)).collect();
        assert_eq!(choices, PINNED);
    }

    const PINNED: [usize; 8] = [2, 1, 1, 1, 0, 0, 0, 0];
}
