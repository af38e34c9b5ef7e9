use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a test may take before it counts as hung: far longer than any needs on a loaded
/// machine, shorter than the minute that tests set for limits that must not be reached.
const HUNG: Duration = Duration::from_secs(50);

/// Runs a test on another thread, returns what it returns, and fails when it hangs.
pub fn watchdog<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    watchdog_of(HUNG, test)
}

/// [`watchdog`] with another limit, for a long test.
pub fn watchdog_of<T: Send + 'static>(
    limit: Duration,
    test: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = mpsc::channel();
    let runner = thread::spawn(move || {
        // Nobody listens after the watchdog has given up.
        let _ = done.send(test());
    });
    match result.recv_timeout(limit) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(runner.join().expect_err("it sends unless it panics"))
        }
    }
}
