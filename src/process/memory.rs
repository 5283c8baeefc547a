//! The memory limit of this process, and the default limit of client connections.

use std::fs;
use std::path::Path;

/// Memory of a connection in bytes. A client over HTTP/1 that does not read its response uses up to 0.8 MiB.
const PER_CONNECTION: u64 = 1 << 20;
/// Lower limit of the default. With fewer connections, even a single page could fail to load.
const MIN_CONNECTIONS: u64 = 64;

/// Returns the limit of connections for a configuration without `limits.connections`. Returns None if the system does
/// not report its memory.
pub(super) fn default_connections() -> Option<usize> {
    usize::try_from((memory()? / PER_CONNECTION).max(MIN_CONNECTIONS)).ok()
}

/// Returns the memory limit in bytes: the smaller one of the control group's limit and the memory of the machine.
fn memory() -> Option<u64> {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total(&text));
    let groups = read(Path::new("/proc/self/cgroup")).map(|text| limit_files(&text)).unwrap_or_default();
    let groups = groups.iter().filter_map(|file| read(Path::new(file))?.trim().parse().ok());
    machine.into_iter().chain(groups).min()
}

/// Returns `MemTotal` of `/proc/meminfo` in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the files with the memory limits of the control groups in `/proc/self/cgroup`, and of all groups above them.
fn limit_files(cgroup: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let (root, name, group) = match line.splitn(3, ':').collect::<Vec<_>>()[..] {
            [_, "", group] => ("/sys/fs/cgroup", "memory.max", group),
            [_, controllers, group] if controllers.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", group)
            }
            _ => continue,
        };
        files.extend(Path::new(group).ancestors().map(|group| {
            let group = group.display().to_string();
            format!("{root}{}/{name}", group.trim_end_matches('/'))
        }));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_of_all_control_groups_above_the_process_count() {
        assert_eq!(
            limit_files("0::/kubepods/pod1\n"),
            [
                "/sys/fs/cgroup/kubepods/pod1/memory.max",
                "/sys/fs/cgroup/kubepods/memory.max",
                "/sys/fs/cgroup/memory.max"
            ]
        );
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        assert_eq!(
            limit_files("5:cpu,cpuacct:/a\n4:memory:/a\n"),
            ["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
        assert!(limit_files("").is_empty() && limit_files("nonsense").is_empty());
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        assert_eq!(total("MemTotal:       16303080 kB\nMemFree: 1 kB\n"), Some(16_303_080 * 1024));
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert!(default_connections().is_some_and(|connections| connections >= 64));
    }
}
