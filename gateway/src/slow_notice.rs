//! A word to whoever waits, where something takes longer than a second.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(1);

/// Does `work`; says `what` with `say` after a second, and every ten seconds from then on.
pub(crate) fn with<T>(what: &str, say: impl Fn(&str) + Send, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut pause = SOON;
            while waiting.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                say(what);
                pause = SOON * 10;
            }
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_is_quick_says_nothing_and_what_is_not_says_so() {
        let said = AtomicUsize::new(0);
        let say = |_: &str| {
            said.fetch_add(1, Ordering::Relaxed);
        };
        assert_eq!(with("quick", say, || 7), 7);
        assert_eq!(said.load(Ordering::Relaxed), 0);
        with("slow", say, || {
            while said.load(Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
    }
}
