//! Threads for what takes much memory or stack.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

type Job = Box<dyn FnOnce() + Send>;

/// A few threads that are used again and again. The allocator keeps memory for each thread that ever used much, and
/// a stack stays as large as it once was: on tokio's threads, of which there may be hundreds, that would add up.
pub(crate) struct Pool {
    jobs: Sender<Job>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// Starts the threads, which end once the pool is dropped and their jobs are done.
    pub(crate) fn start(name: &str, threads: usize, stack: usize) -> io::Result<Self> {
        let (jobs, received) = mpsc::channel();
        let received = Arc::new(Mutex::new(received));
        for _ in 0..threads {
            let received = Arc::clone(&received);
            std::thread::Builder::new()
                .name(format!("stride-local-{name}"))
                .stack_size(stack)
                .spawn(move || work(&received))?;
        }
        Ok(Self { jobs })
    }

    /// Does the job as soon as a thread is free.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        // The threads are there as long as the pool is.
        drop(self.jobs.send(Box::new(job)));
    }
}

fn work(received: &Mutex<Receiver<Job>>) {
    let next = || received.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(job) = next() {
        // What the job drops tells its caller.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job panicked");
        }
    }
}
