//! Servers as processes of their own.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use stride_local::Local;

/// What a child keeps its events in: a variable of its environment.
const STORE: &str = "STRIDE_TESTS_STORE";

/// The key of the clients of the test kit.
pub(crate) const KEY: &str = "helloworld";

/// Where servers keep everything.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// A file, for one server at a time.
    File(PathBuf),
    /// A PostgreSQL with this connection string.
    Database(String),
}

/// A server, which is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Running {
    pub(crate) fn start(store: &Store) -> Self {
        let mut command = Command::new(env::current_exe().expect("a test is a program"));
        command.args(["--exact", "child::a_child_serves", "--nocapture"]);
        match store {
            Store::File(path) => command.env(STORE, path),
            Store::Database(url) => command.env(STORE, url),
        };
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
    let builder = Local::builder().secret_key(KEY).threads(2);
    let builder = match store.starts_with("postgres://") {
        true => builder.database(store, None),
        false => builder.data(store),
    };
    let local = builder.start().unwrap();
    let mut out = io::stdout().lock();
    writeln!(out, "\n@{}", local.addr()).and_then(|()| out.flush()).expect("the parent listens");
    drop(out);
    // Until the parent is gone, should it not kill this before.
    drop(io::stdin().read(&mut [0]));
}
