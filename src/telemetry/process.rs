//! What the system says of the process, under the names that the client libraries of Prometheus give it. The prometheus
//! crate has a collector for it too, which brings a parser of all of `/proc` and a second rustix.

use std::collections::HashMap;
use std::fs;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::metrics::fixed;
use super::series::{self, number};

/// Place of a field of `/proc/self/stat` behind the name of the program, which may hold blanks (`proc_pid_stat(5)`).
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;

/// A series, and what reads its value.
type Row = (Desc, MetricType, Reading);

/// `None` where the system does not tell.
type Reading = fn() -> Option<f64>;

/// Reads when it is asked.
pub(super) struct Process(Vec<Row>);

impl Process {
    /// Shows them on the pages of `registry`.
    pub(super) fn register(registry: &Registry) {
        let row = |name: &str, help: &str, kind, read: Reading| {
            let description = Desc::new(name.into(), help.into(), Vec::new(), HashMap::new());
            (fixed(description), kind, read)
        };
        let rows: Vec<Row> = vec![
            row(
                "process_cpu_seconds_total",
                "Processor time of all threads, in seconds.",
                MetricType::COUNTER,
                cpu_seconds,
            ),
            row(
                "process_open_fds",
                "Descriptors that are open: files, and one for each connection.",
                MetricType::GAUGE,
                open_descriptors,
            ),
            row(
                "process_max_fds",
                "Most descriptors that may be open.",
                MetricType::GAUGE,
                most_descriptors,
            ),
            row(
                "process_resident_memory_bytes",
                "Memory in use, in bytes.",
                MetricType::GAUGE,
                resident_bytes,
            ),
            row(
                "process_start_time_seconds",
                "When the process was started, in Unix seconds.",
                MetricType::GAUGE,
                start_seconds,
            ),
        ];
        fixed(registry.register(Box::new(Self(rows))));
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.0.iter().map(|(description, ..)| description).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let known = self.0.iter().filter_map(|(description, kind, read)| {
            let value = read()?;
            let metric = if *kind == MetricType::COUNTER {
                series::counter(&[], value)
            } else {
                series::gauge(&[], value)
            };
            Some(series::family(description, *kind, vec![metric]))
        });
        known.collect()
    }
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(USER_TICKS)? + stat(SYSTEM_TICKS)?) / number(clock_ticks_per_second()))
}

/// From Linux 6.2 on this is the size of their folder. Before that they would have to be listed, which a process without
/// core dumps may not do unless it is root.
fn open_descriptors() -> Option<f64> {
    let count = fs::metadata("/proc/self/fd").ok()?.len();
    (count > 0).then(|| number(count))
}

fn most_descriptors() -> Option<f64> {
    getrlimit(Resource::Nofile).current.map(number)
}

fn resident_bytes() -> Option<f64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(number(resident) * number(u64::try_from(page_size()).ok()?))
}

fn start_seconds() -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let booted: u64 = booted.trim().parse().ok()?;
    Some(number(booted) + stat(START_TICKS)? / number(clock_ticks_per_second()))
}

fn stat(place: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let field: u64 = fields.split(' ').nth(place)?.parse().ok()?;
    Some(number(field))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_system_tells() {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = now - start_seconds().unwrap();
        assert!((-2.0..3600.0).contains(&age), "{age}");
        assert!((0.0..3600.0).contains(&cpu_seconds().unwrap()));
        let resident = resident_bytes().unwrap();
        assert!((1e6..1e10).contains(&resident), "{resident}");
        assert!(open_descriptors().is_none_or(|open| (3.0..1e5).contains(&open)));
        assert!(most_descriptors().is_none_or(|most| most >= 64.0));
    }
}
