//! The parts of an input, for targets that take a stream in pieces.

/// One input in three parts: how it is to be taken, the lengths of pieces, and what is taken.
pub(crate) struct FuzzInput<'a> {
    pub(crate) how: u8,
    pub(crate) lengths: &'a [u8],
    pub(crate) bytes: &'a [u8],
}

impl<'a> FuzzInput<'a> {
    /// `how[1] count[1] lengths[count] bytes`, the count at most 7; `None` where there is no such thing.
    pub(crate) fn of(data: &'a [u8]) -> Option<Self> {
        let [how, count, rest @ ..] = data else { return None };
        let (lengths, bytes) = rest.split_at_checked(usize::from(count % 8))?;
        Some(Self { how: *how, lengths, bytes })
    }

    /// `bytes` in pieces of these lengths, over and over; each a byte longer than it says.
    pub(crate) fn pieces(&self, bytes: &'a [u8]) -> Vec<&'a [u8]> {
        let mut rest = bytes;
        let mut lengths = self.lengths.iter().cycle();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let length = lengths.next().map_or(rest.len(), |length| usize::from(*length) + 1);
            let (piece, tail) = rest.split_at(length.min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        pieces
    }
}

/// `text` cut whole, as `input` says, and byte by byte.
pub(crate) fn cuts<'a>(input: &FuzzInput<'a>, bytes: &'a [u8]) -> [Vec<&'a [u8]>; 3] {
    [vec![bytes], input.pieces(bytes), bytes.chunks(1).collect()]
}
