//! What is known of this process's memory: how much it may have, and that nobody reads what is in it.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// The most bytes of memory that this process may have: the least of its control group's limits (`memory.max` of version 2,
/// `memory.limit_in_bytes` of version 1, of it and of those above it) and of what the machine has. `None` where nothing says so.
pub(crate) fn allowed() -> Option<u64> {
    allowed_below(Path::new("/"))
}

fn allowed_below(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let machine = read("proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim();
        line.strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let groups = read("proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(|line| {
        // "0::/path" of version 2, "7:memory:/path" of version 1 (cgroups(7)).
        let (controllers, path) = line.split_once(':').and_then(|(_, rest)| rest.split_once(':'))?;
        let (mount, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // Within a container the path may be that of the host; its own group is then the mount itself.
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        let limit = |group: &Path| {
            let text = std::fs::read_to_string(root.join(mount).join(group).join(file)).ok()?;
            text.trim().parse::<u64>().ok()
        };
        above.filter_map(limit).min()
    });
    limits.chain(machine).min()
}

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

    #[test]
    fn the_least_limit_of_its_groups_and_of_the_machine_is_what_it_may_have() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(allowed_below(root.path()), None);
        write("proc/meminfo", "MemTotal:       16000 kB\nMemFree: 1 kB\n");
        assert_eq!(allowed_below(root.path()), Some(16_384_000));
        write("proc/self/cgroup", "0::/pod/app\n");
        write("sys/fs/cgroup/pod/app/memory.max", "max\n");
        assert_eq!(allowed_below(root.path()), Some(16_384_000));
        write("sys/fs/cgroup/pod/memory.max", "5000\n");
        assert_eq!(allowed_below(root.path()), Some(5000), "of the group above");
        write("proc/self/cgroup", "4:cpu,memory:/docker/abc\n1:name=systemd:/\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "4096\n");
        assert_eq!(allowed_below(root.path()), Some(4096), "version 1, seen from within");
    }
}
