//! Servers as processes of their own.

use std::env;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use stride_local::Local;

/// What a child keeps its events in: a variable of its environment.
const STORE: &str = "STRIDE_TESTS_STORE";

/// The login of its queries, if it is another.
const READER: &str = "STRIDE_TESTS_READER";

/// Where a child logs all that it or a dependency can say.
const LOG: &str = "STRIDE_TESTS_LOG";

/// The key of the clients of the test kit.
pub(crate) const KEY: &str = "helloworld";

/// Where servers keep everything.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// A file, for one server at a time.
    File(PathBuf),
    /// A PostgreSQL with this connection string.
    Database(String),
    /// The same, with one for each of its logins.
    Logins { writer: String, reader: String },
}

/// A server, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn start(store: &Store) -> Self {
        Self::start_logging(store, None)
    }

    pub(crate) fn start_logging(store: &Store, log: Option<&Path>) -> Self {
        let mut command = Command::new(env::current_exe().expect("a test is a program"));
        command.args(["--exact", "child::a_child_serves", "--nocapture"]);
        match store {
            Store::File(path) => command.env(STORE, path),
            Store::Database(url) => command.env(STORE, url),
            Store::Logins { writer, reader } => command.env(STORE, writer).env(READER, reader),
        };
        if let Some(log) = log {
            command.env(LOG, log);
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let address = lines.find_map(|line| Some(line.unwrap().strip_prefix('@')?.to_owned()));
        let address = address.expect("the server starts").parse().unwrap();
        Self { process, address }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Not a test, but what the others start.
#[test]
fn a_child_serves() {
    let Ok(store) = env::var(STORE) else { return };
    if let Ok(file) = env::var(LOG) {
        write_log(File::create(file).unwrap());
    }
    let builder = Local::builder().secret_key(KEY).threads(2);
    let builder = match store.starts_with("postgres://") {
        true => builder.database(store, env::var(READER).ok()),
        false => builder.data(store),
    };
    let local = builder.start().unwrap();
    let mut out = io::stdout().lock();
    writeln!(out, "\n@{}", local.addr()).and_then(|()| out.flush()).expect("the parent listens");
    drop(out);
    // Until the parent is gone, should it not kill this before.
    drop(io::stdin().read(&mut [0]));
}

fn write_log(file: File) {
    struct Logger(File);

    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, entry: &log::Record<'_>) {
            writeln!(&self.0, "{} {}", entry.target(), entry.args()).unwrap();
        }

        fn flush(&self) {}
    }

    log::set_boxed_logger(Box::new(Logger(file.try_clone().unwrap()))).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(file).init();
}
