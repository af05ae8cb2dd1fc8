//! What was told, in a file of the data directory: a restart tells nothing again.
//!
//! **Invariant:** where replicas share no limits, what is begun stands in it under its id before anybody is told, so that one that was
//! interrupted is told again under the same.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const FILE: &str = "alerts.json";

/// What was told or is being told, by name.
#[derive(Debug)]
pub(super) struct ToldAlerts {
    file: PathBuf,
    lines: BTreeMap<String, ToldLine>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldLine {
    id: String,
    /// When it may be forgotten.
    until: Timestamp,
    told: bool,
}

impl ToldAlerts {
    /// What the file says. One that cannot be read is said and counts as empty: told twice is better than never.
    pub(super) fn read(data_dir: &Path) -> Self {
        let file = data_dir.join(FILE);
        let lines = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(file = %file.display(), %error, "it is not known which alerts were told");
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "it is not known which alerts were told");
                BTreeMap::new()
            }
        };
        Self { file, lines }
    }

    pub(super) fn is_told(&self, name: &str, now: Timestamp) -> bool {
        self.lines.get(name).is_some_and(|line| line.told && now < line.until)
    }

    /// Begins to tell it; its id, which is the one that it was begun with.
    pub(super) async fn begin(&mut self, name: &str, id: String, until: Timestamp) -> String {
        if let Some(line) = self.lines.get(name) {
            return line.id.clone();
        }
        self.lines.insert(name.to_owned(), ToldLine { id: id.clone(), until, told: false });
        self.write().await;
        id
    }

    /// Notes that it was told.
    pub(super) async fn done(&mut self, name: &str, id: String, until: Timestamp) {
        self.lines.insert(name.to_owned(), ToldLine { id, until, told: true });
        self.write().await;
    }

    /// The same of what another replica has told: it is written down with what comes next, because the store of all knows it.
    pub(super) fn note(&mut self, name: &str, id: String, until: Timestamp) {
        self.lines.insert(name.to_owned(), ToldLine { id, until, told: true });
    }

    /// What is forgotten is left out.
    async fn write(&mut self) {
        let now = Timestamp::now();
        self.lines.retain(|_, line| now < line.until);
        let (file, lines) = (self.file.clone(), self.lines.clone());
        let written = tokio::task::spawn_blocking(move || replace(&file, &lines)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(file = %self.file.display(), %error, "what was told is not written down: a restart would tell it again");
        }
    }
}

fn replace(path: &Path, lines: &BTreeMap<String, ToldLine>) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(lines)?)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_told_is_known_after_a_restart_and_what_was_begun_keeps_its_id() {
        let directory = tempfile::tempdir().unwrap();
        let until: Timestamp = "9999-01-01T00:00:00Z".parse().unwrap();
        let mut told = ToldAlerts::read(directory.path());
        assert_eq!(told.begin("a", "1".into(), until).await, "1");
        told.begin("b", "2".into(), until).await;
        told.done("b", "2".into(), until).await;
        told.done("old", "3".into(), "2000-01-01T00:00:00Z".parse().unwrap()).await;
        let mut told = ToldAlerts::read(directory.path());
        let now = Timestamp::now();
        assert!(told.is_told("b", now) && !told.is_told("a", now) && !told.is_told("old", now));
        assert!(!told.is_told("b", until), "its window is over");
        assert_eq!(told.begin("a", "9".into(), until).await, "1");
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert!(!ToldAlerts::read(directory.path()).is_told("b", now));
    }
}
