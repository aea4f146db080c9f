//! What this process uses of the system, from `/proc/self`: files of the kernel, which take
//! some tens of microseconds to read.

use nix::sys::resource::{Resource, getrlimit};
use procfs::process::Process;
use procfs::{page_size, ticks_per_second};

/// What this process uses; `None` where the system does not tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Processor time of all threads.
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) virtual_bytes: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) descriptors: Option<u64>,
    pub(crate) descriptor_limit: Option<u64>,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let process = Process::myself().ok();
        let stat = process.as_ref().and_then(|process| process.stat().ok());
        let stat = stat.as_ref();
        let descriptors = process.as_ref().and_then(|process| process.fd_count().ok());
        #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "within 2^53")]
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
        Self {
            cpu_seconds: stat.map(|stat| seconds(stat.utime.saturating_add(stat.stime))),
            resident_bytes: stat.map(|stat| stat.rss.saturating_mul(page_size())),
            virtual_bytes: stat.map(|stat| stat.vsize),
            threads: stat.and_then(|stat| stat.num_threads.try_into().ok()),
            descriptors: descriptors.and_then(|count| count.try_into().ok()),
            descriptor_limit: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_uses() {
        let usage = Usage::now();
        assert!(usage.cpu_seconds.unwrap() >= 0.0);
        assert!(usage.resident_bytes.unwrap() > 1 << 16);
        assert!(usage.virtual_bytes > usage.resident_bytes);
        assert!(usage.threads.unwrap() >= 1);
        assert!(usage.descriptors.unwrap() >= 3 && usage.descriptors < usage.descriptor_limit);
    }
}
