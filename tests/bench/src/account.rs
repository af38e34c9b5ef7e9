//! What the kernel says of this process.

use std::fs;
use std::io;
use std::time::Duration;

/// The most memory that was resident so far, in bytes.
///
/// # Errors
///
/// There is no `/proc`, as outside of Linux.
pub fn peak_memory() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    field(&status, "VmHWM").map(|kib| kib << 10).ok_or_else(|| io::Error::other("no VmHWM"))
}

/// The processor time of all threads so far, those that ended included.
///
/// # Errors
///
/// There is no `/proc`, as outside of Linux.
pub fn processor_time() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    ticks(&stat)
        // A tick is a hundredth of a second, whatever the kernel's own clock does.
        .map(|ticks| Duration::from_millis(ticks * 10))
        .ok_or_else(|| io::Error::other("/proc/self/stat has another form"))
}

/// A thread and how often it was put on a processor so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// The kernel's number of it.
    pub id: u32,
    /// Its name, cut off by the kernel after 15 bytes.
    pub name: String,
    /// Its context switches, voluntary or not: each is a wake-up.
    pub switches: u64,
}

/// The threads of this process but the calling one's.
///
/// # Errors
///
/// There is no `/proc`, as outside of Linux.
pub fn other_threads() -> io::Result<Vec<Thread>> {
    let here = fs::read_link("/proc/thread-self")?;
    let here = here.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let mut threads = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let id = task?.file_name().to_string_lossy().parse().unwrap_or_default();
        if Some(id) != here
            && let Ok(status) = fs::read_to_string(format!("/proc/self/task/{id}/status"))
            && let Some(thread) = thread(id, &status)
        {
            threads.push(thread);
        }
    }
    Ok(threads)
}

fn thread(id: u32, status: &str) -> Option<Thread> {
    let name = status.lines().find_map(|line| line.strip_prefix("Name:"))?.trim().to_owned();
    let switches =
        field(status, "voluntary_ctxt_switches")? + field(status, "nonvoluntary_ctxt_switches")?;
    Some(Thread { id, name, switches })
}

/// A number of a `status` file.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time. The name before them may hold anything, even parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tstride-sender-0\nVmHWM:\t   12345 kB\n\
                          voluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";

    #[test]
    fn a_status_file_is_read() {
        assert_eq!(field(STATUS, "VmHWM"), Some(12345));
        let name = "stride-sender-0".to_owned();
        assert_eq!(thread(3, STATUS), Some(Thread { id: 3, name, switches: 9 }));
    }

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "1 (a) b) S 0 1 1 0 -1 0 1 2 3 4 50 6 7 8 20 0 1";
        assert_eq!(ticks(stat), Some(56));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_an_account() {
        assert!(peak_memory().unwrap() > 0);
        processor_time().unwrap();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("seen".to_owned());
        let thread = thread.spawn(move || stopped.recv()).unwrap();
        // A thread's name is set by the thread itself.
        while !other_threads().unwrap().iter().any(|thread| thread.name == "seen") {
            std::thread::yield_now();
        }
        drop(stop);
        let _ = thread.join();
    }
}
