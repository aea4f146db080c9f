//! Threads for calls that may block, to a resolver or a file. They are started with the
//! process: later the limit of threads may be reached. So none may be lost by a panic.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one job after the other. It ends after its last job once this is
/// dropped, which waits for no job.
pub(crate) struct BlockingThread(Sender<Job>);

impl BlockingThread {
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        thread::Builder::new().name(name.into()).spawn(move || {
            for job in queue {
                // What a job had of its own is gone with it, and its caller is told.
                let _logged = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Self(jobs))
    }

    /// Runs `job` on the thread, and waits for its result. If this is dropped before the job
    /// has begun, the job is not run.
    ///
    /// # Errors
    /// The error of the job; or it has ended by a panic, which is logged.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = oneshot::channel();
        let job = move || {
            if !tell.is_closed() {
                // Fails where this was dropped meanwhile.
                let _not_awaited = tell.send(job());
            }
        };
        self.0.send(Box::new(job)).map_err(|_| io::Error::other("the thread for it has ended"))?;
        told.await.map_err(|_| io::Error::other("it has ended by a mistake, see the log"))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::timeout;

    #[tokio::test]
    async fn a_job_that_is_not_awaited_is_not_done() {
        let thread = BlockingThread::start("test").unwrap();
        let (release, stuck) = channel::<()>();
        let a_while = Duration::from_millis(50);
        let blocked = thread.run(move || stuck.recv().map_err(io::Error::other));
        assert!(timeout(a_while, blocked).await.is_err());
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 {
            let done = Arc::clone(&done);
            let job = thread.run(move || Ok(done.fetch_add(1, Ordering::Relaxed)));
            assert!(timeout(Duration::from_millis(1), job).await.is_err());
        }
        release.send(()).unwrap();
        assert_eq!(thread.run(|| Ok(7)).await.unwrap(), 7);
        assert_eq!(done.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_panic_fails_its_job_and_no_other() {
        let thread = BlockingThread::start("test").unwrap();
        let panics = thread.run::<()>(|| panic!("a bug in a job"));
        assert!(panics.await.is_err());
        assert_eq!(thread.run(|| Ok(7)).await.unwrap(), 7);
    }
}
