//! The directory of resources: read whole.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use tollgate_policy::model::SourceFile;

/// A file over this is not a resource file.
const LARGEST: u64 = 8 << 20;

/// A directory of YAML files.
#[derive(Debug)]
pub(crate) struct ResourceFiles {
    directory: PathBuf,
}

impl ResourceFiles {
    pub(crate) const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Every `*.yaml` and `*.yml` below the directory, in order of their paths; hidden entries are left out, except that a
    /// mounted volume's own links are followed.
    ///
    /// # Errors
    /// What the file system says, with the path.
    pub(crate) fn read(&self) -> io::Result<Vec<SourceFile>> {
        let mut files = Vec::new();
        collect(&self.directory, &mut files, 0)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

/// Tells files from what they were.
pub(crate) fn digest_of(files: &[SourceFile]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    for file in files {
        context.update(file.path.as_os_str().as_encoded_bytes());
        context.update(&[0]);
        context.update(file.text.as_bytes());
        context.update(&[0]);
    }
    context.finish().as_ref().to_vec()
}

fn collect(directory: &Path, files: &mut Vec<SourceFile>, depth: usize) -> io::Result<()> {
    let context =
        |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let entries = std::fs::read_dir(directory).map_err(|error| context(directory, error))?;
    for entry in entries {
        let path = entry.map_err(|error| context(directory, error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden {
            continue;
        }
        let metadata = std::fs::metadata(&path).map_err(|error| context(&path, error))?;
        if metadata.is_dir() && depth < 8 {
            collect(&path, files, depth + 1)?;
        } else if metadata.is_file() && path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            if metadata.len() > LARGEST {
                return Err(context(&path, io::Error::other("larger than 8 MiB")));
            }
            let text = std::fs::read_to_string(&path).map_err(|error| context(&path, error))?;
            files.push(SourceFile { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed_and_hidden_files_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("team")).unwrap();
        std::fs::write(dir.path().join("team/a.yaml"), "a: 1").unwrap();
        std::fs::write(dir.path().join("b.yml"), "b: 1").unwrap();
        std::fs::write(dir.path().join(".hidden.yaml"), "c: 1").unwrap();
        std::fs::write(dir.path().join("notes.txt"), "d").unwrap();
        let files = ResourceFiles::new(dir.path().into());
        let first = files.read().unwrap();
        let names: Vec<_> =
            first.iter().map(|f| f.path.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["b.yml", "team/a.yaml"]);
        let again = || digest_of(&files.read().unwrap());
        assert_eq!(again(), digest_of(&first));
        std::fs::write(dir.path().join("b.yml"), "b: 2").unwrap();
        assert_ne!(again(), digest_of(&first));
    }
}
