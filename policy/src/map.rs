//! The hash map of the hot path: a faster hash than the standard library's, seeded per map as that is.

/// A map whose keys are short and looked up for every request.
pub type Map<K, V> = std::collections::HashMap<K, V, Seed>;

/// What a map hashes with: another for each, so that nobody outside can look for keys that collide.
pub type Seed = foldhash::fast::RandomState;
