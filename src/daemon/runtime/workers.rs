//! The workers: threads with a runtime each. A connection stays on one worker, so that
//! nothing is passed between cores.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::config::Threads;

/// The workers. Guard: their threads end when it is dropped.
pub(crate) struct Workers {
    all: Vec<Worker>,
}

struct Worker {
    on: OnWorker,
    /// Ends the thread when dropped. `None` for the first worker, the caller's thread.
    _until: Option<oneshot::Sender<()>>,
}

/// A worker, to run more on it.
#[derive(Clone)]
pub(crate) struct OnWorker {
    pub(crate) number: usize,
    runtime: Handle,
    load: Arc<AtomicUsize>,
}

/// Where a connection runs, and what it keeps alive.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) on: OnWorker,
    /// Dropped with the last connection.
    pub(crate) alive: mpsc::Sender<()>,
}

impl Home {
    /// Runs a connection on the same worker.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let alive = self.alive.clone();
        self.on.spawn(async move {
            connection.await;
            drop(alive);
        });
    }
}

/// Guard: counts a connection of a worker until dropped.
struct Load(Arc<AtomicUsize>);

/// A runtime that runs on the calling thread alone.
pub(crate) fn one_thread_runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

impl Workers {
    /// The runtime that this is called on, and a thread with a runtime for each further
    /// worker.
    pub(crate) fn start(threads: Threads) -> io::Result<Self> {
        let mut all = vec![Worker::new(0, Handle::current(), None)];
        for number in 1..threads.get() {
            all.push(Worker::start(number)?);
        }
        Ok(Self { all })
    }

    /// The worker that has the fewest connections.
    pub(crate) fn least_loaded(&self) -> &OnWorker {
        match self.all.iter().map(|worker| &worker.on).min_by_key(|on| on.load()) {
            Some(least) => least,
            None => unreachable!("the calling thread is a worker"),
        }
    }

    /// Each worker.
    pub(crate) fn each(&self) -> impl Iterator<Item = OnWorker> + use<'_> {
        self.all.iter().map(|worker| worker.on.clone())
    }

    /// Asks whether the workers answer, from any thread.
    pub(crate) fn probe(&self) -> Probe {
        Probe(self.all.iter().map(|worker| worker.on.runtime.clone()).collect())
    }

    /// As [`Probe::all_answer`].
    pub(crate) async fn all_answer(&self) {
        self.probe().all_answer().await;
    }
}

/// See [`Workers::probe`].
#[derive(Clone)]
pub(crate) struct Probe(Vec<Handle>);

impl Probe {
    /// Waits until each worker has run a task; for ever where a thread is stuck.
    pub(crate) async fn all_answer(&self) {
        for runtime in &self.0 {
            if runtime.spawn(async {}).await.is_err() {
                // The runtime is gone.
                return std::future::pending().await;
            }
        }
    }
}

impl Worker {
    /// A thread with a runtime. The runtime is made on its thread: if the thread cannot be
    /// started, there is no runtime to drop within another one, which would panic.
    fn start(number: usize) -> io::Result<Self> {
        let (until, dropped) = oneshot::channel::<()>();
        let (tell, told) = channel();
        thread::Builder::new().name(format!("spiped-{number}")).spawn(move || {
            let (handle, runtime) = match one_thread_runtime() {
                Ok(runtime) => (Ok(runtime.handle().clone()), Some(runtime)),
                Err(error) => (Err(error), None),
            };
            // The starting thread waits for the handle.
            let _received = tell.send(handle);
            if let Some(runtime) = runtime {
                // The error only says that the sender was dropped.
                let _end = runtime.block_on(dropped);
            }
        })?;
        let runtime = told.recv().map_err(io::Error::other)??;
        Ok(Self::new(number, runtime, Some(until)))
    }

    fn new(number: usize, runtime: Handle, until: Option<oneshot::Sender<()>>) -> Self {
        Self { on: OnWorker { number, runtime, load: Arc::default() }, _until: until }
    }
}

impl OnWorker {
    /// Runs a connection on this worker.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(Load::on(&self.load).counts(connection));
    }

    /// Runs work on this worker, in a set that can wait for it or end it.
    pub(crate) fn spawn_in<T: Send + 'static>(
        &self,
        set: &mut JoinSet<T>,
        work: impl Future<Output = T> + Send + 'static,
    ) {
        set.spawn_on(Load::on(&self.load).counts(work), &self.runtime);
    }

    fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }
}

impl Load {
    fn on(load: &Arc<AtomicUsize>) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(load))
    }

    /// Holds the count until `work` is done.
    async fn counts<T>(self, work: impl Future<Output = T>) -> T {
        let output = work.await;
        drop(self);
        output
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The other connections go on, and the worker's load goes down.
    #[tokio::test]
    async fn a_panic_ends_one_connection_alone() {
        for threads in ["1", "2"] {
            panic_beside_others(&Workers::start(threads.parse().unwrap()).unwrap()).await;
        }
    }

    async fn panic_beside_others(workers: &Workers) {
        let mut others = Vec::new();
        for _ in 0..10 {
            let (go, gone) = oneshot::channel::<()>();
            let (done, is_done) = oneshot::channel();
            workers.least_loaded().spawn(async move {
                gone.await.unwrap();
                done.send(()).unwrap();
            });
            workers.least_loaded().spawn(async { panic!("a bug in one connection") });
            others.push((go, is_done));
        }
        until_load_is(workers, 10).await;
        for (go, is_done) in others {
            go.send(()).unwrap();
            is_done.await.unwrap();
        }
        until_load_is(workers, 0).await;
    }

    #[tokio::test]
    async fn a_stuck_worker_does_not_answer() {
        let workers = Workers::start("3".parse().unwrap()).unwrap();
        workers.all_answer().await;
        let (release, stuck) = channel::<()>();
        workers.all[1].on.runtime.spawn(async move { stuck.recv().unwrap() });
        let a_while = Duration::from_millis(200);
        assert!(tokio::time::timeout(a_while, workers.all_answer()).await.is_err());
        release.send(()).unwrap();
        workers.all_answer().await;
    }

    async fn until_load_is(workers: &Workers, wanted: usize) {
        while workers.all.iter().map(|worker| worker.on.load()).sum::<usize>() != wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
