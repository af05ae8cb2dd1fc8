//! Keeps what is in this process's memory from being read there.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// A core file would hold every secret that is in memory; so would what another process of the same user reads through
/// `ptrace` or `/proc/PID/mem`. From here on only root may, and `/proc/PID/environ` is root's too.
pub(crate) fn keep_private() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // The limit does not bind a core pattern that is a pipe; this does.
    prctl::set_dumpable(false)
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::getrlimit;

    use super::*;

    #[test]
    fn neither_a_core_file_nor_another_process_gets_the_memory() {
        keep_private().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE), Ok((0, 0)));
        assert_eq!(prctl::get_dumpable(), Ok(false));
    }
}
