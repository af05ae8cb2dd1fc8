//! The frames of WebSocket (RFC 6455, 5.2) that the benchmark needs: whole messages of at most 125 bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The opcode of a text message.
pub(crate) const TEXT: u8 = 1;
const LAST: u8 = 0x80;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LONGEST: u8 = 125;

/// Writes one frame. A client's is masked.
pub(crate) async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    opcode: u8,
    payload: &[u8],
    mask: Option<[u8; 4]>,
) -> io::Result<()> {
    let mut frame = vec![LAST | opcode, payload.len() as u8 | if mask.is_some() { MASKED } else { 0 }];
    frame.extend(mask.into_iter().flatten());
    let key = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    stream.write_all(&frame).await?;
    stream.flush().await
}

/// Reads one frame: its opcode, and its payload without the mask.
pub(crate) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let length = head[1] & LENGTH;
    if length > LONGEST {
        return Err(io::Error::other("a frame that is longer than any of the benchmark"));
    }
    let mut key = [0; 4];
    if head[1] & MASKED != 0 {
        stream.read_exact(&mut key).await?;
    }
    let mut payload = vec![0; usize::from(length)];
    stream.read_exact(&mut payload).await?;
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    Ok((head[0] & !LAST, payload))
}
