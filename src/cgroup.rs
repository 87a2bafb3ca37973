//! How much memory the process may use before the kernel kills it: the limit of its control group.

use std::fs;
use std::path::Path;

use crate::units::ByteSize;

/// Where control groups are mounted.
const ROOT: &str = "/sys/fs/cgroup";
/// Version 1 writes a number near 2^63 where nothing is limited.
const UNLIMITED: u64 = 1 << 60;

/// The lowest limit of the group and those that it is in; `None` where there is none.
pub fn memory_limit() -> Option<ByteSize> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    lowest(&groups, |file| fs::read_to_string(file).ok())
}

/// As [`memory_limit`], by the lines of `/proc/self/cgroup` and what a file holds.
fn lowest(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<ByteSize> {
    let root = Path::new(ROOT);
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (mount, file) = if controllers.is_empty() {
            (root.to_owned(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        // A container may see its own group as the root while its path is that of the host: what is
        // not there is passed over.
        for group in Path::new(group.trim_start_matches('/')).ancestors() {
            let limit = read(&mount.join(group).join(file));
            limits.extend(limit.and_then(|text| text.trim().parse::<u64>().ok()));
        }
    }
    limits
        .into_iter()
        .filter(|limit| *limit < UNLIMITED)
        .min()
        .map(ByteSize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let read = |path: &Path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        };
        lowest(groups, read).map(|limit| limit.0)
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts() {
        // SECURITY S-18
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "67108864\n"),
            ("/sys/fs/cgroup/memory.max", "134217728\n"),
        ];
        assert_eq!(found("0::/a/b\n", &files), Some(64 << 20));
        assert_eq!(found("0::/\n", &files), Some(128 << 20));
        assert_eq!(found("0::/gone/from/here\n", &files), Some(128 << 20));
    }

    #[test]
    fn version_1_has_its_own_hierarchy() {
        let groups = "5:cpu,cpuacct:/x\n4:memory:/docker/id\n0::/x\n";
        let root = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(found(groups, &[(root, "67108864\n")]), Some(64 << 20));
        assert_eq!(found(groups, &[(root, "9223372036854771712\n")]), None);
        assert_eq!(found("", &[(root, "1\n")]), None);
        assert_eq!(found("no line of this kind\n", &[(root, "1\n")]), None);
    }
}
