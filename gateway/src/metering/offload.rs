//! Work on bodies so large that the other calls of a core would wait for it: reading what it says, making room for it, editing it and
//! giving its memory back. It is done on threads that the cores go before: they have others to serve meanwhile.

use std::num::NonZero;
use std::sync::LazyLock;
use std::thread;

use bytes::{Bytes, BytesMut};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tollgate_policy::denial::{Denial, Reason};

/// A body of more bytes is worth a thread.
const LARGE: usize = 256 << 10;
/// Memory of more bytes goes back to the system at once, which takes milliseconds: `oversize_threshold` of jemalloc is as much.
const GIVEN_BACK_AT_ONCE: usize = 8 << 20;
/// How much such a thread stands back, as `nice` counts: beside a core that is never idle it still has a tenth of one.
const NICE: i32 = 10;
/// So many bodies are read at once: what is left of the machine serves the others.
static AT_ONCE: LazyLock<Semaphore> = LazyLock::new(|| {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    Semaphore::new((threads / 2).max(1))
});

/// Whether work on so many bytes keeps a core from its other calls for too long.
pub(super) const fn is_large(bytes: usize) -> bool {
    bytes > LARGE
}

/// Until another large body may be read.
///
/// # Errors
/// `internal` when there are no more turns.
pub(super) async fn turn() -> Result<SemaphorePermit<'static>, Denial> {
    AT_ONCE.acquire().await.map_err(|_| undone())
}

/// Does it on a thread of its own, and waits for it. It is done also when nobody waits for it any more.
///
/// # Errors
/// `internal` where there is no thread for it.
pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Denial> {
    let (done, result) = oneshot::channel();
    spawn(move || drop(done.send(work()))).map_err(|error| {
        tracing::error!(%error, "there is no thread to work on a large body");
        undone()
    })?;
    result.await.map_err(|_| undone())
}

/// The same bytes, whose memory is given back on a thread of its own where that takes long.
pub(super) fn freed_apart(bytes: Bytes) -> Bytes {
    if bytes.len() < GIVEN_BACK_AT_ONCE { bytes } else { Bytes::from_owner(FreedApart(bytes)) }
}

/// A body that comes in pieces. However it ends, no core makes much room for it, nor gives that back.
pub(super) struct GatheredBody(BytesMut);

impl GatheredBody {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(BytesMut::with_capacity(bytes))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// # Errors
    /// As [`run`].
    pub(super) async fn extend(&mut self, piece: &[u8]) -> Result<(), Denial> {
        let (length, more) = (self.0.len(), piece.len());
        if is_large(length) && self.0.capacity() - length < more {
            let mut grown = Self(std::mem::take(&mut self.0));
            let grow = move || {
                grown.0.reserve(length.max(more));
                grown
            };
            *self = Box::pin(run(grow)).await?;
        }
        self.0.extend_from_slice(piece);
        Ok(())
    }

    pub(super) fn freeze(mut self) -> Bytes {
        freed_apart(std::mem::take(&mut self.0).freeze())
    }
}

impl Drop for GatheredBody {
    fn drop(&mut self) {
        drop_apart(std::mem::take(&mut self.0), |bytes| bytes.capacity());
    }
}

struct FreedApart(Bytes);

impl AsRef<[u8]> for FreedApart {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for FreedApart {
    fn drop(&mut self) {
        drop_apart(std::mem::take(&mut self.0), Bytes::len);
    }
}

fn drop_apart<T: Send + 'static>(memory: T, bytes: impl Fn(&T) -> usize) {
    if bytes(&memory) >= GIVEN_BACK_AT_ONCE {
        // Without a thread it is given back here.
        let _ = spawn(move || drop(memory));
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let work = move || {
        // Where the system refuses, it is done as fast as all else.
        let _ = rustix::process::setpriority_process(None, NICE);
        work();
    };
    thread::Builder::new().name("large-body".to_owned()).spawn(work).map(drop)
}

fn undone() -> Denial {
    Denial::new(Reason::Internal, "the request body could not be worked on")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::thread::ThreadId;
    use std::time::Duration;

    use super::*;

    /// Says where its memory is given back.
    struct Told(Vec<u8>, Sender<ThreadId>);

    impl AsRef<[u8]> for Told {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Told {
        fn drop(&mut self) {
            self.1.send(thread::current().id()).unwrap();
        }
    }

    #[test]
    fn only_much_memory_is_given_back_elsewhere() {
        for (length, is_elsewhere) in [(GIVEN_BACK_AT_ONCE - 1, false), (GIVEN_BACK_AT_ONCE, true)] {
            let (told, heard) = channel();
            let bytes = freed_apart(Bytes::from_owner(Told(vec![7; length], told)));
            assert!(bytes.len() == length && bytes.iter().all(|byte| *byte == 7));
            drop(bytes);
            let freed = heard.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(freed != thread::current().id(), is_elsewhere, "{length}");
        }
    }

    #[tokio::test]
    async fn a_body_in_pieces_comes_whole_whatever_room_was_made_for_it_at_first() {
        let piece: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        for capacity in [0, 1 << 20, 20 << 20] {
            let mut gathered = GatheredBody::with_capacity(capacity);
            for _ in 0..100 {
                gathered.extend(&piece).await.unwrap();
            }
            assert_eq!(gathered.len(), piece.len() * 100);
            assert!(gathered.freeze().chunks(piece.len()).all(|part| part == piece), "{capacity}");
        }
    }

    #[tokio::test]
    async fn work_is_done_elsewhere_and_its_result_comes_back() {
        let (here, there) = (thread::current().id(), run(|| thread::current().id()).await.unwrap());
        assert_ne!(here, there);
    }
}
