//! What reads the messages that a pump passes on, where turns are billed.

use crate::caller_occupancy::BufferReservation;
use crate::metering::realtime::{ClientMessage, ClientReader, ServerReader, SessionEvent, Taken};
use crate::websocket::{FramePiece, Violation};

/// Reads messages of one side.
#[derive(Debug)]
pub(super) enum Tap {
    /// Nobody does.
    Closed,
    Client {
        reader: Box<ClientReader>,
        waiting: Option<ClientMessage>,
        /// Of messages that went on unjudged.
        tokens: u64,
        /// Of messages that wait to be written.
        rooms: Vec<BufferReservation>,
    },
    Server {
        reader: Box<ServerReader>,
        /// An event, and its last piece.
        waiting: Option<(SessionEvent, FramePiece)>,
    },
}

impl Tap {
    pub(super) fn client(reader: ClientReader) -> Self {
        Self::Client { reader: Box::new(reader), waiting: None, tokens: 0, rooms: Vec::new() }
    }

    pub(super) fn server(reader: ServerReader) -> Self {
        Self::Server { reader: Box::new(reader), waiting: None }
    }

    /// What of a piece may go on now.
    ///
    /// # Errors
    /// As [`ClientReader::take`].
    pub(super) fn take(&mut self, piece: FramePiece) -> Result<Option<FramePiece>, Violation> {
        match self {
            Self::Closed => Ok(Some(piece)),
            Self::Client { reader, waiting, tokens, rooms } => match reader.take(piece)? {
                Taken::Goes(piece, more, room) => {
                    rooms.push(room);
                    *tokens = tokens.saturating_add(more);
                    Ok(Some(piece))
                }
                Taken::Waits => Ok(None),
                Taken::Decides(message) => {
                    *waiting = Some(message);
                    Ok(None)
                }
            },
            Self::Server { reader, waiting } => match reader.read(&piece) {
                Some(event) => {
                    *waiting = Some((event, piece));
                    Ok(None)
                }
                None => Ok(Some(piece)),
            },
        }
    }

    /// Whether something is to be judged before anything goes on.
    pub(super) const fn waits(&self) -> bool {
        match self {
            Self::Closed => false,
            Self::Client { waiting, .. } => waiting.is_some(),
            Self::Server { waiting, .. } => waiting.is_some(),
        }
    }

    /// Whether a message of our own may stand here.
    pub(super) fn is_between(&self) -> bool {
        match self {
            // Messages of the client go on whole.
            Self::Closed | Self::Client { .. } => true,
            Self::Server { reader, waiting } => reader.is_between() && waiting.is_none(),
        }
    }

    pub(super) fn take_client(&mut self) -> Option<ClientMessage> {
        match self {
            Self::Client { waiting, .. } => waiting.take(),
            Self::Closed | Self::Server { .. } => None,
        }
    }

    /// A message of the client waits to be written, and occupies this.
    pub(super) fn keep(&mut self, room: BufferReservation) {
        if let Self::Client { rooms, .. } = self {
            rooms.push(room);
        }
    }

    /// All that waited is written.
    pub(super) fn written(&mut self) {
        if let Self::Client { rooms, .. } = self {
            rooms.clear();
        }
    }

    /// The event that is to be judged tells the client its own name of a message instead of the gateway's, unless that is cut.
    pub(super) fn rename(&mut self, own: &str, theirs: &str) {
        let Self::Server { waiting: Some((_, piece)), .. } = self else { return };
        let own = format!("\"{own}\"");
        let at = piece.payload.windows(own.len()).position(|bytes| bytes == own.as_bytes());
        let (Some(at), Ok(theirs)) = (at, serde_json::to_vec(theirs)) else { return };
        let rest = piece.payload.split_off(at);
        piece.payload.extend_from_slice(&theirs);
        piece.payload.extend_from_slice(rest.get(own.len()..).unwrap_or_default());
    }

    pub(super) fn take_tokens(&mut self) -> u64 {
        match self {
            Self::Client { tokens, .. } => std::mem::take(tokens),
            Self::Closed | Self::Server { .. } => 0,
        }
    }

    pub(super) fn event(&mut self) -> Option<(SessionEvent, &mut ServerReader)> {
        match self {
            Self::Server { reader, waiting: Some((event, _)) } => Some((*event, reader)),
            _ => None,
        }
    }

    pub(super) fn take_piece(&mut self) -> Option<FramePiece> {
        match self {
            Self::Server { waiting, .. } => waiting.take().map(|(_, piece)| piece),
            Self::Closed | Self::Client { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
