//! What the fuzz targets of `tests/fuzz` run: each takes any bytes, and panics where a promise of the code under it does not hold.
//!
//! **Invariant:** a target depends on its bytes alone, so that what a fuzzer found can be kept in its corpus, which the tests replay.

pub(crate) mod input;
mod target;
mod yaml;

pub use self::target::target;
pub use self::yaml::yaml;
pub use crate::identity::{fuzz_credentials as credentials, fuzz_head as head};
pub use crate::injection::{fuzz_scrub as scrub, fuzz_sigv4_chunks as sigv4_chunks};
pub use crate::ledger::fuzz_journal as journal;
pub use crate::listener::fuzz_proxy_protocol as proxy_protocol;
pub use crate::metering::fuzz::{facts, sse, usage};

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Target = fn(&[u8]);

    fn replay(name: &str, target: Target) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus").join(name);
        let mut inputs = 0;
        for entry in std::fs::read_dir(&corpus).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                panic!("{} does not hold", path.display());
            }
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", corpus.display());
        target(b"");
    }

    #[test]
    fn what_fuzzing_found_of_targets_holds() {
        replay("target", super::target);
    }

    #[test]
    fn what_fuzzing_found_of_facts_holds() {
        replay("facts", super::facts);
    }

    #[test]
    fn what_fuzzing_found_of_events_holds() {
        replay("sse", super::sse);
    }

    #[test]
    fn what_fuzzing_found_of_usage_holds() {
        replay("usage", super::usage);
    }

    #[test]
    fn what_fuzzing_found_of_the_scrubber_holds() {
        replay("scrub", super::scrub);
    }

    #[test]
    fn what_fuzzing_found_of_signed_chunks_holds() {
        replay("sigv4_chunks", super::sigv4_chunks);
    }

    #[test]
    fn what_fuzzing_found_of_yaml_holds() {
        replay("yaml", super::yaml);
    }

    #[test]
    fn what_fuzzing_found_of_journals_holds() {
        replay("journal", super::journal);
    }

    #[test]
    fn what_fuzzing_found_of_heads_holds() {
        replay("head", super::head);
    }

    #[test]
    fn what_fuzzing_found_of_proxies_holds() {
        replay("proxy_protocol", super::proxy_protocol);
    }

    #[test]
    fn what_fuzzing_found_of_credentials_holds() {
        replay("credentials", super::credentials);
    }
}
