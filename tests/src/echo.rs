//! A server that sends back what comes.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// Starts one on a free port of 127.0.0.1, which is given. It ends each connection where its caller has ended it.
pub async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await?;
                writer.shutdown().await
            });
        }
    });
    port
}
