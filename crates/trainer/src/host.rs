//! The memory that this machine has left for the process: what the kernel counts as available, and what the limits of
//! the control groups above the process leave of it (a container's, a batch system's).
//!
//! Pages that only cache files count as available in both, since the kernel gives them up when memory is asked for. A
//! run that has read its dataset before would otherwise find its container full.

use std::path::Path;

/// Bytes that this process can still take; `None` where the system does not say (it does on Linux).
pub fn available_memory() -> Option<u64> {
    available_below(Path::new("/"))
}

/// Has a write past the limit on file sizes (`ulimit -f`) fail like one to a full disk; for the first lines of `main`. As a rule a
/// signal ends the process there.
pub fn outlive_file_size_limit() {
    // SAFETY: no handler is installed, the signal is only ignored.
    #[cfg(unix)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// The same, with `/proc` and `/sys` found below `root`.
fn available_below(root: &Path) -> Option<u64> {
    let of_machine = 1024 * value_of(&read(&root.join("proc/meminfo"))?, "MemAvailable:")?;
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let of_groups = groups.lines().filter_map(|line| available_to_group(root, line));
    Some(of_groups.fold(of_machine, u64::min))
}

/// What the limits on one group of `/proc/self/cgroup` and on all groups above it leave; `None` without any.
///
/// A line is `0::/path` for version 2, and `4:memory:/path` for version 1's memory controller. In a container the path
/// may be that of the host, where the container only sees its own group, at the top: folders that are not there are
/// passed over.
fn available_to_group(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let version = match controllers {
        "" => &V2,
        names if names.split(',').any(|name| name == "memory") => &V1,
        _ => return None,
    };
    let top = root.join(version.mount);
    let group = top.join(path.trim_start_matches('/'));
    let folders = group.ancestors().take_while(|folder| folder.starts_with(&top));
    folders.filter_map(|folder| version.available(folder)).min()
}

/// The file names of one version of control groups.
struct Version {
    mount: &'static str,
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`, both also count the groups below.
    file_pages: [&'static str; 2],
}

const V1: Version = Version {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    file_pages: ["total_inactive_file", "total_active_file"],
};

const V2: Version = Version {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    usage: "memory.current",
    file_pages: ["inactive_file", "active_file"],
};

impl Version {
    /// What the limit of the group in `folder` leaves; `None` where it has none. Version 1 writes a number near 2^63
    /// for none, which leaves more than any machine has.
    fn available(&self, folder: &Path) -> Option<u64> {
        let number = |name| read(&folder.join(name))?.trim().parse::<u64>().ok();
        let limit = number(self.limit)?;
        let usage = number(self.usage)?;
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let cached: u64 = self.file_pages.iter().filter_map(|key| value_of(&stat, key)).sum();
        Some(limit.saturating_sub(usage.saturating_sub(cached)))
    }
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// The number after `key` in the line that begins with it.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == key).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    /// What is available below a folder with these files in it, on a machine that has 16 GB.
    fn available(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        let meminfo = ("proc/meminfo", "MemTotal: 20000000 kB\nMemAvailable: 15625000 kB\n");
        for (path, text) in files.iter().chain([&meminfo]) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        available_below(root.path())
    }

    #[test]
    fn without_a_limit_it_is_what_the_machine_has() {
        assert_eq!(available(&[]), Some(16 * GB));
        let unlimited = [
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.current", "5\n"),
        ];
        assert_eq!(available(&unlimited), Some(16 * GB));
        assert_eq!(available_below(Path::new("/nowhere")), None);
    }

    #[test]
    fn the_tightest_group_above_counts_and_cached_files_are_available() {
        let files = [
            ("proc/self/cgroup", "0::/job/step\n"),
            ("sys/fs/cgroup/job/memory.max", "8000000000\n"),
            ("sys/fs/cgroup/job/memory.current", "7000000000\n"),
            (
                "sys/fs/cgroup/job/memory.stat",
                "anon 3000000000\ninactive_file 3000000000\nactive_file 1000000000\n",
            ),
            ("sys/fs/cgroup/job/step/memory.max", "12000000000\n"),
            ("sys/fs/cgroup/job/step/memory.current", "3000000000\n"),
        ];
        // Of the 8 GB that the job may take, 7 - 3 - 1 are taken for good.
        assert_eq!(available(&files), Some(5 * GB));
    }

    #[test]
    fn version_1_is_read_from_outside_and_inside_of_a_container() {
        let groups = ("proc/self/cgroup", "2:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/\n");
        let outside = [
            groups,
            ("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "4000000000\n"),
            ("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "3000000000\n"),
            (
                "sys/fs/cgroup/memory/docker/abc/memory.stat",
                "rss 2000000000\ntotal_inactive_file 1000000000\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "9000000000\n"),
        ];
        assert_eq!(available(&outside), Some(2 * GB));
        // Inside, its own group is at the top.
        let inside = [
            groups,
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4000000000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000000000\n"),
        ];
        assert_eq!(available(&inside), Some(3 * GB));
    }

    #[test]
    fn this_machine_has_some() {
        if cfg!(target_os = "linux") {
            assert!(available_memory().unwrap() > 100_000_000);
        }
    }
}
