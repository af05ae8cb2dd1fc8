//! The last good objects on the disk, for a start while the API server is away.
//!
//! **Invariant:** a file that is not whole is not read: its first line has the digest of the rest.
//!
//! Deliberately lacks: a key. Whoever can write the data directory decides what serves where a start finds no API server, so the file is the
//! gateway's alone; how old it is is told, and an operator may set a limit.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tollgate_policy::consent::Consents;
use tollgate_policy::model::{Interval, SourceFile};
use tollgate_secrets::digest::hex;

use super::Published;
use super::gateway_api::GatewayPlace;
use super::object::{ClusterObject, ObjectSet};
use super::sources::sources;
use super::watch::WatchStates;
use crate::files::write_private;

const FILE: &str = "objects.json";
const FORMAT: &str = "tollgate-objects-1";
/// The least time between two writes.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How often it is noted that the file still says what the API server does.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

/// The file. Its time of modification is when the API server last confirmed it.
#[derive(Debug, Clone)]
pub(crate) struct PersistedObjects {
    file: PathBuf,
    /// How old it may be, if that is limited.
    most: Option<Duration>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    sha256: String,
    /// Whether there may be Destinations that were never listed.
    #[serde(default)]
    lacks_destinations: bool,
}

impl PersistedObjects {
    /// The one in this data directory.
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { file: data_dir.join(FILE), most: None }
    }

    /// The same, which serve only if they were confirmed so long ago at the most.
    pub(super) fn for_at_most(self, most: Option<Interval>) -> Self {
        Self { most: most.map(|Interval(most)| most), ..self }
    }

    /// Whether what was confirmed then is too old to serve.
    pub(super) fn is_too_old(&self, confirmed: Timestamp) -> bool {
        let age = Duration::try_from(Timestamp::now().duration_since(confirmed)).unwrap_or_default();
        self.most.is_some_and(|most| age > most)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.file
    }

    /// What is compiled of the objects, and what namespaces agree to; `place`: Gateways are served there.
    ///
    /// # Errors
    /// Where there is no file, or it is not whole.
    pub(crate) fn sources(&self, place: Option<&GatewayPlace>) -> io::Result<(Vec<SourceFile>, Consents)> {
        self.read().map(|(objects, _)| sources(&objects, place))
    }

    /// The objects, and when they were last confirmed.
    pub(super) fn read(&self) -> io::Result<(ObjectSet, Timestamp)> {
        let place =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.file.display()));
        let text = fs::read_to_string(&self.file).map_err(place)?;
        let confirmed = fs::metadata(&self.file).and_then(|it| it.modified()).map_err(place)?;
        let whole = || {
            let (header, body) = text.split_once('\n')?;
            let header: Header = serde_json::from_str(header).ok()?;
            let is_whole = header.format == FORMAT && header.sha256 == digest_of(body);
            let objects =
                is_whole.then(|| serde_json::from_str::<Vec<Arc<ClusterObject>>>(body).ok()).flatten()?;
            Some(ObjectSet::new(objects.into_iter()).lacking_destinations(header.lacks_destinations))
        };
        let objects =
            whole().ok_or_else(|| place(io::Error::other("it is damaged, or of another version")))?;
        let confirmed = Timestamp::try_from(confirmed).unwrap_or(Timestamp::UNIX_EPOCH);
        Ok((objects.persisted(), confirmed))
    }

    /// Writes the objects in place of those before: whole, or not at all.
    fn write(&self, objects: &ObjectSet) -> io::Result<()> {
        let body = serde_json::to_string(&objects.iter().collect::<Vec<_>>())?;
        let lacks_destinations = objects.lacks_destinations();
        let header = Header { format: FORMAT.to_owned(), sha256: digest_of(&body), lacks_destinations };
        let text = format!("{}\n{body}", serde_json::to_string(&header)?);
        let new = self.file.with_extension("new");
        // Left by a process that ended meanwhile.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        write_private(&new, text.as_bytes())?;
        fs::rename(&new, &self.file)?;
        let directory = self.file.parent().unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()
    }

    fn confirm(&self) -> io::Result<()> {
        File::options().write(true).open(&self.file)?.set_modified(SystemTime::now())
    }

    /// Writes what is published, and notes that it holds, to the end of the process.
    pub(super) async fn keep(
        self,
        mut published: channel::Receiver<Option<Published>>,
        states: Arc<WatchStates>,
    ) {
        let mut written: Option<Arc<ObjectSet>> = None;
        let mut confirmed = Instant::now();
        let mut said = String::new();
        // What this start has listed may be news to the file.
        published.mark_changed();
        loop {
            let changed = tokio::time::timeout(CONFIRM_EVERY, published.changed()).await;
            if matches!(changed, Ok(Err(_))) {
                return;
            }
            let latest = published.borrow_and_update().as_ref().map(|it| Arc::clone(&it.objects));
            let Some(objects) = latest.filter(|objects| !objects.is_persisted()) else { continue };
            let is_same = written.as_ref().is_some_and(|written| written.compiles_like(&objects));
            let done = if !is_same {
                let (file, set) = (self.clone(), Arc::clone(&objects));
                let done = tokio::task::spawn_blocking(move || file.write(&set)).await;
                done.unwrap_or_else(|_| Err(io::Error::other("the write panicked")))
            } else if states.failure().is_none() && confirmed.elapsed() >= CONFIRM_EVERY {
                self.confirm()
            } else {
                continue;
            };
            match done {
                Ok(()) => {
                    (written, confirmed) = (Some(objects), Instant::now());
                    said.clear();
                }
                Err(error) if error.to_string() != said => {
                    said = error.to_string();
                    tracing::warn!(%error, file = %self.file.display(), "the objects of the cluster cannot be persisted");
                }
                Err(_) => {}
            }
            tokio::time::sleep(WRITE_EVERY).await;
        }
    }
}

fn digest_of(body: &str) -> String {
    hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests;
