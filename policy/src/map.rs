//! The hash map of the hot path: a faster hash than the standard library's, seeded per map as that is.

/// A map whose keys are short and looked up for every request.
pub type Map<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
