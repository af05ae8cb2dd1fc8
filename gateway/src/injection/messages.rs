//! Where the messages of a stream end, for protocols that put a length before each: gRPC, gRPC-Web, Connect.
//!
//! **Invariant:** the byte that comes after a message is a flag, which no key contains: what waits for the rest of a word need not wait for it.
//! Without that a message whose answer the other side waits for would never arrive whole.

/// One byte of flags and four of length (the gRPC protocol over HTTP/2, `Length-Prefixed-Message`; the Connect protocol, enveloped messages).
const PREFIX: usize = 5;

/// Follows one body.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    prefix: [u8; PREFIX],
    read: usize,
    /// Bytes of the message that are still to come.
    left: usize,
}

impl Messages {
    /// Of a body with this `content-type`. `None`: it is not made of such messages.
    pub(crate) fn of(content_type: Option<&[u8]>) -> Option<Self> {
        let kind = content_type?;
        let is_framed = (kind.starts_with(b"application/grpc")
            && !kind.starts_with(b"application/grpc-web-text"))
            || kind.starts_with(b"application/connect+");
        is_framed.then(Self::default)
    }

    /// Takes the next bytes. Whether a message ends with them.
    pub(crate) fn end_with(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.read < PREFIX {
                let taken = bytes.len().min(PREFIX - self.read);
                self.prefix[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
                self.read += taken;
                bytes = &bytes[taken..];
                if self.read == PREFIX {
                    let [_, length @ ..] = self.prefix;
                    self.left = u32::from_be_bytes(length) as usize;
                }
            }
            let taken = bytes.len().min(self.left);
            self.left -= taken;
            bytes = &bytes[taken..];
            if self.read == PREFIX && self.left == 0 {
                self.read = 0;
            }
        }
        self.read == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_prefix_says_however_it_is_cut() {
        let stream = b"\0\0\0\0\x03abc\x01\0\0\0\0\0\0\0\0\x01d";
        for step in 1..=stream.len() {
            let mut messages = Messages::default();
            let mut at = 0;
            for piece in stream.chunks(step) {
                at += piece.len();
                assert_eq!(messages.end_with(piece), [8, 13, 19].contains(&at), "{at} by {step}");
            }
        }
    }

    #[test]
    fn only_bodies_of_binary_messages_are_followed() {
        let is_framed = |kind: &str| Messages::of(Some(kind.as_bytes())).is_some();
        assert!(is_framed("application/grpc") && is_framed("application/grpc-web+proto"));
        assert!(is_framed("application/connect+json"));
        assert!(!is_framed("application/grpc-web-text") && !is_framed("application/json"));
    }
}
