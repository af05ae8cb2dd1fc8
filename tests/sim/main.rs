//! Many replicas spend one budget, on a clock of their own: what callers and Redis see of it.
//!
//! `cargo run -p tollgate-tests --bin sim -- [SEED [REPLICAS [CALLERS]]]`, after which three replicas with a store that answers late do the same.

use tollgate_tests::slices_sim::{Setting, simulate};

fn main() {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .map(|text| text.parse().expect("SEED, REPLICAS, CALLERS: numbers"))
        .collect();
    let number = |at: usize, default: u64| numbers.get(at).copied().unwrap_or(default);
    let setting = Setting {
        seed: number(0, 1),
        replicas: number(1, 100),
        callers: number(2, 10_000),
        ..Setting::LARGE
    };
    for setting in [setting, Setting { seed: setting.seed, ..Setting::BUSY }] {
        println!("{setting:?}");
        println!("{}", simulate(setting));
    }
}
