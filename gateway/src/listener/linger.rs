//! Closing a connection so that its last answer arrives.
//!
//! **Invariant:** what the peer still sends after we closed our half is read and thrown away, within bounds. A socket that is closed with bytes
//! left unread is reset, and a reset discards what the peer has not read yet: the answer (RFC 9112, section 9.6).

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::write_timeout::TlsStream;

/// As long as nginx lingers by default (`lingering_time`, `lingering_timeout`).
const LONGEST: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(5);
const PIECE: usize = 16 << 10;

/// Ends our half of `stream`, and reads on until the peer has ended its own, is silent, or has had its time.
pub(super) async fn close(mut stream: TlsStream) {
    let deadline = Instant::now() + LONGEST;
    // Done already where HTTP ended in good order.
    let shut = timeout_at(deadline, stream.shutdown()).await;
    if matches!(shut, Ok(Ok(()))) {
        discard(stream.into_inner().0.into_inner(), deadline).await;
    }
}

/// Below TLS: nobody asks what it says.
async fn discard(stream: TcpStream, deadline: Instant) {
    let mut piece = vec![0; PIECE];
    loop {
        let silent = deadline.min(Instant::now() + SILENCE);
        if !matches!(timeout_at(silent, stream.readable()).await, Ok(Ok(()))) {
            return;
        }
        match stream.try_read(&mut piece) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
