//! How much of an answer is searched for keys at once, and when others on this core have their turn.

use std::time::{Duration, Instant};

/// So long is searched before others have their turn. A provider may send much at once, and to search escapes without end costs many times what
/// text does: by bytes, text would be sent in needlessly small writes.
const TURN: Duration = Duration::from_micros(100);
/// So many bytes are searched at once while it is not known how dear they are.
const PIECE: usize = 16 << 10;
/// And so many where they are cheap: what two pieces share is searched twice.
const WIDEST: usize = 64 << 10;
/// The search of fewer bytes takes hardly longer than to look at the clock. They count as the dearest do: a piece of them fills a turn.
const TIMED: usize = 2 << 10;

/// The turn of one answer.
#[derive(Debug)]
pub(super) struct SearchTurn {
    /// How long was searched since others had their turn.
    taken: Duration,
    piece: usize,
}

impl SearchTurn {
    pub(super) const fn new() -> Self {
        Self { taken: Duration::ZERO, piece: PIECE }
    }

    /// The most bytes that are to be searched next.
    pub(super) const fn piece(&self) -> usize {
        self.piece
    }

    /// Counts the `search` of so many bytes.
    pub(super) fn count(&mut self, bytes: usize, search: impl FnOnce()) {
        if bytes < TIMED {
            search();
            self.taken += TURN * bytes as u32 / PIECE as u32;
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
        _ if took > TURN => PIECE,
        _ if took < TURN / 4 => (2 * piece).min(WIDEST),
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
            [PIECE, 2 * PIECE, WIDEST].map(|piece| piece_after(piece, cheap)),
            [2 * PIECE, WIDEST, WIDEST]
        );
        assert_eq!(piece_after(WIDEST, Duration::from_micros(60)), WIDEST);
        assert_eq!(piece_after(WIDEST, Duration::from_micros(400)), PIECE);
    }

    #[test]
    fn small_pieces_fill_a_turn_as_the_dearest_do() {
        let mut turn = SearchTurn::new();
        for _ in 0..PIECE / 1024 {
            assert!(!turn.is_over());
            turn.count(1024, || {});
        }
        assert_eq!((turn.is_over(), turn.is_over(), turn.piece()), (true, false, PIECE));
    }
}
