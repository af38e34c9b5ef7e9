//! Runs the program.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use stride_local::Local;

/// Far longer than anything takes on a loaded machine: whatever is not there by then hangs.
pub(crate) const HUNG: Duration = Duration::from_secs(100);

/// The program for this server, as a user of the secret key calls it.
pub(crate) fn stride(local: &Local) -> Command {
    let mut command = bare();
    command.env("STRIDE_API_KEY", local.secret_key()).env("STRIDE_ENDPOINT", local.endpoint());
    command
}

/// The program, in an environment that tells it nothing.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stride"));
    for name in ["STRIDE_API_KEY", "STRIDE_ENDPOINT", "NO_COLOR", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color");
    command
}

/// Runs the program to its end, with pipes at both ends.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Ended {
    let mut program = Program::start(command);
    program.input(input);
    program.close_input();
    program.end()
}

/// What is left of a process.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// What it printed, of which nothing went wrong.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }
}

/// What was printed so far.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    out: Vec<u8>,
    err: Vec<u8>,
    /// How many of the outputs have not ended.
    open: usize,
}

impl Printed {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.err).into_owned()
    }
}

/// A process, which is killed at the latest when this is dropped.
pub(crate) struct Program {
    child: Child,
    printed: Arc<(Mutex<Printed>, Condvar)>,
}

impl Program {
    /// With pipes everywhere.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_into(command, Stdio::piped())
    }

    /// With standard output elsewhere.
    pub(crate) fn start_into(command: &mut Command, out: Stdio) -> Self {
        command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::piped());
        let mut program = Self::spawn(command);
        if let Some(out) = program.child.stdout.take() {
            program.read(out, |printed| &mut printed.out);
        }
        let err = program.child.stderr.take().unwrap();
        program.read(err, |printed| &mut printed.err);
        program
    }

    /// With standard output and standard error on a pseudo-terminal: both are in what it has printed to `out`.
    pub(crate) fn start_on_terminal(command: &mut Command, columns: u16) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs = File::options().read(true).write(true).open(name).unwrap();
        command.stdin(Stdio::piped()).stdout(theirs.try_clone().unwrap()).stderr(theirs);
        let program = Self::spawn(command);
        // The terminal ends when nobody has its other end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        program.read(File::from(ours), |printed| &mut printed.out);
        program
    }

    fn spawn(command: &mut Command) -> Self {
        Self { child: command.spawn().unwrap(), printed: Arc::default() }
    }

    /// Keeps what comes, on a thread: the process must never wait for the test.
    fn read(&self, mut from: impl Read + Send + 'static, to: fn(&mut Printed) -> &mut Vec<u8>) {
        let printed = Arc::clone(&self.printed);
        lock(&printed.0).open += 1;
        thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            loop {
                // A terminal ends with an error.
                let length = match from.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => read.unwrap_or(0),
                };
                let mut state = lock(&printed.0);
                to(&mut state).extend_from_slice(&buffer[..length]);
                state.open -= usize::from(length == 0);
                printed.1.notify_all();
                if length == 0 {
                    return;
                }
            }
        });
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input. It may have ended: what comes of that is seen by its exit code.
    pub(crate) fn input(&mut self, bytes: &[u8]) {
        let _ = self.child.stdin.as_mut().unwrap().write_all(bytes);
    }

    pub(crate) fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until it has printed what is asked for.
    #[track_caller]
    pub(crate) fn wait_for(&self, mut enough: impl FnMut(&Printed) -> bool) {
        let until = Instant::now() + HUNG;
        let mut state = lock(&self.printed.0);
        while !enough(&state) {
            assert!(state.open > 0, "it ended: {} {}", state.out(), state.err());
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it hangs: {} {}", state.out(), state.err());
            state =
                self.printed.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether it prints something by then, or ends.
    pub(crate) fn prints_within(&self, limit: Duration) -> bool {
        let is_silent = |printed: &mut Printed| printed.open == 2 && printed.out.is_empty();
        let state = lock(&self.printed.0);
        let waited = self.printed.1.wait_timeout_while(state, limit, is_silent);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        self.close_input();
        self.wait_for(|printed| printed.open == 0);
        let code = self.child.wait().unwrap().code();
        let printed = lock(&self.printed.0);
        Ended { code, out: printed.out(), err: printed.err() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// With SIGKILL.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(printed: &Mutex<Printed>) -> MutexGuard<'_, Printed> {
    printed.lock().unwrap_or_else(PoisonError::into_inner)
}
