//! What other replicas know a data directory by, whichever process has it.
//!
//! **Invariant:** no two directories have the same name, unless one is a copy of the other. The file is there whole or not at all.

use std::io::{self, Write};
use std::path::Path;

const FILE: &str = "replica";
const LENGTH: usize = 32;

/// The name of this directory, which is locked; it is made where there is none.
///
/// # Errors
/// Where it cannot be read or made, or is none.
pub(crate) fn of(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(name) if name.len() == LENGTH && name.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(name),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} has no name of {LENGTH} hexadecimal digits", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut random = [0; LENGTH / 2];
            aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
            let name = tollgate_secrets::digest::hex(&random);
            let mut file = tempfile::NamedTempFile::new_in(data_dir)?;
            file.write_all(name.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(name)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_keeps_its_name_and_another_has_another() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let name = of(one.path()).unwrap();
        assert_eq!(of(one.path()).unwrap(), name);
        assert_ne!(of(other.path()).unwrap(), name);
        std::fs::write(one.path().join(FILE), &name[1..]).unwrap();
        assert!(of(one.path()).is_err(), "half a name is none");
    }
}
