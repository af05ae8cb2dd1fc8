//! How much of an answer is searched for keys at once, and when others on this core have their quantum.

use std::time::{Duration, Instant};

/// So long is searched before others have their quantum. A bound in bytes would cut cheap text into needlessly small writes: to search escapes
/// costs many times as much.
const TURN: Duration = Duration::from_micros(200);
/// So many bytes are searched at once while it is not known how dear they are.
const FIRST_PIECE: usize = 16 << 10;
/// And so many where they are cheap, as many as come at once: what two pieces share is searched twice.
const LARGEST_PIECE: usize = 256 << 10;
/// The search of fewer bytes takes hardly longer than to look at the clock. They count as the dearest do: a piece of them fills a quantum.
const LEAST_TIMED: usize = 2 << 10;

/// What one answer has had of its quantum.
#[derive(Debug)]
pub(super) struct SearchQuantum {
    /// How long was searched since others had their quantum.
    taken: Duration,
    piece: usize,
}

impl SearchQuantum {
    pub(super) const fn new() -> Self {
        Self { taken: Duration::ZERO, piece: FIRST_PIECE }
    }

    /// The most bytes that are to be searched next.
    pub(super) const fn piece(&self) -> usize {
        self.piece
    }

    /// Counts the `search` of so many bytes.
    pub(super) fn count(&mut self, bytes: usize, search: impl FnOnce()) {
        if bytes < LEAST_TIMED {
            search();
            self.taken += TURN * bytes as u32 / FIRST_PIECE as u32;
            return;
        }
        let begun = Instant::now();
        search();
        let took = begun.elapsed();
        self.taken += took;
        self.piece = piece_after(self.piece, took);
    }

    /// Whether others have theirs; time is counted anew from there.
    pub(super) fn is_over(&mut self) -> bool {
        let is_over = self.taken >= TURN;
        if is_over {
            self.taken = Duration::ZERO;
        }
        is_over
    }
}

/// How many bytes are searched after such a piece that took so long.
fn piece_after(piece: usize, took: Duration) -> usize {
    match took {
        _ if took > TURN => FIRST_PIECE,
        _ if took < TURN / 2 => (2 * piece).min(LARGEST_PIECE),
        _ => piece,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_where_bytes_are_cheap_and_begin_anew_where_they_are_dear() {
        let cheap = Duration::from_micros(10);
        assert_eq!(
            [FIRST_PIECE, 2 * FIRST_PIECE, LARGEST_PIECE].map(|piece| piece_after(piece, cheap)),
            [2 * FIRST_PIECE, 4 * FIRST_PIECE, LARGEST_PIECE]
        );
        assert_eq!(piece_after(FIRST_PIECE, 2 * TURN / 3), FIRST_PIECE);
        assert_eq!(piece_after(4 * FIRST_PIECE, TURN), 4 * FIRST_PIECE);
        assert_eq!(piece_after(LARGEST_PIECE, 2 * TURN), FIRST_PIECE);
    }

    #[test]
    fn a_long_search_ends_the_turn_and_shortens_the_next() {
        let mut quantum = SearchQuantum { taken: Duration::ZERO, piece: LARGEST_PIECE };
        quantum.count(LARGEST_PIECE, || std::thread::sleep(2 * TURN));
        assert_eq!((quantum.is_over(), quantum.is_over(), quantum.piece()), (true, false, FIRST_PIECE));
    }

    #[test]
    fn small_pieces_fill_a_turn_as_the_dearest_do() {
        let mut quantum = SearchQuantum::new();
        for _ in 0..FIRST_PIECE / 1024 {
            assert!(!quantum.is_over());
            quantum.count(1024, || {});
        }
        assert_eq!((quantum.is_over(), quantum.is_over(), quantum.piece()), (true, false, FIRST_PIECE));
    }
}
