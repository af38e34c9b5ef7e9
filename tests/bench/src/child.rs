//! Other processes: the running program, started again with a part to play.
//!
//! What serves must not take processor time of what is measured into its account, and what measures
//! memory or wake-ups must be alone in its process.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::thread;

/// Comes before a part's name.
const PART: &str = "--part";

/// A part: its name, and what plays it with the arguments behind the name.
pub type Part = (&'static str, fn(&[String]) -> io::Result<()>);

/// Plays the part that the command line names, if it names one.
///
/// # Panics
///
/// The part fails.
#[must_use]
pub fn play(parts: &[Part]) -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    if arguments.next()? != PART {
        return None;
    }
    let name = arguments.next()?;
    let arguments: Vec<String> = arguments.collect();
    let (_, part) = parts.iter().find(|(known, _)| *known == name)?;
    // Nobody outlives its parent, whatever ended that one.
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(0);
    });
    if let Err(error) = part(&arguments) {
        panic!("{name}: {error}");
    }
    Some(ExitCode::SUCCESS)
}

/// A process that plays a part. Ends when it is dropped.
#[derive(Debug)]
pub struct Player {
    process: Child,
    says: BufReader<ChildStdout>,
}

impl Player {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// The operating system gives no process.
    #[must_use]
    pub fn start(part: &str, arguments: &[&str]) -> Self {
        let program = env::current_exe().expect("the program has a path");
        let mut process = Command::new(program)
            .args([PART, part])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts again");
        let says = process.stdout.take().expect("its output is piped");
        Self { process, says: BufReader::new(says) }
    }

    /// The next line that it prints.
    ///
    /// # Panics
    ///
    /// It ended instead.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let length = self.says.read_line(&mut line).expect("its output can be read");
        assert!(length > 0, "a part ended before it was over");
        line.trim_end().to_owned()
    }

    /// All that it prints until it ends.
    ///
    /// # Panics
    ///
    /// It failed.
    #[must_use]
    pub fn answer(mut self) -> String {
        let mut text = String::new();
        self.says.read_to_string(&mut text).expect("its output can be read");
        assert!(self.process.wait().is_ok_and(|status| status.success()), "a part failed");
        text
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
