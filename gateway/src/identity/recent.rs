//! What was worked out of a connection's proofs a moment ago.
//!
//! **Invariant:** it is bounded, however many callers come on one connection.

/// Proofs that are remembered of one connection.
const REMEMBERED: usize = 8;

/// The few values that were looked up last, the latest first.
#[derive(Debug)]
pub(super) struct Recent<K, V>(Vec<(K, V)>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: PartialEq, V> Recent<K, V> {
    /// What is kept under `key`. Where nothing is, it is made, and the one that was looked up the longest ago may have to go for it.
    pub(super) fn get_or_make<E>(
        &mut self,
        key: K,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<&mut V, E> {
        let at = match self.0.iter().position(|(other, _)| *other == key) {
            Some(at) => at,
            None => {
                let made = make()?;
                self.0.truncate(REMEMBERED - 1);
                self.0.push((key, made));
                self.0.len() - 1
            }
        };
        self.0[..=at].rotate_right(1);
        Ok(&mut self.0[0].1)
    }

    /// What is kept under `key`; it counts as looked up by whoever makes it.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        self.0.iter_mut().find(|(other, _)| other == key).map(|(_, value)| value)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn values(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_that_was_not_looked_up_the_longest_is_the_one_forgotten() {
        let mut recent = Recent::default();
        let mut made = Vec::new();
        let mut look_up = |key: usize| {
            recent
                .get_or_make(key, || {
                    made.push(key);
                    Ok::<_, ()>(key)
                })
                .copied()
        };
        for key in (0..REMEMBERED).chain([0, REMEMBERED, 0, 1]) {
            assert_eq!(look_up(key), Ok(key));
        }
        assert_eq!(
            made,
            (0..=REMEMBERED).chain([1]).collect::<Vec<_>>(),
            "1 went for the last one, 0 stayed"
        );
        assert_eq!(recent.0.len(), REMEMBERED);
        assert_eq!(recent.get_or_make(99, || Err::<usize, _>("expired")), Err("expired"));
        assert!(recent.values().all(|key| *key != 99));
    }
}
